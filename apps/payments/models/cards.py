"""An organization as Stripe's customer, and its saved cards."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.ids import uuid7


class StripeCustomer(models.Model):
    """What Stripe calls an organization; the row is the attempt to make it known there, until `customer_id` is set."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.OneToOneField("organizations.Organization", models.PROTECT, related_name="+")
    customer_id = models.CharField(max_length=64, unique=True, null=True, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("Stripe customer")
        verbose_name_plural = _("Stripe customers")

    def __str__(self) -> str:
        return self.customer_id or str(self.id)


class CardSetupState(models.TextChoices):
    """How far an attempt to save a card came."""

    STARTED = "started", _("Started")
    SAVED = "saved", _("Saved")
    EXPIRED = "expired", _("Expired")


class CardSetup(models.Model):
    """One attempt to save a card on Stripe's page."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    state = models.CharField(max_length=16, choices=CardSetupState.choices, default=CardSetupState.STARTED)
    session_id = models.CharField(max_length=128, unique=True, null=True, blank=True)
    checkout_url = models.TextField(blank=True)
    success_url = models.TextField()
    cancel_url = models.TextField()
    leased_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("card setup")
        verbose_name_plural = _("card setups")
        constraints = [
            models.UniqueConstraint(name="payments_cardsetup_in_organization", fields=["organization", "id"]),
            models.CheckConstraint(
                name="payments_cardsetup_state_known", condition=Q(state__in=CardSetupState.values)
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class PaymentMethodQuerySet(models.QuerySet["PaymentMethod"]):
    def visible_to(self, actor: Actor) -> Self:
        return self.filter(organization_id=actor.organization_id, removed_at=None)

    def default_of(self, organization_id: UUID) -> PaymentMethod | None:
        """Return the card that is charged when nobody is asked, if there is one."""
        return self.filter(organization_id=organization_id, is_default=True, removed_at=None).first()

    def expiring_soon(self, now: datetime) -> Self:
        """Return those that hold until the end of this month or of the next, in UTC."""
        this = _month_number(now.year, now.month)
        return self.annotate(last_month=_month_number(F("exp_year"), F("exp_month"))).filter(
            last_month__in=(this, this + 1)
        )


class PaymentMethod(models.Model):
    """A saved card, as far as people recognise it; the number is Stripe's alone."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    method_id = models.CharField(max_length=64, unique=True)
    kind = models.CharField(max_length=32, default="card")
    brand = models.CharField(max_length=32, blank=True)
    last4 = models.CharField(max_length=4, blank=True)
    exp_month = models.PositiveSmallIntegerField(null=True, blank=True)
    exp_year = models.PositiveSmallIntegerField(null=True, blank=True)
    is_default = models.BooleanField(default=False)
    removed_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    objects = PaymentMethodQuerySet.as_manager()

    class Meta:
        verbose_name = _("payment method")
        verbose_name_plural = _("payment methods")
        constraints = [
            models.UniqueConstraint(
                name="payments_paymentmethod_in_organization", fields=["organization", "id"]
            ),
            models.UniqueConstraint(
                name="payments_paymentmethod_one_default",
                fields=["organization"],
                condition=Q(is_default=True),
            ),
            models.CheckConstraint(
                name="payments_paymentmethod_default_is_there",
                condition=Q(is_default=False) | Q(removed_at=None),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.brand.title()} •••• {self.last4}"

    def has_expired(self, now: datetime) -> bool:
        """Return whether the month until which the card holds is over, in UTC; what is no card never expires."""
        left = self._months_left(now)
        return left is not None and left < 0

    def expires_soon(self, now: datetime) -> bool:
        """Return whether the card holds until the end of this month or of the next, in UTC."""
        return self._months_left(now) in (0, 1)

    def _months_left(self, now: datetime) -> int | None:
        if self.exp_year is None or self.exp_month is None:
            return None
        left: int = _month_number(self.exp_year, self.exp_month) - _month_number(now.year, now.month)
        return left


def _month_number(year: Any, month: Any) -> Any:
    """Return a month as a number that grows by one each month, of numbers or of columns."""
    return year * 12 + month
