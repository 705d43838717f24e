"""Guesses counted in PostgreSQL while Valkey is away."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class GuessBucket(models.Model):
    """One account and address that guesses; who they are is not in the row."""

    digest = models.CharField(_("bucket"), primary_key=True, max_length=40)
    whole_at = models.BigIntegerField(_("whole at, microseconds since 1970"))

    class Meta:
        verbose_name = _("bucket of guesses")
        verbose_name_plural = _("buckets of guesses")
        indexes = [models.Index(fields=["whole_at"], name="limits_guessbucket_age")]

    def __str__(self) -> str:
        return self.digest
