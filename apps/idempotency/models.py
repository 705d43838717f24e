"""The store of answers by idempotency key."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from apps.core.ids import uuid7


class StoredAnswer(models.Model):
    """The answer to the first request with a key; written in the same transaction as the request's effect.

    attempt_id: of a request that calls somebody else, the row that it began with; status 0 until that call's outcome
    is known.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization_id = models.UUIDField(_("organization"), null=True)
    principal = models.CharField(_("principal"), max_length=64)
    key = models.CharField(_("key"), max_length=255)
    fingerprint = models.BinaryField(_("fingerprint"), max_length=32)
    status = models.PositiveSmallIntegerField(_("status"))
    attempt_id = models.UUIDField(_("attempt"), null=True, blank=True)
    headers = models.JSONField(_("headers"), default=dict)
    body = models.BinaryField(_("body"))
    created_at = models.DateTimeField(_("created"))

    class Meta:
        verbose_name = _("stored answer")
        verbose_name_plural = _("stored answers")
        constraints = [
            models.UniqueConstraint(
                fields=["organization_id", "principal", "key"],
                name="idempotency_storedanswer_key",
                nulls_distinct=False,
            )
        ]
        indexes = [models.Index(fields=["created_at"], name="idempotency_storedanswer_age")]

    def __str__(self) -> str:
        return self.key
