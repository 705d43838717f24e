"""Refunds: asked for, decided by a second person above a limit, sent to the card; what a bank refuses comes back."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.audit import services as audit
from apps.billing import services as billing
from apps.billing.models import CreditLot, Pot
from apps.core import failpoints, jobs, money
from apps.core.actor import Actor, ActorKind, system_actor
from apps.core.errors import Conflict, FieldError, NotFound, PermissionDenied, ValidationFailed
from apps.invoices.models import Invoice, InvoicePayment
from apps.ledger import selectors as ledger_state
from apps.ledger import services as ledger
from apps.ledger.services import TransferKind
from apps.outbox import services as outbox
from apps.payments import gateway
from apps.payments.gateway import GatewayError, GatewayTimeout, Key, KeyTooOld, RefundAnswer, RefusedByStripe
from apps.payments.models import (
    HOLDING_STATES,
    Dispute,
    Payment,
    PaymentState,
    Refund,
    RefundDestination,
    RefundState,
)
from apps.payments.models.returns import INQUIRY_PREFIX, REASON_LENGTH_MAX
from apps.payments.services import mails
from apps.payments.services.applying import DoesNotFit, paid_by_intent
from apps.payments.services.attempts import checked_minor, lease

ABANDONED_AFTER = timedelta(minutes=3)
_STATES = {
    "pending": RefundState.PENDING,
    "requires_action": RefundState.PENDING,
    "succeeded": RefundState.SUCCEEDED,
    "failed": RefundState.FAILED,
    "canceled": RefundState.FAILED,
}


def state_of(answer: RefundAnswer) -> RefundState | None:
    """Return the state that Stripe's status of a refund stands for, or None for one that we do not know."""
    return _STATES.get(answer.status)


class NothingToRefund(Conflict):
    """The payment was never completed, is disputed, or its credit is spent."""

    code = "nothing_to_refund"
    default_message = gettext_lazy(
        "Nothing of this payment can be refunded: it is spent, refunded or disputed."
    )


class RefundDecided(Conflict):
    """Somebody has decided about it already."""

    code = "refund_decided"
    default_message = gettext_lazy("This refund has been decided already.")


class SecondPersonNeeded(PermissionDenied):
    """Above the limit nobody decides about what they asked for themselves."""

    code = "second_person_needed"
    default_message = gettext_lazy("A refund of this size is decided by somebody else than who asked for it.")


def refundable_minor(payment: Payment) -> int:
    """Return what can go back to the card of a payment, in minor units: paid, unspent, not refunded, not disputed.

    Unspent is what is left of the credit that it became, and of the credit that credit notes gave for invoices that
    it paid.
    """
    if payment.state != PaymentState.SUCCEEDED or payment.intent_id is None:
        return 0
    if _is_disputed(payment):
        return 0
    unspent = sum(lot.account.balance_micros for lot in _lots_of(payment))
    left = unspent // money.micros_per_minor(payment.currency)
    asked = _asked(payment).filter(destination=RefundDestination.CARD)
    return max(0, min(left - _sum_minor(asked), _unasked_minor(payment)))


def _lots_of(payment: Payment) -> list[CreditLot]:
    """Return the credit that a payment became, then what credit notes gave for the invoices that it paid."""
    paid = InvoicePayment.objects.filter(organization_id=payment.organization_id, batch_id=payment.id)
    notes = Invoice.objects.filter(corrects__in=paid.values("invoice_id")).values_list("pk", flat=True)
    given = ledger_state.transfers_of(payment.organization_id).filter(
        kind=TransferKind.CREDIT_NOTE, reference__in=[str(note) for note in notes]
    )
    rows = CreditLot.objects.filter(
        Q(pk=payment.lot_id) | Q(account__in=given.values("credit_id"), pot=Pot.PAID, expired_at=None),
        organization_id=payment.organization_id,
    )
    found = rows.select_related("account").order_by("created_at", "id")
    return sorted(found, key=lambda lot: lot.pk != payment.lot_id)


