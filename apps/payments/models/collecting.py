"""Charging without being asked: automatic top-ups, and the way to the money of an invoice."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from apps.core.ids import uuid7


class AutoTopUpState(models.TextChoices):
    """Whether the card is charged by itself."""

    ACTIVE = "active", _("On")
    PAUSED = "paused", _("Paused: your bank wants to hear from you")
    DISABLED = "disabled", _("Off after three failures")
    OFF = "off", _("Off")


class AutoTopUp(models.Model):
    """Charge the default card when what is available falls below a threshold. Amounts are ISO 4217 minor units."""

    organization = models.OneToOneField(
        "organizations.Organization", models.PROTECT, primary_key=True, related_name="+"
    )
    state = models.CharField(max_length=16, choices=AutoTopUpState.choices)
    threshold_minor = models.BigIntegerField()
    amount_minor = models.BigIntegerField()
    monthly_cap_minor = models.BigIntegerField()
    failures_in_a_row = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    updated_at = models.DateTimeField()

    class Meta:
        verbose_name = _("automatic top-up")
        verbose_name_plural = _("automatic top-ups")
        constraints = [
            models.CheckConstraint(
                name="payments_autotopup_state_known", condition=Q(state__in=AutoTopUpState.values)
            ),
            models.CheckConstraint(
                name="payments_autotopup_amounts",
                condition=Q(threshold_minor__gte=0, amount_minor__gt=0)
                & Q(monthly_cap_minor__gte=F("amount_minor")),
            ),
        ]

    def __str__(self) -> str:
        return str(self.organization_id)


class CollectionState(models.TextChoices):
    """Where an open invoice stands."""

    DUE = "due", _("Due")
    LATE = "late", _("Late")
    DONE = "done", _("Settled")


class Collection(models.Model):
    """The way to the money of one open invoice: what was tried, what was said.

    attempts: charges of the default card so far; next_attempt_at: when the schedule of the plan asks for the next.
    reminders: how many were mailed.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    invoice = models.OneToOneField("invoices.Invoice", models.PROTECT, related_name="+", db_constraint=False)
    state = models.CharField(max_length=8, choices=CollectionState.choices, default=CollectionState.DUE)
    attempts = models.PositiveSmallIntegerField(default=0)
    reminders = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("collection")
        verbose_name_plural = _("collections")
        permissions = [("record_receipt", _("Can record money that came to the bank"))]
        constraints = [
            models.UniqueConstraint(
                name="payments_collection_in_organization", fields=["organization", "id"]
            ),
            models.CheckConstraint(
                name="payments_collection_state_known", condition=Q(state__in=CollectionState.values)
            ),
        ]
        indexes = [models.Index(name="payments_collection_state", fields=["state"])]

    def __str__(self) -> str:
        return str(self.invoice_id)
