"""What Stripe says becomes what we say: each object is asked for again, and states only move forward."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import structlog
from django.db import transaction
from django.utils.translation import gettext as _

from apps.audit import services as audit
from apps.billing import services as billing
from apps.core import failpoints, money
from apps.core.actor import system_actor
from apps.core.compiled import CompiledQuery
from apps.core.errors import DomainError
from apps.ledger import services as ledger
from apps.ledger.services import AccountKind
from apps.outbox import services as outbox
from apps.payments import gateway
from apps.payments.gateway import Intent, Receipt, RefusedByStripe, Session
from apps.payments.models import Payment, PaymentState
from apps.payments.services import consequences

logger = structlog.get_logger(__name__)

_INTENT_STATES = {
    "requires_action": PaymentState.REQUIRES_ACTION,
    "processing": PaymentState.PROCESSING,
    "canceled": PaymentState.CANCELED,
    "succeeded": PaymentState.SUCCEEDED,
}


_BY_INTENT = CompiledQuery(
    lambda intent_id: Payment.objects.filter(intent_id=intent_id).order_by("pk"), intent_id="example"
)


class DoesNotFit(Exception):
    """Stripe's object and our row tell of different money; people must look at it."""


def sync_session(session_id: str, *, now: datetime) -> Payment | None:
    """Ask Stripe about a Checkout session and apply it; None if it is none of ours. Safe to repeat, in any order."""
    payment = Payment.objects.filter(session_id=session_id).first()
    session = gateway.current().session(session_id)
    if payment is None:
        payment = _by_reference(session.reference)
    return apply_session(payment, session, now=now) if payment is not None else None


def sync_payment(payment_id: UUID, *, now: datetime) -> Payment:
    """Ask Stripe what became of a payment and apply it; the success page and the sweeps call this."""
    payment = Payment.objects.get(pk=payment_id)
    if payment.intent_id:
        return apply_intent(payment, gateway.current().intent(payment.intent_id), now=now)
    if payment.session_id:
        return apply_session(payment, gateway.current().session(payment.session_id), now=now)
    return payment


def look_at_stripe(sync: Callable[..., object], named: UUID | str, *, now: datetime) -> bool:
    """Apply what Stripe says of an object now and return whether it could be had: whoever only looks sees it anyway.

    sync: one of the functions that ask and apply. What goes wrong is logged; the webhook or the sweep brings it later.
    """
    try:
        sync(named, now=now)
    except (DomainError, DoesNotFit) as error:
        logger.warning("look_at_stripe_failed", of=str(named), exc_info=error)
        return False
    return True


def sync_intent(intent_id: str, *, now: datetime) -> Payment | None:
    """Ask Stripe about a payment intent and apply it; None if it is none of ours."""
    payment = _BY_INTENT.find(intent_id=intent_id)
    intent = gateway.current().intent(intent_id)
    if payment is None:
        payment = _by_reference(intent.reference)
    return apply_intent(payment, intent, now=now) if payment is not None else None


def paid_by_intent(intent_id: str | None, *, now: datetime) -> Payment | None:
    """Return the payment behind an intent, having applied it first if its own news is late; None if it is not ours.

    What was never received cannot go back, so whoever posts a refund or a dispute asks this first.
    """
    if intent_id is None:
        return None
    payment = _BY_INTENT.find(intent_id=intent_id)
    if payment is None or payment.state != PaymentState.SUCCEEDED:
        payment = sync_intent(intent_id, now=now)
    return payment


def apply_session(payment: Payment, session: Session, *, now: datetime) -> Payment:
    """Apply a session as Stripe has just shown it; paid is only what its intent says is paid."""
    if session.intent_id:
        intent = gateway.current().intent(session.intent_id)
        payment = apply_intent(payment, intent, now=now, session=session)
    if session.status == "expired":
        return _end(payment.id, PaymentState.EXPIRED, now=now)
    return payment


def apply_intent(
    payment: Payment, intent: Intent, *, now: datetime, session: Session | None = None
) -> Payment:
    """Apply an intent as Stripe has just shown it: note it, move the state forward, and post it once when it is paid.

    payment: our row, read at any time before. Raises DoesNotFit when the intent is another payment's, or of another
    amount.
    """
    _check_fits(payment, intent)
    state = _state_of(payment, intent, session)
    if payment.intent_id == intent.id and (state is None or not payment.may_become(state)):
        # States only move forward, so what is no news to an older row is none to a newer one: nothing to lock for.
        return payment
    receipt = None
    if state == PaymentState.SUCCEEDED and intent.charge_id and payment.may_become(state):
        receipt = gateway.current().receipt(intent.charge_id)
    return _apply_intent(payment.id, intent, receipt, session, now=now)


def _check_fits(payment: Payment, intent: Intent) -> None:
    if payment.intent_id not in (None, intent.id) or intent.reference not in ("", str(payment.id)):
        raise DoesNotFit(f"{intent.id} is not the intent of payment {payment.id}")
    if (intent.amount_minor, intent.currency) != (payment.amount_minor, payment.currency):
        raise DoesNotFit(
            f"{intent.id} is of {intent.amount_minor} {intent.currency}, the payment of another amount"
        )