def _is_disputed(payment: Payment) -> bool:
    """Return whether a bank decides about a payment. One that only asks took nothing, and a refund is an answer."""
    return payment.disputes.filter(closed_at=None).exclude(status__startswith=INQUIRY_PREFIX).exists()


def _asked(payment: Payment) -> QuerySet[Refund]:
    return payment.refunds.filter(state=RefundState.REQUESTED)


def _unasked_minor(payment: Payment) -> int:
    """Return what of a payment went back neither way and was not asked for either."""
    return _unrefunded_minor(payment) - _sum_minor(_asked(payment))


def _unrefunded_minor(payment: Payment) -> int:
    """Return what of a payment neither was refunded nor is in the hands of a bank that disputes it."""
    disputed = payment.disputes.filter(withdrawn_at__isnull=False, reinstated_at=None)
    refunded = payment.refunds.filter(state__in=HOLDING_STATES)
    return payment.amount_minor - _sum_minor(disputed) - _sum_minor(refunded)


def _sum_minor(rows: QuerySet[Refund] | QuerySet[Dispute]) -> int:
    return int(rows.aggregate(sum=Sum("amount_minor", default=0))["sum"])


@transaction.atomic
def request_refund(
    *,
    actor: Actor,
    payment_id: UUID,
    amount: Decimal | None,
    reason: str,
    destination: RefundDestination = RefundDestination.CARD,
    attempt_id: UUID | None = None,
    now: datetime,
) -> Refund:
    """Ask for money of a payment back; staff decide. amount: major units, all that can be refunded unless told.

    To the card goes only what is paid and unspent. As promotional credit staff may give back what was spent, up to
    the payment. Raises NotFound, NothingToRefund, ValidationFailed.
    """
    payment = _lock(actor, payment_id, now=now)
    if attempt_id and (asked := payment.refunds.filter(attempt_id=attempt_id).first()):
        return asked
    if destination == RefundDestination.CARD:
        most = refundable_minor(payment)
    else:
        is_paid = payment.state == PaymentState.SUCCEEDED and payment.intent_id is not None
        most = _unasked_minor(payment) if is_paid else 0
    if most <= 0:
        raise NothingToRefund
    minor = most if amount is None else checked_minor(amount, payment.currency, minimum=1)
    if minor > most:
        message = _("At most %(most)s can be refunded.") % {"most": mails.amount(most, payment.currency)}
        raise ValidationFailed(fields=[FieldError(path="amount", code="range", message=message)])
    refund = Refund.objects.create(
        organization_id=payment.organization_id,
        payment=payment,
        destination=destination,
        amount_minor=minor,
        currency=payment.currency,
        reason=reason,
        requested_by=actor.label,
        requested_by_id=actor.id,
        attempt_id=attempt_id,
        created_at=now,
    )
    _tell(actor, refund, "requested", reason=reason)
    return refund


@transaction.atomic
def decide_refund(*, actor: Actor, refund_id: UUID, approve: bool, reason: str, now: datetime) -> Refund:
    """Approve or reject a request. Approved, its money leaves the lot at once, so that nobody spends it meanwhile.

    reason: the customer is told the one for which it is rejected.
    Raises RefundDecided, SecondPersonNeeded above REFUND_ALONE_MAX, NothingToRefund when it was spent since, or went
    back another way, ValidationFailed for a rejection without a reason.
    """
    found = Refund.objects.select_related("payment").get(pk=refund_id)
    ledger.open_book(organization_id=found.organization_id, currency=found.currency, now=now)
    refund = Refund.objects.select_for_update(no_key=True).get(pk=refund_id)
    if refund.state != RefundState.REQUESTED:
        raise RefundDecided
    limit = int(Decimal(settings.REFUND_ALONE_MAX).scaleb(money.exponent(refund.currency)))
    if approve and refund.amount_minor > limit and refund.requested_by_id in (None, actor.id):
        raise SecondPersonNeeded
    refund.decided_by, refund.decided_at = actor.label, now
    if not approve:
        refund.message = _checked_message(reason)
        return _become(actor, refund, RefundState.REJECTED, now=now, reason=reason)
    if refund.amount_minor > _unrefunded_minor(refund.payment):
        raise NothingToRefund
    if refund.destination == RefundDestination.CREDIT:
        return _give_credit(actor, refund, reason=reason, now=now)
    if _is_disputed(refund.payment):
        raise NothingToRefund
    _take_credit(refund, now=now)
    refund = _become(actor, refund, RefundState.APPROVED, now=now, reason=reason)
    jobs.enqueue("payments.send_refund", refund_id=refund.id)
    return refund


