"""Credit lots, and what usage was charged to them: charge keys, their hours, and the burns that paid each hour."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.ids import uuid7

AMOUNT_MICROS_MAX = 10**15  # A billion major units; sums of many still fit the ledger's integers.


class Pot(models.TextChoices):
    """Two kinds of credit: what was paid for, and what was given away."""

    PAID = "paid", _("Paid")
    PROMO = "promo", _("Promotional")


class BillingProgress(models.Model):
    """How far an organization's usage is charged, and what was received ahead of the invoice.

    charged_until: every piece of usage that starts before it is posted; later ones are the accrual.
    unbilled_receipts_micros: payments that settled usage on the receivable before its invoice existed.
    taken_back_micros: what is owed because payments were taken back, by a dispute or by a refund beyond their credit.
    """

    organization = models.OneToOneField(
        "organizations.Organization", models.PROTECT, primary_key=True, related_name="+"
    )
    charged_until = models.DateTimeField(null=True)
    unbilled_receipts_micros = models.BigIntegerField(default=0)
    taken_back_micros = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = _("billing progress")
        verbose_name_plural = _("billing progress")
        constraints = [
            models.CheckConstraint(
                name="billing_progress_receipts_not_negative", condition=Q(unbilled_receipts_micros__gte=0)
            ),
            models.CheckConstraint(
                name="billing_progress_taken_back_not_negative", condition=Q(taken_back_micros__gte=0)
            ),
        ]

    def __str__(self) -> str:
        return str(self.organization_id)


class CreditLotQuerySet(models.QuerySet["CreditLot"]):
    def visible_to(self, actor: Actor) -> Self:
        return self.filter(organization_id=actor.organization_id)

    def in_burn_order(self) -> Self:
        """Order as credit burns: priority, earliest expiry, promo before paid, earliest effective, earliest, id."""
        return self.order_by(
            "priority",
            F("expires_at").asc(nulls_last=True),
            models.Case(models.When(pot=Pot.PROMO, then=0), default=1),
            "effective_at",
            "created_at",
            "pk",
        )

    def with_balance(self) -> Self:
        return self.filter(account__balance_micros__gt=0).select_related("account")

    def in_force(self, now: datetime) -> Self:
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=now), effective_at__lte=now)


class CreditLot(models.Model):
    """Credit with one origin and one life; its balance is its ledger account's."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    currency = models.CharField(max_length=3)
    account = models.OneToOneField("ledger.Account", models.PROTECT, related_name="+", db_constraint=False)
    pot = models.CharField(max_length=8, choices=Pot.choices)
    amount_micros = models.BigIntegerField()
    priority = models.PositiveSmallIntegerField(default=50)
    effective_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    expired_at = models.DateTimeField(null=True, blank=True)
    source = models.CharField(max_length=32)
    reason = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField()

    objects = CreditLotQuerySet.as_manager()

    class Meta:
        verbose_name = _("credit lot")
        verbose_name_plural = _("credit lots")
        constraints = [
            models.UniqueConstraint(name="billing_creditlot_in_organization", fields=["organization", "id"]),
            models.CheckConstraint(name="billing_creditlot_pot_known", condition=Q(pot__in=Pot.values)),
            models.CheckConstraint(
                name="billing_creditlot_amount_positive", condition=Q(amount_micros__gt=0)
            ),
            models.CheckConstraint(name="billing_creditlot_priority", condition=Q(priority__lte=100)),
            models.CheckConstraint(
                name="billing_creditlot_lives",
                condition=Q(expires_at=None) | Q(expires_at__gt=F("effective_at")),
            ),
        ]
        indexes = [models.Index(name="billing_creditlot_organization", fields=["organization", "priority"])]

    def __str__(self) -> str:
        return f"{self.get_pot_display()} {self.id}"


class ChargeKeyQuerySet(models.QuerySet["ChargeKey"]):
    def visible_to(self, actor: Actor) -> Self:
        return self.filter(organization_id=actor.organization_id)

    def unpriced(self) -> Self:
        return self.filter(price_key_id=None)

    def unsettled(self) -> Self:
        """Return those of final periods of which a later invoice may have more to say, or to ask for."""
        return self.filter(Q(is_reopened=True) | ~Q(receivable_micros=F("billed_receivable_micros")))


