"""Payments as programs and pages read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any
from uuid import UUID

from django.db.models import Sum
from django.utils.translation import gettext_lazy as _

from apps.billing import selectors as billing
from apps.billing import services as billing_services
from apps.billing.selectors import Balance
from apps.core import money
from apps.core.actor import Actor
from apps.core.errors import NotFound
from apps.core.states import State
from apps.invoices.models import Invoice, InvoiceState
from apps.organizations.models import Organization
from apps.payments.models import (
    AutoTopUp,
    AutoTopUpState,
    CardSetup,
    CardSetupState,
    Dispute,
    Payment,
    PaymentMethod,
    PaymentQuerySet,
    PaymentState,
    Refund,
    RefundState,
)

_STATES = {
    PaymentState.CREATED: State(word=_("Started"), tone="info"),
    PaymentState.OPEN: State(word=_("Waiting for payment"), tone="info"),
    PaymentState.REQUIRES_ACTION: State(word=_("Needs your bank's confirmation"), tone="caution"),
    PaymentState.PROCESSING: State(word=_("On its way"), tone="info"),
    PaymentState.FAILED: State(word=_("Failed"), tone="danger"),
    PaymentState.CANCELED: State(word=_("Canceled")),
    PaymentState.EXPIRED: State(word=_("Not paid in time")),
    PaymentState.SUCCEEDED: State(word=_("Paid"), tone="ok"),
}
_ASKED_HOLDER = State(word=_("Failed: your bank wants to hear from you"), tone="danger")
_REFUND_STATES = {
    RefundState.REQUESTED: State(word=_("Being looked at"), tone="info"),
    RefundState.REJECTED: State(word=_("Not approved")),
    RefundState.APPROVED: State(word=_("Approved"), tone="info"),
    RefundState.PENDING: State(word=_("On its way"), tone="info"),
    RefundState.SUCCEEDED: State(word=_("Refunded"), tone="ok"),
    RefundState.FAILED: State(word=_("Came back as credit"), tone="caution"),
}
_AUTO_STATES = {
    AutoTopUpState.ACTIVE: State(word=_("On"), tone="ok"),
    AutoTopUpState.PAUSED: State(word=_("Paused: your bank wants to hear from you"), tone="caution"),
    AutoTopUpState.DISABLED: State(word=_("Off after three failures"), tone="danger"),
    AutoTopUpState.OFF: State(word=_("Off")),
}


_CHARGES_EXPIRED = State(word=_("On, but the card that it charges has expired: save another"), tone="caution")


class DisputeStanding(Enum):
    """What a dispute does to the money, the worst first."""

    LOST = auto()
    TAKEN = auto()
    ASKED = auto()
    WON = auto()
    CLOSED = auto()


_DISPUTES = {
    DisputeStanding.LOST: State(
        word=_("Decided for the holder of the card: the money is gone"), tone="danger"
    ),
    DisputeStanding.TAKEN: State(word=_("The bank took the money back until it decides"), tone="caution"),
    DisputeStanding.ASKED: State(word=_("The bank asks about it: no money has moved"), tone="info"),
    DisputeStanding.WON: State(word=_("Decided for you: the money is back"), tone="ok"),
    DisputeStanding.CLOSED: State(word=_("Closed: no money moved")),
}
_DISPUTED = {
    DisputeStanding.LOST: State(word=_("Lost in a dispute"), tone="danger"),
    DisputeStanding.TAKEN: State(word=_("Disputed: the bank has the money"), tone="caution"),
    DisputeStanding.ASKED: State(word=_("Paid; the bank asks about it"), tone="info"),
    DisputeStanding.WON: State(word=_("Paid; the dispute was won"), tone="ok"),
    DisputeStanding.CLOSED: State(word=_("Paid"), tone="ok"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How an organization pays: its balance, its cards with how their ends stand, and its rule of automatic top-up."""

    balance: Balance
    cards: Sequence[tuple[PaymentMethod, State | None]]
    auto_top_up: dict[str, Any]
    auto_state: State