def _checked_message(reason: str) -> str:
    message = reason.strip()
    if not message or len(message) > REASON_LENGTH_MAX:
        text = _("Say why, in up to 500 characters; the customer reads it.")
        raise ValidationFailed(fields=[FieldError(path="reason", code="invalid", message=text)])
    return message


def _take_credit(refund: Refund, *, now: datetime) -> None:
    """Take a refund's money out of the payment's credit, under the wallet's lock, or raise NothingToRefund."""
    try:
        shares = billing.take_from_lots(
            organization_id=refund.organization_id,
            currency=refund.currency,
            lot_ids=[lot.id for lot in _lots_of(refund.payment)],
            amount_micros=_micros(refund),
            kind=TransferKind.REFUND,
            cause=f"refund:{refund.id}",
            batch_id=refund.id,
            reason=refund.reason[:255],
            reference=str(refund.id),
            now=now,
        )
    except billing.NotEnoughLeft:
        raise NothingToRefund from None
    refund.lot_micros = sum(share for lot_id, share in shares.items() if lot_id == refund.payment.lot_id)


def _give_credit(actor: Actor, refund: Refund, *, reason: str, now: datetime) -> Refund:
    billing.grant_credit(
        actor=actor,
        organization_id=refund.organization_id,
        amount_micros=_micros(refund),
        pot=Pot.PROMO,
        reason=refund.reason[:255],
        source="refund",
        reference=str(refund.id),
        now=now,
    )
    return _become(actor, refund, RefundState.SUCCEEDED, now=now, reason=reason)


def send_refund(*, refund_id: UUID, now: datetime) -> Refund:
    """Send an approved refund to Stripe, or find out what became of it; call it outside any transaction.

    What Stripe refuses for good comes back to the lot.
    """
    refund = _take(refund_id, now=now)
    if refund.state != RefundState.APPROVED:
        return refund
    if refund.refund_id:
        return apply_refund(refund_id, gateway.current().refund(refund.refund_id), now=now)
    failpoints.reach("payments.before_refund")
    assert refund.called_at is not None, "set when the refund was taken"
    intent_id = refund.payment.intent_id
    assert intent_id is not None, "only what Stripe was paid is refunded there"
    try:
        answer = gateway.current().create_refund(
            intent_id=intent_id,
            amount_minor=refund.amount_minor,
            currency=refund.currency,
            reference=str(refund.id),
            key=Key(text=f"refund-{refund.id}", since=refund.called_at),
        )
    except GatewayTimeout:
        raise
    except GatewayError as error:
        # Too old to be sent again, or refused: what Stripe has of it decides.
        found = gateway.current().find_refund(intent_id=intent_id, reference=str(refund.id))
        if found is None:
            if isinstance(error, (KeyTooOld, RefusedByStripe)):
                return _come_back(refund_id, message=str(error), now=now)
            raise
        answer = found
    failpoints.reach("payments.after_refund")
    return apply_refund(refund_id, answer, now=now)


