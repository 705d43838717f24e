"""Staff take credit back that was given by mistake: a reversing transfer with a reason, never more than is unspent."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.billing import selectors
from apps.billing.models import CreditLot
from apps.billing.services.guarding import settle_state
from apps.core.actor import Actor, ActorKind
from apps.core.errors import Conflict, FieldError, ValidationFailed
from apps.core.ids import uuid7
from apps.core.money import plain_micros
from apps.ledger import selectors as ledger_state
from apps.ledger import services as ledger
from apps.ledger.services import AccountKind, Posting, TransferKind
from apps.outbox import services as outbox

# What was paid through Stripe goes back as a refund; what a bill gave back is the customer's.
_GIVEN_FROM = (AccountKind.BANK, AccountKind.PROMO_EXPENSE)


class CreditSpent(Conflict):
    """Less of the lot is unspent than should be taken back."""

    code = "credit_spent"
    default_message = _("Less than that is left of this credit. Take back what is left, or nothing.")


class CreditNotGranted(Conflict):
    """The credit was not given by staff, so staff cannot take it back."""

    code = "credit_not_granted"
    default_message = _("This credit comes from a card payment or from a bill. Refund the payment instead.")


class AlreadyTakenBack(Conflict):
    """The same form was sent twice."""

    code = "credit_already_taken_back"
    default_message = _("This was taken back already.")


@transaction.atomic
def withdraw_credit(
    *,
    actor: Actor,
    lot_id: UUID,
    amount_micros: int | None,
    reason: str,
    now: datetime,
    attempt_id: UUID | None = None,
) -> int:
    """Return what was taken out of a lot, in micros, to the operator's account that it was given from; staff only.

    amount_micros: all that is left unless told. Usage that is not posted yet counts as spent.
    attempt_id: of the form that asks for it, which takes effect once.
    Raises CreditNotGranted, CreditSpent, AlreadyTakenBack, and ValidationFailed for an amount of zero or less.
    """
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "customers cannot take credit from themselves"
    if amount_micros is not None and amount_micros <= 0:
        message = str(_("Give an amount above zero."))
        raise ValidationFailed(message, fields=[FieldError(path="amount", code="range", message=message)])
    lot = CreditLot.objects.select_related("organization").get(pk=lot_id)
    book = ledger.open_book(organization_id=lot.organization_id, currency=lot.currency, now=now)
    transfers = ledger_state.transfers_of(lot.organization_id)
    attempt_id = attempt_id or uuid7()
    if transfers.filter(batch_id=attempt_id).exists():
        raise AlreadyTakenBack
    given = transfers.select_related("debit").get(cause=f"lot:{lot.id}:1")
    if given.debit.kind not in _GIVEN_FROM:
        raise CreditNotGranted
    # Under the wallet's lock nothing is posted between this look and the transfer.
    stands = selectors.standing(lot.organization, now=now)
    left = next((one.balance_micros for one in stands.lots if one.id == lot.id), 0)
    taken = left if amount_micros is None else amount_micros
    if not 0 < taken <= left:
        raise CreditSpent(left=plain_micros(left))
    posting = Posting(
        debit_id=lot.account_id,
        credit_id=given.debit_id,
        amount_micros=taken,
        kind=TransferKind.REVERSAL,
        cause=f"taken-back:{attempt_id}:1",
        occurred_at=now,
        reason=reason,
        reference=str(given.id),
    )
    ledger.post_transfers(book=book, postings=[posting], now=now, batch_id=attempt_id)
    facts = {
        "amount": plain_micros(taken),
        "left": plain_micros(left - taken),
        "currency": lot.currency,
        "pot": lot.pot,
    }
    audit.record(
        actor=actor,
        action="credit.taken_back",
        target=lot,
        organization_id=lot.organization_id,
        diff=facts,
        reason=reason,
    )
    outbox.publish(
        "billing.credit_taken_back",
        {"organization_id": str(lot.organization_id), "lot_id": str(lot.id), **facts},
        organization_id=lot.organization_id,
    )
    settle_state(organization_id=lot.organization_id, now=now)
    return taken