def standing(organization: Organization, actor: Actor, *, now: datetime) -> Standing:
    """Return how an organization pays."""
    balance = billing.balance(organization, now=now)
    rule = AutoTopUp.objects.filter(organization=organization).first()
    cards = list(PaymentMethod.objects.visible_to(actor).order_by("-is_default", "-created_at", "-id"))
    return Standing(
        balance=balance,
        cards=[(card, end_of(card, now=now)) for card in cards],
        auto_top_up=auto_top_up_row(rule, balance.currency),
        auto_state=_auto_state(rule, cards, now=now),
    )


def _auto_state(rule: AutoTopUp | None, cards: Sequence[PaymentMethod], *, now: datetime) -> State:
    state = AutoTopUpState(rule.state) if rule else AutoTopUpState.OFF
    if state == AutoTopUpState.ACTIVE and any(card.is_default and card.has_expired(now) for card in cards):
        return _CHARGES_EXPIRED
    return _AUTO_STATES[state]


def end_of(card: PaymentMethod, *, now: datetime) -> State | None:
    """Return how the end of a card stands, if it is near or past; the mail about it comes as early."""
    if card.has_expired(now):
        return State(word=_("expired"), tone="danger")
    return State(word=_("expires soon"), tone="caution") if card.expires_soon(now) else None


def payments_of(actor: Actor) -> PaymentQuerySet:
    """Return the payments that an actor may see, with the invoices that they are for."""
    return Payment.objects.visible_to(actor).select_related("invoice")


def state_of(payment: Payment) -> State:
    """Return how a payment stands, in a customer's words: also what was taken back after it was paid."""
    if payment.state == PaymentState.FAILED and payment.asks_holder:
        return _ASKED_HOLDER
    if payment.state != PaymentState.SUCCEEDED:
        return _STATES[PaymentState(payment.state)]
    standings = {_standing_of(dispute) for dispute in payment.disputes.all()}
    if found := next((standing for standing in DisputeStanding if standing in standings), None):
        return _DISPUTED[found]
    sent = (RefundState.PENDING, RefundState.SUCCEEDED)
    refunded = sum(refund.amount_minor for refund in payment.refunds.all() if refund.state in sent)
    if refunded:
        is_whole = refunded >= payment.amount_minor
        return State(
            word=_("Refunded") if is_whole else _("Paid, partly refunded"), tone="" if is_whole else "ok"
        )
    return _STATES[PaymentState.SUCCEEDED]


def refunds_of(payment: Payment) -> list[tuple[Refund, State]]:
    """Return the refunds of a payment, the newest first, and how each stands."""
    rows = payment.refunds.order_by("-created_at", "-id")
    return [(refund, _REFUND_STATES[RefundState(refund.state)]) for refund in rows]


def disputes_of(payment: Payment) -> list[tuple[Dispute, State]]:
    """Return the disputes of a payment, the newest first, and how each stands."""
    rows = payment.disputes.order_by("-created_at", "-id")
    return [(dispute, _DISPUTES[_standing_of(dispute)]) for dispute in rows]


def _standing_of(dispute: Dispute) -> DisputeStanding:
    if dispute.reinstated_at is not None:
        return DisputeStanding.WON
    if dispute.withdrawn_at is not None:
        return DisputeStanding.TAKEN if dispute.closed_at is None else DisputeStanding.LOST
    return DisputeStanding.ASKED if dispute.closed_at is None else DisputeStanding.CLOSED