@transaction.atomic
def _apply_intent(
    payment_id: UUID, intent: Intent, receipt: Receipt | None, session: Session | None, *, now: datetime
) -> Payment:
    payment = _lock(payment_id, now=now)
    _check_fits(payment, intent)
    if payment.intent_id is None:
        payment.intent_id = intent.id
        payment.save(update_fields=["intent_id"])
    state = _state_of(payment, intent, session)
    if state is None or not payment.may_become(state):
        return payment
    if state == PaymentState.SUCCEEDED:
        _succeed(payment, intent, receipt, now=now)
    else:
        _move(payment, state, code=intent.failure_code, message=intent.failure_message, now=now)
    failpoints.reach("payments.before_commit")
    return payment


def _state_of(payment: Payment, intent: Intent, session: Session | None) -> PaymentState | None:
    """Return the state that an intent stands for, or None where it says nothing final."""
    if intent.status != "requires_payment_method":
        return _INTENT_STATES.get(intent.status)
    if not intent.failure_code and not intent.failure_message:
        return None
    # On a page that is still open, a refused card is followed by another one; an attempt with a saved card has no page.
    page_is_over = session is not None and session.status == "complete"
    return PaymentState.FAILED if payment.method_id is not None or page_is_over else None


def _succeed(payment: Payment, intent: Intent, receipt: Receipt | None, *, now: datetime) -> None:
    if intent.received_minor != payment.amount_minor:
        raise DoesNotFit(
            f"{intent.id} received {intent.received_minor}, the payment is of {payment.amount_minor}"
        )
    currency = payment.currency
    granted = billing.receive_payment(
        actor=system_actor("payments", payment.organization_id),
        organization_id=payment.organization_id,
        currency=currency,
        payment_id=payment.id,
        amount_micros=money.minor_to_micros(payment.amount_minor, currency),
        funded_by=AccountKind.CLEARING,
        source=payment.kind,
        reason=_("Payment by card"),
        reference=intent.id,
        invoice_id=payment.invoice_id,
        now=now,
    )
    payment.lot = granted.lot
    payment.settled_minor = money.round_micros_to_minor(granted.settled_micros, currency)
    payment.succeeded_at = now
    payment.failure_code = payment.failure_message = ""
    if receipt is not None:
        payment.receipt_url, payment.paid_with = receipt.url, receipt.paid_with
    _move(payment, PaymentState.SUCCEEDED, now=now)


def end_paid_from_credit(payment: Payment, *, now: datetime) -> None:
    """End an attempt that credit has paid, in the transaction that wrote it."""
    payment.settled_minor, payment.succeeded_at, payment.paid_with = payment.amount_minor, now, _("Credit")
    _move(payment, PaymentState.SUCCEEDED, now=now)


@transaction.atomic
def _end(payment_id: UUID, state: PaymentState, *, now: datetime) -> Payment:
    payment = _lock(payment_id, now=now)
    if payment.may_become(state):
        _move(payment, state, now=now)
    return payment


def refuse(payment_id: UUID, *, now: datetime) -> Payment:
    """End a payment that Stripe will not take, now or later."""
    message = str(RefusedByStripe.default_message)
    return fail(payment_id, code=RefusedByStripe.code, message=message, now=now)


def fail(payment_id: UUID, *, code: str, message: str, now: datetime) -> Payment:
    """End a payment that Stripe never took."""
    with transaction.atomic():
        payment = _lock(payment_id, now=now)
        if payment.may_become(PaymentState.FAILED):
            _move(payment, PaymentState.FAILED, code=code, message=message, now=now)
        return payment


def _move(payment: Payment, state: PaymentState, *, now: datetime, code: str = "", message: str = "") -> None:
    """Write a later state with its audit and outbox rows, and what follows from it."""
    before, payment.state = payment.state, state
    if code or message:
        payment.failure_code, payment.failure_message = code, message
    payment.leased_until = None
    payment.save()
    organization_id = payment.organization_id
    audit.record(
        actor=system_actor("payments", organization_id),
        action=f"payment.{state}",
        target=payment,
        diff={"state": [before, str(state)], **({"failure": code} if code else {})},
    )
    outbox.publish(
        f"payments.payment_{state}",
        {
            "id": str(payment.id),
            "kind": payment.kind,
            "amount": f"{money.from_minor(payment.amount_minor, payment.currency):f}",
            "currency": payment.currency,
            "invoice_id": str(payment.invoice_id) if payment.invoice_id else None,
        },
        organization_id=organization_id,
    )
    consequences.follow(payment, now=now)


def _lock(payment_id: UUID, *, now: datetime) -> Payment:
    """Lock the wallet, then the payment: the order of every write of money."""
    found = Payment.objects.get(pk=payment_id)
    ledger.open_book(organization_id=found.organization_id, currency=found.currency, now=now)
    return Payment.objects.select_for_update(no_key=True).get(pk=payment_id)


def _by_reference(reference: str) -> Payment | None:
    """Return the payment that an object of Stripe names as its own."""
    try:
        wanted = UUID(reference)
    except ValueError:
        return None
    return Payment.objects.filter(pk=wanted).first()
