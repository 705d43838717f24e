"""Comparisons with Stripe and what they found."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from apps.core.ids import uuid7


class Reconciliation(models.Model):
    """One comparison of Stripe's objects with our rows over a span of time."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    since = models.DateTimeField()
    until = models.DateTimeField()
    compared = models.PositiveIntegerField(default=0)
    events_fetched = models.PositiveIntegerField(default=0)
    differences = models.PositiveIntegerField(default=0)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("reconciliation")
        verbose_name_plural = _("reconciliations")

    def __str__(self) -> str:
        return f"{self.since:%Y-%m-%d %H:%M} – {self.until:%Y-%m-%d %H:%M}"


class DifferenceKind(models.TextChoices):
    """In what Stripe and we disagree."""

    NOT_HERE = "not_here", _("Stripe has it, we do not")
    NOT_THERE = "not_there", _("We have it, Stripe does not")
    STATE = "state", _("The states differ")
    AMOUNT = "amount", _("The amounts differ")


class Difference(models.Model):
    """One object on which Stripe and we disagree; open until it agrees again or staff say why not."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=12, choices=DifferenceKind.choices)
    object_id = models.CharField(max_length=128)
    detail = models.CharField(max_length=500)
    found_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=254, blank=True)
    reason = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name = _("difference")
        verbose_name_plural = _("differences")
        permissions = [("resolve_difference", _("Can resolve differences"))]
        constraints = [
            models.UniqueConstraint(
                name="payments_difference_open_once",
                fields=["kind", "object_id"],
                condition=Q(resolved_at=None),
            ),
            models.CheckConstraint(
                name="payments_difference_kind_known", condition=Q(kind__in=DifferenceKind.values)
            ),
        ]
        indexes = [models.Index(name="payments_difference_open", fields=["resolved_at", "-found_at"])]

    def __str__(self) -> str:
        return f"{self.object_id}: {self.get_kind_display()}"
