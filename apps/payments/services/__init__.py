"""Every write of payments, a verb a module: top up, save cards, charge, collect, refund, follow Stripe's events."""

from apps.payments.services.applying import look_at_stripe, sync_intent, sync_payment, sync_session
from apps.payments.services.auto_top_up import (
    queue_auto_top_ups,
    set_auto_top_up,
    start_if_low,
    turn_off_auto_top_up,
)
from apps.payments.services.cards import (
    make_default,
    open_card_setup,
    remove_card,
    start_card_setup,
    sync_setup_session,
    tell_expiring,
)
from apps.payments.services.charging import charge_card, pay, queue_abandoned, resume
from apps.payments.services.collecting import (
    SentBefore,
    collect,
    collect_due,
    pay_invoice_from_credit,
    record_bank_receipt,
    replacing_page,
    start_invoice_payment,
)
from apps.payments.services.disputes import sync_dispute
from apps.payments.services.inbox import EVENT_TYPES, Unverifiable, process_events, receive, replay
from apps.payments.services.reconciling import Report, reconcile, report, resolve_difference, tell_operator
from apps.payments.services.refunds import (
    decide_refund,
    queue_abandoned_refunds,
    refundable_minor,
    request_refund,
    send_refund,
    sync_refund,
)
from apps.payments.services.top_up import open_checkout, start_top_up

__all__ = [
    "EVENT_TYPES",
    "Report",
    "SentBefore",
    "Unverifiable",
    "charge_card",
    "collect",
    "collect_due",
    "decide_refund",
    "look_at_stripe",
    "make_default",
    "open_card_setup",
    "open_checkout",
    "pay",
    "pay_invoice_from_credit",
    "process_events",
    "queue_abandoned",
    "queue_abandoned_refunds",
    "queue_auto_top_ups",
    "receive",
    "reconcile",
    "record_bank_receipt",
    "refundable_minor",
    "remove_card",
    "replacing_page",
    "replay",
    "report",
    "request_refund",
    "resolve_difference",
    "resume",
    "send_refund",
    "set_auto_top_up",
    "start_card_setup",
    "start_if_low",
    "start_invoice_payment",
    "start_top_up",
    "sync_dispute",
    "sync_intent",
    "sync_payment",
    "sync_refund",
    "sync_session",
    "sync_setup_session",
    "tell_expiring",
    "tell_operator",
    "turn_off_auto_top_up",
]