@transaction.atomic
def _take(refund_id: UUID, *, now: datetime) -> Refund:
    refund = Refund.objects.select_for_update(no_key=True).get(pk=refund_id)
    if refund.state == RefundState.APPROVED:
        lease(refund, now=now)
        refund.called_at = refund.called_at or now
        refund.save(update_fields=["called_at"])
    return refund


def sync_refund(stripe_id: str, *, now: datetime) -> Refund | None:
    """Ask Stripe about a refund and apply it; one that was made at Stripe directly gets a row. None if not ours."""
    answer = gateway.current().refund(stripe_id)
    refund = Refund.objects.filter(refund_id=stripe_id).first() or _by_reference(answer)
    if refund is None:
        payment = paid_by_intent(answer.intent_id, now=now)
        refund = _adopt(payment, answer, now=now) if payment is not None else None
    return apply_refund(refund.id, answer, now=now) if refund is not None else None


@transaction.atomic
def apply_refund(refund_id: UUID, answer: RefundAnswer, *, now: datetime) -> Refund:
    """Apply a refund as Stripe has just shown it; a failed one comes back to where it was taken from, once."""
    found = Refund.objects.get(pk=refund_id)
    ledger.open_book(organization_id=found.organization_id, currency=found.currency, now=now)
    refund = Refund.objects.select_for_update(no_key=True).get(pk=refund_id)
    if (answer.amount_minor, answer.currency) != (refund.amount_minor, refund.currency):
        raise DoesNotFit(
            f"{answer.id} is of {answer.amount_minor} {answer.currency}, the refund of another amount"
        )
    if refund.refund_id not in (None, answer.id):
        raise DoesNotFit(f"refund {refund.id} is {refund.refund_id} at Stripe, not {answer.id}")
    refund.refund_id, refund.leased_until = answer.id, None
    refund.save(update_fields=["refund_id", "leased_until"])
    state = state_of(answer)
    if state is None or not refund.may_become(state):
        return refund
    if state == RefundState.FAILED:
        refund.failure_message = answer.failure
        _put_back(refund, now=now)
    refund = _become(system_actor("payments", refund.organization_id), refund, state, now=now)
    failpoints.reach("payments.before_commit")
    return refund


@transaction.atomic
def _come_back(refund_id: UUID, *, message: str, now: datetime) -> Refund:
    """End a refund that Stripe never made: its money returns to the lot."""
    found = Refund.objects.get(pk=refund_id)
    ledger.open_book(organization_id=found.organization_id, currency=found.currency, now=now)
    refund = Refund.objects.select_for_update(no_key=True).get(pk=refund_id)
    if refund.state == RefundState.APPROVED:
        refund.failure_message, refund.leased_until = message, None
        _put_back(refund, now=now)
        _become(system_actor("payments", refund.organization_id), refund, RefundState.FAILED, now=now)
    return refund


def _put_back(refund: Refund, *, now: datetime) -> None:
    """Return a refund's money to where it was taken from, or to the bank that meanwhile wanted it of the lot."""
    payment = refund.payment
    disputed = _return_to_dispute(payment, refund.lot_micros)
    billing.give_back(
        organization_id=refund.organization_id,
        currency=refund.currency,
        lot_id=payment.lot_id,
        to_lot_micros=refund.lot_micros - disputed,
        amount_micros=_micros(refund),
        kind=TransferKind.REFUND,
        cause=f"refund-failed:{refund.id}",
        new_lot_id=refund.id,
        source="refund_failed",
        reason=_("A refund that failed"),
        reference=refund.refund_id or str(refund.id),
        now=now,
    )


def _return_to_dispute(payment: Payment, micros: int) -> int:
    """Count what comes back to a payment's lot as given to its dispute, as if it had been there; return how much."""
    dispute = payment.disputes.filter(withdrawn_at__isnull=False, reinstated_at=None).first()
    if dispute is None:
        return 0
    found = min(micros, dispute.owed_micros)
    dispute.lot_micros += found
    dispute.save(update_fields=["lot_micros"])
    return found


