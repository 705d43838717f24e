"""Money that goes back: refunds, and disputes."""

from __future__ import annotations

from decimal import Decimal
from typing import Self

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from apps.core import money
from apps.core.actor import Actor
from apps.core.ids import uuid7
from apps.payments.models.payments import Payment

REASON_LENGTH_MAX = 500
# Of Stripe's statuses of a dispute in which a bank asks about a payment and takes no money.
INQUIRY_PREFIX = "warning_"


class RefundState(models.TextChoices):
    """The life of a refund, forward only; a bank may still refuse what had succeeded."""

    REQUESTED = "requested", _("Waiting for approval")
    REJECTED = "rejected", _("Rejected")
    APPROVED = "approved", _("Approved")
    PENDING = "pending", _("On its way")
    SUCCEEDED = "succeeded", _("Refunded")
    FAILED = "failed", _("Failed: the money came back as credit")


# What a refund in these states takes from the lot is not there for anything else.
HOLDING_STATES = (RefundState.APPROVED, RefundState.PENDING, RefundState.SUCCEEDED)
# Somebody still has to do something about a refund in these.
UNFINISHED_STATES = (RefundState.REQUESTED, RefundState.APPROVED, RefundState.PENDING)
_REFUND_RANKS = {
    RefundState.REQUESTED: 0,
    RefundState.APPROVED: 1,
    RefundState.PENDING: 2,
    RefundState.SUCCEEDED: 3,
    RefundState.FAILED: 4,
    RefundState.REJECTED: 4,
}


class RefundDestination(models.TextChoices):
    """Where the money goes."""

    CARD = "card", _("To the card")
    CREDIT = "credit", _("As promotional credit")


class RefundQuerySet(models.QuerySet["Refund"]):
    def visible_to(self, actor: Actor) -> Self:
        return self.filter(organization_id=actor.organization_id)


class Refund(models.Model):
    """Money of one payment that goes back: asked for, approved, sent. Amounts are ISO 4217 minor units.

    lot_micros: what the lot gave; the rest of a refund that was made at Stripe directly is owed again (receivable).
    message: why it was rejected, for the customer. attempt_id: of the form that asked for it.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    payment = models.ForeignKey(Payment, models.PROTECT, related_name="refunds", db_constraint=False)
    state = models.CharField(max_length=16, choices=RefundState.choices, default=RefundState.REQUESTED)
    destination = models.CharField(
        max_length=8, choices=RefundDestination.choices, default=RefundDestination.CARD
    )
    amount_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    reason = models.CharField(max_length=REASON_LENGTH_MAX)
    message = models.CharField(max_length=REASON_LENGTH_MAX, blank=True, default="", db_default="")
    refund_id = models.CharField(max_length=64, unique=True, null=True, blank=True)
    lot_micros = models.BigIntegerField(default=0)
    failure_message = models.TextField(blank=True)
    requested_by = models.CharField(max_length=254)
    requested_by_id = models.UUIDField(null=True, blank=True)
    attempt_id = models.UUIDField(null=True, blank=True, editable=False)
    decided_by = models.CharField(max_length=254, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    called_at = models.DateTimeField(null=True, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    objects = RefundQuerySet.as_manager()

    class Meta:
        verbose_name = _("refund")
        verbose_name_plural = _("refunds")
        permissions = [("decide_refund", _("Can approve and reject refunds"))]
        constraints = [
            models.UniqueConstraint(name="payments_refund_in_organization", fields=["organization", "id"]),
            models.UniqueConstraint(name="payments_refund_attempt_once", fields=["payment", "attempt_id"]),
            models.CheckConstraint(
                name="payments_refund_state_known", condition=Q(state__in=RefundState.values)
            ),
            models.CheckConstraint(
                name="payments_refund_destination_known",
                condition=Q(destination__in=RefundDestination.values),
            ),
            models.CheckConstraint(name="payments_refund_amount_positive", condition=Q(amount_minor__gt=0)),
            models.CheckConstraint(
                name="payments_refund_lot_within",
                condition=Q(lot_micros__gte=0),
            ),
        ]
        indexes = [models.Index(name="payments_refund_state", fields=["state", "created_at"])]

    def __str__(self) -> str:
        return f"{self.amount:,f} {self.currency}, {self.get_destination_display()}"

    @property
    def amount(self) -> Decimal:
        """The amount in major units."""
        return money.from_minor(self.amount_minor, self.currency)

    def may_become(self, state: RefundState) -> bool:
        """Return whether a state is news: later than the one it has."""
        return _REFUND_RANKS[state] > _REFUND_RANKS[RefundState(self.state)]


class Dispute(models.Model):
    """A payment that its holder disputes at the bank. Funds leave once and come back at most once.

    lot_micros: what of it the payment's lot gave, when the funds left or a refund failed later; the rest is owed again.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    payment = models.ForeignKey(Payment, models.PROTECT, related_name="disputes", db_constraint=False)
    dispute_id = models.CharField(max_length=64, unique=True)
    status = models.CharField(max_length=32)
    reason = models.CharField(max_length=64)
    amount_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    lot_micros = models.BigIntegerField(default=0)
    due_by = models.DateTimeField(null=True, blank=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)
    reinstated_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("dispute")
        verbose_name_plural = _("disputes")
        constraints = [
            models.UniqueConstraint(name="payments_dispute_in_organization", fields=["organization", "id"]),
            models.CheckConstraint(name="payments_dispute_amount_positive", condition=Q(amount_minor__gt=0)),
            models.CheckConstraint(
                name="payments_dispute_back_after_out",
                condition=Q(reinstated_at=None) | Q(withdrawn_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.dispute_id

    @property
    def owed_micros(self) -> int:
        """What of funds that left the lot did not have any more, so that it is owed again."""
        if self.withdrawn_at is None:
            return 0
        return money.minor_to_micros(self.amount_minor, self.currency) - self.lot_micros

    @property
    def owed_minor(self) -> int:
        """The same in minor units, half up."""
        return money.round_micros_to_minor(self.owed_micros, self.currency)

    @property
    def amount(self) -> Decimal:
        """The amount in major units."""
        return money.from_minor(self.amount_minor, self.currency)
