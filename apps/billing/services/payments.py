"""Payments in the books: money that comes through Stripe, goes back to the card, or is taken back by a bank."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

from django.db import transaction

from apps.audit import services as audit
from apps.billing.models import BillingProgress, CreditLot, Pot
from apps.billing.services.credit import Grant, open_lot, settle_receivable
from apps.billing.services.guarding import settle_state
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.core.ids import uuid7
from apps.core.money import plain_micros
from apps.core.periods import floor_hour
from apps.ledger import services as ledger
from apps.ledger.services import AccountKind, Posting, TransferKind
from apps.outbox import services as outbox


class NotEnoughLeft(Conflict):
    """The credit that a payment became is spent, as far as more is asked back."""

    code = "not_enough_left"


@transaction.atomic
def receive_payment(
    *,
    actor: Actor,
    organization_id: UUID,
    currency: str,
    payment_id: UUID,
    amount_micros: int,
    funded_by: AccountKind,
    source: str,
    reason: str,
    reference: str,
    now: datetime,
    invoice_id: UUID | None = None,
) -> Grant:
    """Post a payment, once: it settles what is owed, the invoice that it names first; the rest becomes a paid lot.

    payment_id: becomes the id of the lot and of the batch of transfers, so the database refuses a second posting.
    funded_by: the clearing account for what Stripe holds, the bank for what came to the bank.
    """
    book = ledger.open_book(organization_id=organization_id, currency=currency, now=now)
    settled = settle_receivable(
        book,
        amount_micros,
        funded_by=funded_by,
        batch_id=payment_id,
        reason=reason,
        reference=reference,
        invoice_id=invoice_id,
        now=now,
    )
    lot = None
    if amount_micros > settled:
        lot = open_lot(
            book=book,
            pot=Pot.PAID,
            amount_micros=amount_micros - settled,
            effective_at=floor_hour(now),
            source=source,
            reason=reason,
            reference=reference,
            funded_by=funded_by,
            kind=TransferKind.TOP_UP,
            batch_id=payment_id,
            lot_id=payment_id,
            now=now,
        )
    facts = {
        "payment_id": str(payment_id),
        "amount": plain_micros(amount_micros),
        "settled": plain_micros(settled),
        "currency": currency,
        "reference": reference,
    }
    audit.record(
        actor=actor,
        action="payment.received",
        target=lot,
        organization_id=organization_id,
        diff=facts,
        reason=reason,
    )
    outbox.publish("billing.payment_received", facts, organization_id=organization_id)
    settle_state(organization_id=organization_id, now=now)
    return Grant(settled_micros=settled, lot=lot)


@transaction.atomic
def take_from_lots(
    *,
    organization_id: UUID,
    currency: str,
    lot_ids: Sequence[UUID],
    amount_micros: int,
    kind: TransferKind,
    cause: str,
    batch_id: UUID,
    reason: str,
    reference: str,
    now: datetime,
) -> dict[UUID, int]:
    """Take credit out of lots, the first one first, to go back to its payer; return the micros that each gave.

    Raises NotEnoughLeft, having taken nothing, when they have less together.
    """
    book = ledger.open_book(organization_id=organization_id, currency=currency, now=now)
    lots = (
        CreditLot.objects.filter(organization_id=organization_id).select_related("account").in_bulk(lot_ids)
    )
    left, shares = amount_micros, {}
    for lot_id in lot_ids:
        if share := min(left, lots[lot_id].account.balance_micros):
            shares[lot_id] = share
            left -= share
    if left:
        raise NotEnoughLeft(left=plain_micros(amount_micros - left))
    clearing = book[AccountKind.CLEARING]
    postings = [
        _posting(lots[lot_id].account_id, clearing, share, kind, f"{cause}:{number}", reason, reference, now)
        for number, (lot_id, share) in enumerate(shares.items(), start=1)
    ]
    ledger.post_transfers(book=book, postings=postings, now=now, batch_id=batch_id)
    settle_state(organization_id=organization_id, now=now)
    return shares


@transaction.atomic
def take_back(
    *,
    organization_id: UUID,
    currency: str,
    lot_id: UUID | None,
    amount_micros: int,
    kind: TransferKind,
    cause: str,
    reason: str,
    reference: str,
    now: datetime,
) -> int:
    """Post money that a payment's payer has already got back: the lot's remainder, then the receivable.

    Returns the micros that the lot gave; the rest is owed again. A lot of None gives nothing.
    """
    book = ledger.open_book(organization_id=organization_id, currency=currency, now=now)
    postings = []
    from_lot = 0
    if lot_id is not None:
        lot = CreditLot.objects.select_related("account").get(pk=lot_id)
        from_lot = min(lot.account.balance_micros, amount_micros)
        if from_lot:
            postings.append(
                _posting(
                    lot.account_id,
                    book[AccountKind.CLEARING],
                    from_lot,
                    kind,
                    f"{cause}:1",
                    reason,
                    reference,
                    now,
                )
            )
    if owed := amount_micros - from_lot:
        postings.append(
            _posting(
                book[AccountKind.RECEIVABLE],
                book[AccountKind.CLEARING],
                owed,
                kind,
                f"{cause}:2",
                reason,
                reference,
                now,
            )
        )
        _owe_again(organization_id, owed)
    ledger.post_transfers(book=book, postings=postings, now=now)
    settle_state(organization_id=organization_id, now=now)
    return from_lot


@transaction.atomic
def give_back(
    *,
    organization_id: UUID,
    currency: str,
    lot_id: UUID | None,
    to_lot_micros: int,
    amount_micros: int,
    kind: TransferKind,
    cause: str,
    new_lot_id: UUID,
    source: str,
    reason: str,
    reference: str,
    now: datetime,
) -> None:
    """Post money that came back after it was taken: what is still owed for it first, then the lot it came from.

    to_lot_micros: what the lot had given. What was owed and has been paid since, or came from other lots, becomes a
    paid lot of id `new_lot_id` that says `source`.
    """
    book = ledger.open_book(organization_id=organization_id, currency=currency, now=now)
    owed = amount_micros - to_lot_micros
    progress, _created = BillingProgress.objects.get_or_create(organization_id=organization_id)
    still_owed = min(owed, progress.taken_back_micros)
    postings = []
    if still_owed:
        progress.taken_back_micros -= still_owed
        progress.save(update_fields=["taken_back_micros"])
        postings.append(
            _posting(
                book[AccountKind.CLEARING],
                book[AccountKind.RECEIVABLE],
                still_owed,
                kind,
                f"{cause}:1",
                reason,
                reference,
                now,
            )
        )
    if to_lot_micros:
        lot = CreditLot.objects.get(pk=cast("UUID", lot_id))
        postings.append(
            _posting(
                book[AccountKind.CLEARING],
                lot.account_id,
                to_lot_micros,
                kind,
                f"{cause}:2",
                reason,
                reference,
                now,
            )
        )
    batch_id = uuid7()
    ledger.post_transfers(book=book, postings=postings, now=now, batch_id=batch_id)
    if paid_since := owed - still_owed:
        open_lot(
            book=book,
            pot=Pot.PAID,
            amount_micros=paid_since,
            effective_at=floor_hour(now),
            source=source,
            reason=reason,
            reference=reference,
            funded_by=AccountKind.CLEARING,
            kind=kind,
            batch_id=batch_id,
            lot_id=new_lot_id,
            now=now,
        )
    settle_state(organization_id=organization_id, now=now)


def _owe_again(organization_id: UUID, micros: int) -> None:
    progress, _created = BillingProgress.objects.get_or_create(organization_id=organization_id)
    progress.taken_back_micros += micros
    progress.save(update_fields=["taken_back_micros"])


def _posting(
    debit_id: UUID,
    credit_id: UUID,
    micros: int,
    kind: TransferKind,
    cause: str,
    reason: str,
    reference: str,
    now: datetime,
) -> Posting:
    return Posting(
        debit_id=debit_id,
        credit_id=credit_id,
        amount_micros=micros,
        kind=kind,
        cause=cause,
        occurred_at=now,
        reason=reason,
        reference=reference,
    )
