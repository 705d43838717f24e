"""Attempts to move money through Stripe, saved cards, refunds, disputes, and the inbox of its webhooks."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Self
from uuid import UUID

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from apps.core import money
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
    never sent again 23 hours after that.
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
    called_at = models.DateTimeField(null=True, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True)
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
        return str(self.id)

    @property
    def amount(self) -> Decimal:
        """The amount in major units."""
        return money.from_minor(self.amount_minor, self.currency)

    @property
    def is_live(self) -> bool:
        return self.state in LIVE_STATES

    def may_become(self, state: PaymentState) -> bool:
        """Return whether a state is news: later than the one it has."""
        return _RANKS[state] > _RANKS[PaymentState(self.state)]


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
    reason = models.CharField(max_length=500)
    refund_id = models.CharField(max_length=64, unique=True, null=True, blank=True)
    lot_micros = models.BigIntegerField(default=0)
    failure_message = models.TextField(blank=True)
    requested_by = models.CharField(max_length=254)
    requested_by_id = models.UUIDField(null=True, blank=True)
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
        return str(self.id)

    @property
    def amount(self) -> Decimal:
        """The amount in major units."""
        return money.from_minor(self.amount_minor, self.currency)

    def may_become(self, state: RefundState) -> bool:
        """Return whether a state is news: later than the one it has."""
        return _REFUND_RANKS[state] > _REFUND_RANKS[RefundState(self.state)]


class Dispute(models.Model):
    """A payment that its holder disputes at the bank. Funds leave once and come back at most once.

    lot_micros: what of it the payment's lot gave when the funds left; the rest is owed again.
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
    """The way to the money of one open invoice: when it is due, what was tried, what was said.

    attempts: charges of the default card so far; next_attempt_at: when the schedule of the plan asks for the next.
    reminders: how many were mailed.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    invoice = models.OneToOneField("invoices.Invoice", models.PROTECT, related_name="+", db_constraint=False)
    state = models.CharField(max_length=8, choices=CollectionState.choices, default=CollectionState.DUE)
    due_at = models.DateTimeField()
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
        indexes = [models.Index(name="payments_collection_state", fields=["state", "due_at"])]

    def __str__(self) -> str:
        return str(self.invoice_id)


class EventState(models.TextChoices):
    """What became of a webhook: received is one fact, processed another."""

    RECEIVED = "received", _("Waiting")
    PROCESSED = "processed", _("Processed")
    IGNORED = "ignored", _("Not ours to act on")
    DEAD = "dead", _("Given up")


class StripeEventQuerySet(models.QuerySet["StripeEvent"]):
    def due(self, now: datetime) -> Self:
        return self.filter(state=EventState.RECEIVED, next_attempt_at__lte=now)


class StripeEvent(models.Model):
    """One event of Stripe's as it came, byte for byte, and what was done about it."""

    id = models.CharField(max_length=128, primary_key=True)
    event_type = models.CharField(max_length=96)
    object_id = models.CharField(max_length=128)
    account = models.CharField(max_length=64, blank=True)
    is_live = models.BooleanField()
    body = models.BinaryField()
    source = models.CharField(max_length=16, default="webhook")
    state = models.CharField(max_length=12, choices=EventState.choices, default=EventState.RECEIVED)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField()
    last_error = models.TextField(blank=True)
    happened_at = models.DateTimeField()
    received_at = models.DateTimeField()
    processed_at = models.DateTimeField(null=True, blank=True)

    objects = StripeEventQuerySet.as_manager()

    class Meta:
        verbose_name = _("Stripe event")
        verbose_name_plural = _("Stripe events")
        permissions = [("replay_stripeevent", _("Can process Stripe events again"))]
        constraints = [
            models.CheckConstraint(
                name="payments_stripeevent_state_known", condition=Q(state__in=EventState.values)
            ),
        ]
        indexes = [
            models.Index(
                name="payments_stripeevent_due",
                fields=["next_attempt_at", "id"],
                condition=Q(state=EventState.RECEIVED),
            ),
            models.Index(name="payments_stripeevent_object", fields=["object_id"]),
            models.Index(name="payments_stripeevent_time", fields=["-received_at", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.id}"


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
