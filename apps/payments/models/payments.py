"""Attempts to be paid."""

from __future__ import annotations

from decimal import Decimal
from typing import Self

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from apps.core import money
from apps.core.actor import Actor
from apps.core.ids import uuid7
from apps.payments.models.cards import PaymentMethod


class PaymentKind(models.TextChoices):
    """What a payment is for."""

    TOP_UP = "top_up", _("Top-up")
    AUTO_TOP_UP = "auto_top_up", _("Automatic top-up")
    INVOICE = "invoice", _("Invoice")


class PaymentState(models.TextChoices):
    """The life of a payment, forward only: a later state never becomes an earlier one.

    `requires_action` waits for the holder's bank; `processing` for a bank that takes days. Whatever had ended can
    still turn out to be paid.
    """

    CREATED = "created", _("Started")
    OPEN = "open", _("Waiting for payment")
    REQUIRES_ACTION = "requires_action", _("Needs your bank's confirmation")
    PROCESSING = "processing", _("On its way")
    FAILED = "failed", _("Failed")
    CANCELED = "canceled", _("Canceled")
    EXPIRED = "expired", _("Expired")
    SUCCEEDED = "succeeded", _("Paid")


LIVE_STATES = (
    PaymentState.CREATED,
    PaymentState.OPEN,
    PaymentState.REQUIRES_ACTION,
    PaymentState.PROCESSING,
)
_ASKS_HOLDER = frozenset({"authentication_required", "authentication_not_handled"})
_RANKS = {
    PaymentState.CREATED: 0,
    PaymentState.OPEN: 1,
    PaymentState.REQUIRES_ACTION: 2,
    PaymentState.PROCESSING: 3,
    PaymentState.FAILED: 4,
    PaymentState.CANCELED: 4,
    PaymentState.EXPIRED: 4,
    PaymentState.SUCCEEDED: 5,
}


class PaymentQuerySet(models.QuerySet["Payment"]):
    def visible_to(self, actor: Actor) -> Self:
        return self.filter(organization_id=actor.organization_id)

    def live(self) -> Self:
        return self.filter(state__in=LIVE_STATES)


class Payment(models.Model):
    """One attempt to be paid: written before Stripe is called, so that what happens there has a row here.

    All amounts are ISO 4217 minor units. lot: the credit that the payment became, if the receivable left any; a lot
    and the transfers of a payment have the payment's id, so that it cannot be posted twice.
    leased_until: while somebody is calling Stripe about it. called_at: when Stripe was first called; its keys are
    never sent again 23 hours after that. next_look_at: when the sweep asks what became of it again; at first, soon.
    attempt_id: of the form that asked for it.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    kind = models.CharField(max_length=16, choices=PaymentKind.choices)
    state = models.CharField(max_length=16, choices=PaymentState.choices, default=PaymentState.CREATED)
    amount_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    invoice = models.ForeignKey(
        "invoices.Invoice", models.PROTECT, related_name="+", db_constraint=False, null=True, blank=True
    )
    method = models.ForeignKey(
        PaymentMethod, models.PROTECT, related_name="+", db_constraint=False, null=True, blank=True
    )
    is_off_session = models.BooleanField(default=False)
    session_id = models.CharField(max_length=128, unique=True, null=True, blank=True)
    intent_id = models.CharField(max_length=64, unique=True, null=True, blank=True)
    checkout_url = models.TextField(blank=True)
    success_url = models.TextField(blank=True)
    cancel_url = models.TextField(blank=True)
    lot = models.ForeignKey(
        "billing.CreditLot", models.PROTECT, related_name="+", db_constraint=False, null=True, blank=True
    )
    settled_minor = models.BigIntegerField(default=0)
    paid_with = models.CharField(max_length=64, blank=True)
    receipt_url = models.TextField(blank=True)
    failure_code = models.CharField(max_length=64, blank=True)
    failure_message = models.TextField(blank=True)
    started_by = models.CharField(max_length=254)
    attempt_id = models.UUIDField(null=True, blank=True, editable=False)
    called_at = models.DateTimeField(null=True, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True)
    next_look_at = models.DateTimeField(null=True, blank=True)
    succeeded_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    objects = PaymentQuerySet.as_manager()

    class Meta:
        verbose_name = _("payment")
        verbose_name_plural = _("payments")
        constraints = [
            models.UniqueConstraint(name="payments_payment_in_organization", fields=["organization", "id"]),
            models.CheckConstraint(
                name="payments_payment_kind_known", condition=Q(kind__in=PaymentKind.values)
            ),
            models.CheckConstraint(
                name="payments_payment_state_known", condition=Q(state__in=PaymentState.values)
            ),
            models.CheckConstraint(name="payments_payment_amount_positive", condition=Q(amount_minor__gt=0)),
            models.CheckConstraint(
                name="payments_payment_settled_within",
                condition=Q(settled_minor__gte=0, settled_minor__lte=F("amount_minor")),
            ),
            models.CheckConstraint(
                name="payments_payment_succeeded_is_dated",
                condition=Q(state=PaymentState.SUCCEEDED, succeeded_at__isnull=False)
                | ~Q(state=PaymentState.SUCCEEDED) & Q(succeeded_at=None, lot=None, settled_minor=0),
            ),
            models.CheckConstraint(
                name="payments_payment_invoice_kind",
                condition=Q(kind=PaymentKind.INVOICE, invoice__isnull=False)
                | ~Q(kind=PaymentKind.INVOICE) & Q(invoice=None),
            ),
            # Two at once would charge twice for one low balance, or for one invoice.
            models.UniqueConstraint(
                name="payments_payment_one_auto_top_up",
                fields=["organization"],
                condition=Q(kind=PaymentKind.AUTO_TOP_UP, state__in=LIVE_STATES),
            ),
            models.UniqueConstraint(
                name="payments_payment_one_per_invoice",
                fields=["invoice"],
                condition=Q(kind=PaymentKind.INVOICE, state__in=LIVE_STATES),
            ),
        ]
        indexes = [
            models.Index(name="payments_payment_organization", fields=["organization", "-created_at", "-id"]),
            models.Index(
                name="payments_payment_live", fields=["created_at"], condition=Q(state__in=LIVE_STATES)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount:,f} {self.currency}, {self.get_kind_display()}"

    @property
    def amount(self) -> Decimal:
        """The amount in major units."""
        return money.from_minor(self.amount_minor, self.currency)

    @property
    def asks_holder(self) -> bool:
        """Whether it failed because the card's bank wants its holder to confirm."""
        return self.failure_code in _ASKS_HOLDER

    @property
    def is_live(self) -> bool:
        return self.state in LIVE_STATES

    def may_become(self, state: PaymentState) -> bool:
        """Return whether a state is news: later than the one it has."""
        return _RANKS[state] > _RANKS[PaymentState(self.state)]
