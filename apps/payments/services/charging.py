"""Charge a saved card: the attempt, the intent, its confirmation; each step noted before the next."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q
from django.utils.translation import gettext as _

from apps.core import failpoints, jobs
from apps.payments import gateway
from apps.payments.gateway import CardRefused, Intent, Key, KeyTooOld, RefusedByStripe
from apps.payments.models import Payment, PaymentState
from apps.payments.services import applying
from apps.payments.services.attempts import AttemptInFlight, lease
from apps.payments.services.top_up import (
    PAGE_LASTS,
    close_page,
    close_unsent,
    customer_for,
    description,
    open_checkout,
)

ABANDONED_AFTER = timedelta(minutes=3)
SWEPT_AT_ONCE = 200
LOOKS_APART_LEAST, LOOKS_APART_MOST = timedelta(minutes=1), timedelta(hours=1)


def charge_card(*, payment_id: UUID, now: datetime) -> Payment:
    """Charge the card of an attempt, or go on where a crash or a timeout left it; call it outside any transaction.

    Returns the payment in whatever state Stripe left it. Raises AttemptInFlight while somebody else does it,
    GatewayError or GatewayTimeout where Stripe does not answer well: the sweep then goes on with the same keys; and
    RefusedByStripe where it will never take the payment, which has failed by then.
    """
    payment = _take(payment_id, now=now)
    if not payment.is_live:
        return payment
    assert payment.method is not None, "only saved cards are charged"
    if payment.method.removed_at is not None:
        return _give_up_card(payment, now=now)
    failpoints.reach("payments.before_call")
    intent = _intent_of(payment, now=now)
    if intent is None:
        return close_unsent(payment_id, now=now)
    failpoints.reach("payments.after_intent")
    if intent.status == "requires_confirmation":
        intent = _confirm(payment, intent, now=now)
    failpoints.reach("payments.after_call")
    applied = applying.apply_intent(payment, intent, now=now)
    Payment.objects.filter(pk=payment_id).update(leased_until=None)
    return applied


def pay(*, payment_id: UUID, now: datetime) -> Payment:
    """Do what an attempt of somebody present is for: charge the saved card, or make the page where they pay.

    Raises CardRefused when the card does not pay, and says when its bank wants to hear from the holder.
    """
    payment = Payment.objects.get(pk=payment_id)
    if payment.state == PaymentState.SUCCEEDED:
        return payment
    if payment.method_id is None:
        return open_checkout(payment_id=payment_id, now=now)
    payment = charge_card(payment_id=payment_id, now=now)
    if payment.state == PaymentState.REQUIRES_ACTION:
        payment = _give_up_action(payment, now=now)
    if payment.state in {PaymentState.FAILED, PaymentState.CANCELED}:
        reason = payment.failure_code or "authentication_required"
        message = payment.failure_message or _("Your bank wants to hear from you. Pay on the page instead.")
        raise CardRefused(message, reason=reason)
    return payment


def _give_up_action(payment: Payment, *, now: datetime) -> Payment:
    """Cancel an intent that waits for its holder here; the page asks them properly."""
    assert payment.intent_id is not None, "a bank asks about an intent"
    gateway.current().cancel_intent(payment.intent_id, key=Key(text=f"cancel-{payment.id}", since=now))
    return applying.sync_payment(payment.id, now=now)


def _give_up_card(payment: Payment, *, now: datetime) -> Payment:
    """End an attempt whose card was removed, unless Stripe charged it before; only a noted intent can be confirmed."""
    if payment.intent_id is not None:
        intent = gateway.current().intent(payment.intent_id)
        if intent.status != "requires_confirmation":
            return applying.apply_intent(payment, intent, now=now)
        _cancel(payment, intent, now=now)
    message = _("The card was removed. Pay with another one.")
    return applying.fail(payment.id, code="card_removed", message=message, now=now)


@transaction.atomic
def _take(payment_id: UUID, *, now: datetime) -> Payment:
    payment = Payment.objects.select_for_update(no_key=True).get(pk=payment_id)
    if payment.is_live:
        lease(payment, now=now)
        payment.called_at = payment.called_at or now
        payment.save(update_fields=["called_at"])
    return payment


def _intent_of(payment: Payment, *, now: datetime) -> Intent | None:
    """Return the attempt's intent, making it at first; None if it is too late to make one and none was made."""
    if payment.intent_id:
        return gateway.current().intent(payment.intent_id)
    assert payment.method is not None, "only saved cards are charged"
    assert payment.called_at is not None, "set when the attempt was taken"
    customer_id = customer_for(payment, now=now)
    try:
        intent = gateway.current().create_intent(
            customer_id=customer_id,
            method_id=payment.method.method_id,
            reference=str(payment.id),
            description=description(payment),
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            key=Key(text=f"intent-{payment.id}", since=payment.called_at),
        )
    except KeyTooOld:
        intent_or_none = gateway.current().find_intent(customer_id=customer_id, reference=str(payment.id))
        if intent_or_none is None:
            return None
        intent = intent_or_none
    except RefusedByStripe:
        applying.refuse(payment.id, now=now)
        raise
    # Noted before it is confirmed: from here on it can be asked for by its id, however old it gets.
    Payment.objects.filter(pk=payment.pk, intent_id=None).update(intent_id=intent.id, state=PaymentState.OPEN)
    return intent


