"""What follows when a payment ends: a receipt, another try, a pause; in the transaction that ends it."""

from __future__ import annotations

from datetime import datetime, timedelta

from apps.payments.models import (
    AutoTopUp,
    AutoTopUpState,
    Collection,
    Payment,
    PaymentKind,
    PaymentState,
)
from apps.payments.services import mails

FAILURES_MAX = 3
RETRY_AFTER = timedelta(hours=6)


def follow(payment: Payment, *, now: datetime) -> None:
    """Do what a payment's new state asks for."""
    if payment.state == PaymentState.SUCCEEDED:
        mails.receipt(payment, now=now)
    if payment.kind == PaymentKind.AUTO_TOP_UP:
        _follow_auto_top_up(payment, now=now)
    elif payment.kind == PaymentKind.INVOICE and payment.state == PaymentState.FAILED:
        if payment.method_id or payment.intent_id:  # Of a page that was never shown nobody need hear.
            mails.failed(payment, now=now)
        if payment.asks_holder:
            # No later try without the holder can succeed; the mail's link asks for them.
            Collection.objects.filter(invoice=payment.invoice).update(next_attempt_at=None)


def _follow_auto_top_up(payment: Payment, *, now: datetime) -> None:
    rule = (
        AutoTopUp.objects.select_for_update(no_key=True)
        .filter(organization_id=payment.organization_id)
        .first()
    )
    if rule is None:
        return
    if payment.state == PaymentState.SUCCEEDED:
        rule.failures_in_a_row, rule.next_attempt_at = 0, None
    elif payment.state == PaymentState.FAILED:
        rule.failures_in_a_row += 1
        rule.next_attempt_at = now + RETRY_AFTER
        if rule.state != AutoTopUpState.ACTIVE:
            pass  # People have turned it off meanwhile, and no failure says otherwise.
        elif payment.asks_holder:
            rule.state = AutoTopUpState.PAUSED
        elif rule.failures_in_a_row >= FAILURES_MAX:
            rule.state = AutoTopUpState.DISABLED
        mails.tell(
            "auto_top_up",
            organization_id=payment.organization_id,
            cause=str(payment.id),
            now=now,
            state=rule.state,
            amount=mails.amount(payment.amount_minor, payment.currency),
            problem=payment.failure_message,
        )
    rule.updated_at = now
    rule.save()