@transaction.atomic
def _adopt(payment: Payment, answer: RefundAnswer, *, now: datetime) -> Refund | None:
    """Give a refund that was made at Stripe directly a row, and post it: the lot's remainder, then owed again."""
    ledger.open_book(organization_id=payment.organization_id, currency=payment.currency, now=now)
    if (known := Refund.objects.filter(refund_id=answer.id).first()) is not None:
        return known
    if state_of(answer) == RefundState.FAILED:
        return None  # It took nothing and moved nothing.
    from_lot = billing.take_back(
        organization_id=payment.organization_id,
        currency=payment.currency,
        lot_id=payment.lot_id,
        amount_micros=money.minor_to_micros(answer.amount_minor, payment.currency),
        kind=TransferKind.REFUND,
        cause=f"refund:{answer.id}",
        reason=_("Refunded at the payment service"),
        reference=answer.id,
        now=now,
    )
    refund = Refund.objects.create(
        organization_id=payment.organization_id,
        payment=payment,
        state=RefundState.APPROVED,
        amount_minor=answer.amount_minor,
        currency=payment.currency,
        reason=_("Refunded at the payment service"),
        refund_id=answer.id,
        lot_micros=from_lot,
        requested_by="stripe",
        decided_by="stripe",
        decided_at=now,
        created_at=now,
    )
    _tell(system_actor("payments", payment.organization_id), refund, "adopted")
    return refund


def _by_reference(answer: RefundAnswer) -> Refund | None:
    try:
        wanted = UUID(answer.reference)
    except ValueError:
        return None
    return Refund.objects.filter(pk=wanted, payment__intent_id=answer.intent_id).first()


def queue_abandoned_refunds(*, now: datetime) -> int:
    """Queue the approved refunds that nobody sent, and return how many."""
    idle = Q(leased_until=None) | Q(leased_until__lt=now)
    rows = Refund.objects.filter(idle, state=RefundState.APPROVED, decided_at__lt=now - ABANDONED_AFTER)
    found = list(rows.order_by("pk").values_list("pk", flat=True)[:200])
    for refund_id in found:
        jobs.enqueue("payments.send_refund", refund_id=refund_id)
    return len(found)


def _become(actor: Actor, refund: Refund, state: RefundState, *, now: datetime, reason: str = "") -> Refund:
    before, refund.state = refund.state, state
    refund.save()
    _tell(actor, refund, str(state), before=before, reason=reason)
    if state in {RefundState.SUCCEEDED, RefundState.FAILED, RefundState.REJECTED}:
        mails.refund(refund, now=now)
    return refund


def _tell(actor: Actor, refund: Refund, action: str, *, before: str = "", reason: str = "") -> None:
    facts = {
        "payment_id": str(refund.payment_id),
        "amount": f"{money.from_minor(refund.amount_minor, refund.currency):f}",
        "currency": refund.currency,
        "destination": str(refund.destination),
    }
    diff = {**facts, "state": [before, str(refund.state)]}
    audit.record(actor=actor, action=f"refund.{action}", target=refund, diff=diff, reason=reason)
    outbox.publish(
        f"payments.refund_{action}", {"id": str(refund.id), **facts}, organization_id=refund.organization_id
    )


def _micros(refund: Refund) -> int:
    return money.minor_to_micros(refund.amount_minor, refund.currency)


def _lock(actor: Actor, payment_id: UUID, *, now: datetime) -> Payment:
    """Lock a payment that the actor may see; staff see every one."""
    rows = Payment.objects.all() if actor.kind == ActorKind.STAFF else Payment.objects.visible_to(actor)
    found = rows.filter(pk=payment_id).first()
    if found is None:
        raise NotFound
    ledger.open_book(organization_id=found.organization_id, currency=found.currency, now=now)
    return Payment.objects.select_for_update(no_key=True).get(pk=payment_id)
