"""Disputes: when a bank takes a payment's money back, so do we; when it returns, it returns. Each once."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext as _

from apps.audit import services as audit
from apps.billing import services as billing
from apps.core import failpoints, money
from apps.core.actor import system_actor
from apps.ledger import services as ledger
from apps.ledger.services import TransferKind
from apps.outbox import services as outbox
from apps.payments import gateway
from apps.payments.gateway import DisputeAnswer
from apps.payments.models import Dispute, Payment, PaymentState
from apps.payments.services import mails
from apps.payments.services.applying import DoesNotFit, paid_by_intent
from apps.payments.services.auto_top_up import turn_off_auto_top_up

# Of least news first: a state of a lower rank is older than what we know.
_RANKS = {
    "warning_needs_response": 0,
    "warning_under_review": 1,
    "warning_closed": 6,
    "needs_response": 2,
    "under_review": 3,
    "lost": 6,
    "won": 6,
    "prevented": 6,
}
_CLOSED_RANK = 6
TO_ANSWER = ("warning_needs_response", "needs_response")
# What customers hear of, once each: answering a question or a dispute is no news to them.
_STAGES = {
    "warning_needs_response": "asked",
    "warning_under_review": "asked",
    "needs_response": "disputed",
    "under_review": "disputed",
}


def is_known(status: str) -> bool:
    """Return whether a status of Stripe's means anything here."""
    return status in _RANKS


def sync_dispute(stripe_id: str, *, now: datetime) -> Dispute | None:
    """Ask Stripe about a dispute and apply it; None if its payment is none of ours."""
    answer = gateway.current().dispute(stripe_id)
    payment = paid_by_intent(answer.intent_id, now=now)
    return apply_dispute(payment.id, answer, now=now) if payment is not None else None


@transaction.atomic
def apply_dispute(payment_id: UUID, answer: DisputeAnswer, *, now: datetime) -> Dispute:
    """Apply a dispute as Stripe has just shown it. An inquiry moves nothing.

    Withdrawn funds come out of the payment's lot as far as it has them, so nobody spends what is disputed; the rest is
    owed again, and automatic top-up is turned off. Reinstated funds undo the former.
    """
    found = Payment.objects.get(pk=payment_id)
    ledger.open_book(organization_id=found.organization_id, currency=found.currency, now=now)
    payment = Payment.objects.select_for_update(no_key=True).get(pk=payment_id)
    if payment.state != PaymentState.SUCCEEDED:
        raise DoesNotFit(f"{answer.id} disputes payment {payment.id}, which is {payment.state}")
    if answer.currency != payment.currency or answer.amount_minor > payment.amount_minor:
        raise DoesNotFit(
            f"{answer.id} disputes {answer.amount_minor} {answer.currency} of payment {payment.id}"
        )
    dispute, created = Dispute.objects.get_or_create(
        dispute_id=answer.id,
        defaults={
            "organization_id": payment.organization_id,
            "payment": payment,
            "status": answer.status,
            "reason": answer.reason,
            "amount_minor": answer.amount_minor,
            "currency": answer.currency,
            "created_at": now,
        },
    )
    before = "" if created else dispute.status
    if _RANKS.get(answer.status, 0) >= _RANKS.get(dispute.status, 0):
        dispute.status, dispute.reason, dispute.due_by = answer.status, answer.reason, answer.due_by
    is_turned_off = False
    if answer.withdrawn and dispute.withdrawn_at is None:
        _withdraw(dispute, payment, now=now)
        # A card whose holder wants the money back is not charged again for the credit that is gone now.
        is_turned_off = turn_off_auto_top_up(
            actor=system_actor("payments", payment.organization_id),
            organization=payment.organization,
            now=now,
        )
    if answer.reinstated and dispute.reinstated_at is None:
        _reinstate(dispute, payment, now=now)
    if _RANKS.get(dispute.status, 0) == _CLOSED_RANK and dispute.closed_at is None:
        dispute.closed_at = now
    dispute.save()
    if created or before != dispute.status:
        _tell(dispute, before, auto_top_up="off" if is_turned_off else "", now=now)
    failpoints.reach("payments.before_commit")
    return dispute


def _withdraw(dispute: Dispute, payment: Payment, *, now: datetime) -> None:
    from_lot = billing.take_back(
        organization_id=payment.organization_id,
        currency=payment.currency,
        lot_id=payment.lot_id,
        amount_micros=money.minor_to_micros(dispute.amount_minor, payment.currency),
        kind=TransferKind.DISPUTE,
        cause=f"dispute:{dispute.dispute_id}:withdrawn",
        reason=_("Taken back by the bank of the card"),
        reference=dispute.dispute_id,
        now=now,
    )
    dispute.lot_micros = from_lot
    dispute.withdrawn_at = now


def _reinstate(dispute: Dispute, payment: Payment, *, now: datetime) -> None:
    billing.give_back(
        organization_id=payment.organization_id,
        currency=payment.currency,
        lot_id=payment.lot_id,
        to_lot_micros=dispute.lot_micros,
        amount_micros=money.minor_to_micros(dispute.amount_minor, payment.currency),
        kind=TransferKind.DISPUTE,
        cause=f"dispute:{dispute.dispute_id}:reinstated",
        new_lot_id=dispute.id,
        source="dispute",
        reason=_("Returned by the bank of the card"),
        reference=dispute.dispute_id,
        now=now,
    )
    dispute.reinstated_at = now


def _tell(dispute: Dispute, before: str, *, auto_top_up: str, now: datetime) -> None:
    organization_id = dispute.organization_id
    facts = {
        "payment_id": str(dispute.payment_id),
        "amount": f"{money.from_minor(dispute.amount_minor, dispute.currency):f}",
        "currency": dispute.currency,
        "reason": dispute.reason,
    }
    audit.record(
        actor=system_actor("payments", organization_id),
        action="dispute.changed",
        target=dispute,
        diff={**facts, "status": [before, dispute.status]},
    )
    outbox.publish(
        "payments.dispute_changed",
        {"id": str(dispute.id), "status": dispute.status, **facts},
        organization_id=organization_id,
    )
    if _stage(before) == _stage(dispute.status):
        return
    mails.tell(
        "dispute",
        organization_id=organization_id,
        cause=f"{dispute.dispute_id}:{dispute.status}",
        now=now,
        amount=mails.amount(dispute.amount_minor, dispute.currency),
        status=dispute.status,
        owed=mails.amount(dispute.owed_minor, dispute.currency) if dispute.owed_minor else "",
        auto_top_up=auto_top_up,
    )


def _stage(status: str) -> str:
    return _STAGES.get(status, status)