def invoice_to_pay(actor: Actor, invoice_id: UUID, *, now: datetime) -> dict[str, Any]:
    """Return an invoice with what is left to pay on it, and what would pay it, or raise NotFound."""
    invoice = Invoice.objects.visible_to(actor).final().filter(pk=invoice_id).first()
    if invoice is None:
        raise NotFound
    left = 0
    if invoice.state == InvoiceState.OPEN:
        paid = invoice.payments.aggregate(sum=Sum("amount_micros", default=0))["sum"]
        left = money.minor_to_micros(invoice.due_minor, invoice.currency) - int(paid)
    card = PaymentMethod.objects.default_of(invoice.organization_id)
    credit = billing_services.paid_credit_micros(organization_id=invoice.organization_id, now=now)
    return {
        "invoice": invoice,
        "left_micros": left,
        "left": money.plain(money.from_micros(left), decimals_min=money.exponent(invoice.currency)),
        "card": card,
        "credit_micros": credit - credit % money.micros_per_minor(invoice.currency),
    }


def default_card(actor: Actor) -> PaymentMethod | None:
    """Return the card of the actor's organization that is charged when nobody is asked, if there is one."""
    return PaymentMethod.objects.visible_to(actor).filter(is_default=True).first()


def waiting_setup(organization_id: UUID, session_id: str) -> str:
    """Return the id of a page for saving a card that an organization waits for, or nothing."""
    waiting = CardSetup.objects.filter(
        organization_id=organization_id, session_id=session_id, state=CardSetupState.STARTED
    )
    return session_id if session_id and waiting.exists() else ""


def payment_by_id(actor: Actor, payment_id: UUID) -> Payment:
    """Return one payment that the actor may see, or raise NotFound."""
    payment = Payment.objects.visible_to(actor).select_related("invoice").filter(pk=payment_id).first()
    if payment is None:
        raise NotFound
    return payment


def method_by_id(actor: Actor, method_id: UUID) -> PaymentMethod:
    """Return one saved card that the actor may see, or raise NotFound."""
    method = PaymentMethod.objects.visible_to(actor).filter(pk=method_id).first()
    if method is None:
        raise NotFound
    return method


def payment_row(payment: Payment) -> dict[str, Any]:
    """Return a payment as data; amounts are decimal strings in major units."""
    return {
        "id": payment.id,
        "kind": payment.kind,
        "state": payment.state,
        "amount": major(payment.amount_minor, payment.currency),
        "currency": payment.currency,
        "invoice": payment.invoice_id,
        "paid_with": payment.paid_with,
        "receipt_url": payment.receipt_url or None,
        "checkout_url": (payment.checkout_url or None) if payment.is_live else None,
        "failure": payment.failure_message or None,
        "succeeded_at": payment.succeeded_at,
        "created_at": payment.created_at,
    }


def method_row(method: PaymentMethod) -> dict[str, Any]:
    """Return a saved card as data."""
    return {
        "id": method.id,
        "kind": method.kind,
        "brand": method.brand,
        "last4": method.last4,
        "exp_month": method.exp_month,
        "exp_year": method.exp_year,
        "is_default": method.is_default,
        "created_at": method.created_at,
    }


def auto_top_up_row(rule: AutoTopUp | None, currency: str) -> dict[str, Any]:
    """Return the rule of automatic top-up as data; off without one."""
    if rule is None:
        return {"state": "off", "threshold": None, "amount": None, "monthly_cap": None, "currency": currency}
    return {
        "state": rule.state,
        "threshold": major(rule.threshold_minor, currency),
        "amount": major(rule.amount_minor, currency),
        "monthly_cap": major(rule.monthly_cap_minor, currency),
        "currency": currency,
    }


def refund_row(refund: Refund) -> dict[str, Any]:
    """Return a refund as data."""
    return {
        "id": refund.id,
        "payment": refund.payment_id,
        "state": refund.state,
        "destination": refund.destination,
        "amount": major(refund.amount_minor, refund.currency),
        "currency": refund.currency,
        "reason": refund.reason,
        "message": refund.message,
        "created_at": refund.created_at,
    }


def major(minor: int, currency: str) -> str:
    """Return minor units as a decimal string in major units."""
    return f"{money.from_minor(minor, currency):f}"