def _confirm(payment: Payment, intent: Intent, *, now: datetime) -> Intent:
    assert payment.called_at is not None, "set when the attempt was taken"
    key = Key(text=f"confirm-{payment.id}", since=payment.called_at)
    try:
        return gateway.current().confirm_intent(
            intent.id, off_session=payment.is_off_session, return_url=payment.success_url, key=key
        )
    except CardRefused:
        return gateway.current().intent(intent.id)  # It says why, and what state it is in now.
    except KeyTooOld:
        return _cancel(payment, intent, now=now)
    except RefusedByStripe:
        found = gateway.current().intent(intent.id)
        if found.status != intent.status:
            return found  # Somebody has ended it at Stripe.
        _cancel(payment, intent, now=now)
        applying.refuse(payment.id, now=now)
        raise


def _cancel(payment: Payment, intent: Intent, *, now: datetime) -> Intent:
    gateway.current().cancel_intent(intent.id, key=Key(text=f"cancel-{payment.id}", since=now))
    return gateway.current().intent(intent.id)


def queue_abandoned(*, now: datetime) -> int:
    """Queue the live payments that nobody works on any more and whose next look is due, and return how many.

    The older a payment, the longer until the look after this one, so that many open pages keep no younger one waiting.
    """
    idle = Q(leased_until=None) | Q(leased_until__lt=now)
    due = Q(next_look_at__lte=now) | Q(next_look_at=None, created_at__lt=now - ABANDONED_AFTER)
    rows = Payment.objects.live().filter(idle, due).order_by(F("next_look_at").asc(nulls_first=True), "pk")
    found = list(rows.only("created_at")[:SWEPT_AT_ONCE])
    for payment in found:
        age = now - payment.created_at
        payment.next_look_at = now + min(max(age / 4, LOOKS_APART_LEAST), LOOKS_APART_MOST)
        jobs.enqueue("payments.resume", payment_id=payment.pk)
    Payment.objects.bulk_update(found, ["next_look_at"])
    return len(found)


def resume(*, payment_id: UUID, now: datetime) -> Payment:
    """Find out what became of a payment that nobody works on, and finish it as far as it can be without its payer."""
    payment = Payment.objects.get(pk=payment_id)
    if payment.state == PaymentState.CREATED and payment.method_id is None and payment.session_id is None:
        return _close_unopened(payment, now=now)
    if payment.method_id is not None and payment.state in {PaymentState.CREATED, PaymentState.OPEN}:
        try:
            return charge_card(payment_id=payment_id, now=now)
        except AttemptInFlight:
            return payment
    return applying.sync_payment(payment_id, now=now)


def _close_unopened(payment: Payment, *, now: datetime) -> Payment:
    """End an attempt whose page nobody ever saw, once its caller has had time to ask for it again."""
    if now - payment.created_at < PAGE_LASTS:
        return payment
    try:
        return close_page(payment_id=payment.id, now=now)
    except AttemptInFlight:
        return payment