class ChargeKey(models.Model):
    """What is rated as one: organization, period, meter, SKU, region and price line.

    The cumulative quantity of a key runs from the period's start. Usage that no price matches has a key without a
    price: it costs nothing until a price is added, then moves to the key of that price.
    price, override: the row and the override of it that first gave the terms, see `pricing.selectors.terms_of_keys`; an
    unchanged one that follows continues the key (`price_key_id`). A price of the organization's own may have no row.
    receivable_micros: its burns onto the receivable, net of reversals.
    billed_receivable_micros: the part of them that a final invoice asks for.
    is_reopened: whether anything of it changed, or its invoice was cancelled, after its period became final. What the
    others say is settled, so that later invoices need not add up all that an organization ever used.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    period = models.ForeignKey(
        "organizations.BillingPeriod", models.PROTECT, related_name="charge_keys", db_constraint=False
    )
    meter = models.CharField(max_length=64)
    sku = models.CharField(max_length=120)
    region = models.CharField(max_length=64)
    price = models.ForeignKey("pricing.Price", models.PROTECT, related_name="+", null=True, blank=True)
    override = models.ForeignKey(
        "pricing.PriceOverride", models.PROTECT, related_name="+", db_constraint=False, null=True, blank=True
    )
    price_key_id = models.UUIDField(null=True, blank=True)
    receivable_micros = models.BigIntegerField(default=0)
    billed_receivable_micros = models.BigIntegerField(default=0)
    is_reopened = models.BooleanField(default=False, db_default=False)
    created_at = models.DateTimeField()

    objects = ChargeKeyQuerySet.as_manager()

    class Meta:
        verbose_name = _("charge key")
        verbose_name_plural = _("charge keys")
        constraints = [
            models.UniqueConstraint(name="billing_chargekey_in_organization", fields=["organization", "id"]),
            models.UniqueConstraint(
                name="billing_chargekey_identity",
                fields=["organization", "period", "meter", "sku", "region", "price_key_id"],
                nulls_distinct=False,
            ),
            models.CheckConstraint(
                name="billing_chargekey_price_complete",
                condition=Q(price=None, override=None, price_key_id=None)
                | Q(price_key_id__isnull=False) & (Q(price__isnull=False) | Q(override__isnull=False)),
            ),
            models.CheckConstraint(
                name="billing_chargekey_billed_within",
                condition=Q(
                    billed_receivable_micros__gte=0, billed_receivable_micros__lte=F("receivable_micros")
                ),
            ),
        ]
        indexes = [
            models.Index(name="billing_chargekey_period", fields=["period"]),
            models.Index(
                name="billing_chargekey_unpriced", fields=["organization"], condition=Q(price_key_id=None)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.meter} {self.sku} {self.region}"


class ChargeHourQuerySet(models.QuerySet["ChargeHour"]):
    def visible_to(self, actor: Actor) -> Self:
        return self.filter(organization_id=actor.organization_id)


class ChargeHour(models.Model):
    """One hour of a key: the quantity charged and the amount posted for it.

    amount_micros is C(h) − C(h−1), each C rounded half up once; it can be negative only where a volume price falls.
    revision: counts the postings of this hour, so that each has a cause of its own.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # The key, which is of the same organization, says that there is one.
    organization = models.ForeignKey(
        "organizations.Organization", models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    key = models.ForeignKey(
        ChargeKey, models.PROTECT, related_name="hours", db_constraint=False, db_index=False
    )
    hour = models.DateTimeField()
    quantity = models.DecimalField(max_digits=38, decimal_places=6)
    amount_micros = models.BigIntegerField()
    revision = models.PositiveIntegerField(default=0)
    charged_at = models.DateTimeField()

    objects = ChargeHourQuerySet.as_manager()

    class Meta:
        verbose_name = _("charged hour")
        verbose_name_plural = _("charged hours")
        constraints = [
            models.UniqueConstraint(name="billing_chargehour_once", fields=["key", "hour"]),
            models.CheckConstraint(name="billing_chargehour_quantity", condition=Q(quantity__gte=0)),
        ]
        indexes = [models.Index(name="billing_chargehour_org_hour", fields=["organization", "hour"])]

    def __str__(self) -> str:
        return f"{self.key_id} {self.hour:%Y-%m-%d %H:%M}"


class Burn(models.Model):
    """One payment for an hour: from a lot, or onto the receivable (no lot). Reversals come off the newest first."""

    id = models.BigAutoField(primary_key=True)
    # The key, which is of the same organization, says that there is one.
    organization = models.ForeignKey(
        "organizations.Organization", models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    key = models.ForeignKey(
        ChargeKey, models.PROTECT, related_name="burns", db_constraint=False, db_index=False
    )
    hour = models.DateTimeField()
    lot = models.ForeignKey(
        CreditLot, models.PROTECT, related_name="burns", db_constraint=False, null=True, blank=True
    )
    amount_micros = models.BigIntegerField()
    reversed_micros = models.BigIntegerField(default=0)
    transfer = models.OneToOneField("ledger.Transfer", models.PROTECT, related_name="+", db_constraint=False)

    class Meta:
        verbose_name = _("burn")
        verbose_name_plural = _("burns")
        constraints = [
            models.CheckConstraint(name="billing_burn_amount_positive", condition=Q(amount_micros__gt=0)),
            models.CheckConstraint(
                name="billing_burn_reversed_within",
                condition=Q(reversed_micros__gte=0, reversed_micros__lte=F("amount_micros")),
            ),
        ]
        indexes = [models.Index(name="billing_burn_key", fields=["key", "-id"])]

    def __str__(self) -> str:
        return f"{self.key_id} {self.hour:%Y-%m-%d %H:%M} {self.amount_micros}"
