"""What invoices ask of billing: note what they ask for, take tax from paid credit, give back what they undo."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.utils.module_loading import import_string

from apps.billing import selectors
from apps.billing.burning import LotState
from apps.billing.models import BillingProgress, ChargeKey, CreditLot, Pot
from apps.billing.services.credit import open_lot, settle_receivable
from apps.billing.services.guarding import settle_state
from apps.core.ids import uuid7
from apps.core.periods import floor_hour
from apps.ledger import services as ledger
from apps.ledger.services import AccountKind, Book, Posting, TransferKind


@transaction.atomic
def bill_receivable(*, organization_id: UUID, billed: dict[UUID, int]) -> None:
    """Note on each charge key how much of its receivable the final invoices ask for, in micros.

    Called by finalisation under the wallet's lock. From then on what comes back for those hours becomes credit: the
    invoice stays owed as it is.
    """
    keys = list(ChargeKey.objects.filter(organization_id=organization_id, pk__in=billed))
    for key in keys:
        key.billed_receivable_micros = billed[key.pk]
    ChargeKey.objects.bulk_update(keys, ["billed_receivable_micros"], batch_size=1_000)


@transaction.atomic
def unbill_receivable(*, organization_id: UUID, claims: Mapping[UUID, int]) -> int:
    """Let invoices to come ask again for what a cancelled one asked for and return the micros, under the wallet's lock.

    claims: micros by charge key. What came back since for the same hours is no longer on the receivable, so less than
    the claims may return.
    """
    total = 0
    keys = list(ChargeKey.objects.filter(organization_id=organization_id, pk__in=claims))
    for key in keys:
        micros = min(claims[key.pk], key.billed_receivable_micros)
        key.billed_receivable_micros -= micros
        total += micros
    ChargeKey.objects.bulk_update(keys, ["billed_receivable_micros"], batch_size=1_000)
    return total


@transaction.atomic
def reopen_keys(*, organization_id: UUID, key_ids: Collection[UUID]) -> None:
    """Let invoices to come say again what a cancelled one said of these keys; called under the metering lock."""
    ChargeKey.objects.filter(organization_id=organization_id, pk__in=key_ids).update(is_reopened=True)


@transaction.atomic
def take_unbilled_receipts(*, organization_id: UUID, receivable_micros: int) -> int:
    """Use what was paid ahead of the invoice for an invoice's receivable and return the micros used."""
    progress = BillingProgress.objects.select_for_update(no_key=True).get(organization_id=organization_id)
    used = min(progress.unbilled_receipts_micros, receivable_micros)
    if used:
        progress.unbilled_receipts_micros -= used
        progress.save(update_fields=["unbilled_receipts_micros"])
    return used


def unbilled_receipts_micros(*, organization_id: UUID) -> int:
    """Return what was paid ahead of any invoice and is not used yet."""
    rows = BillingProgress.objects.filter(organization_id=organization_id)
    return rows.values_list("unbilled_receipts_micros", flat=True).first() or 0


def unbilled_debt_micros(*, organization_id: UUID) -> int:
    """Return what is owed for usage that no final invoice asks for, net of what was paid ahead, in micros."""
    sums = ChargeKey.objects.filter(organization_id=organization_id).aggregate(
        owed=Sum("receivable_micros", default=0), billed=Sum("billed_receivable_micros", default=0)
    )
    return int(sums["owed"]) - int(sums["billed"]) - unbilled_receipts_micros(organization_id=organization_id)


def paid_credit_micros(*, organization_id: UUID, now: datetime) -> int:
    """Return the paid credit in force at a moment."""
    return sum(lot.balance_micros for lot in _paid_lots(organization_id, now))


def _paid_lots(organization_id: UUID, now: datetime) -> list[LotState]:
    return [lot for lot in selectors.lot_states(organization_id) if not lot.is_promo and lot.in_force(now)]


@transaction.atomic
def pay_from_credit(
    *,
    book: Book,
    amount_micros: int,
    to: AccountKind,
    kind: TransferKind,
    cause: str,
    reference: str,
    now: datetime,
    batch_id: UUID | None = None,
) -> None:
    """Move paid credit in force to another account, in burn order; there must be enough of it.

    cause: completed by the number of each transfer. batch_id: what the transfers share.
    """
    postings: list[Posting] = []
    for lot in _paid_lots(book.wallet.organization_id, now):
        if not amount_micros:
            break
        share = min(lot.balance_micros, amount_micros)
        amount_micros -= share
        postings.append(
            Posting(
                debit_id=lot.account_id,
                credit_id=book[to],
                amount_micros=share,
                kind=kind,
                cause=f"{cause}:{len(postings) + 1}",
                occurred_at=now,
                reference=reference,
            )
        )
    assert not amount_micros, "the caller looked at the credit under the wallet's lock"
    ledger.post_transfers(book=book, postings=postings, now=now, batch_id=batch_id)


@transaction.atomic
def settle_from_credit(
    *, book: Book, invoice_id: UUID, amount_micros: int, batch_id: UUID, reference: str, now: datetime
) -> None:
    """Pay an open invoice, or a part of it, out of paid credit in force, under the wallet's lock.

    amount_micros: no more than is left of either. batch_id: of the transfers, so that it cannot be posted twice.
    """
    organization_id = book.wallet.organization_id
    allocate = import_string(settings.RECEIPT_ALLOCATOR)
    taken: int = allocate(
        organization_id=organization_id,
        amount_micros=amount_micros,
        batch_id=batch_id,
        first_invoice_id=invoice_id,
        now=now,
    )
    assert taken == amount_micros, "the caller looked at what is left to pay under the wallet's lock"
    pay_from_credit(
        book=book,
        amount_micros=amount_micros,
        to=AccountKind.RECEIVABLE,
        kind=TransferKind.INVOICE_PAYMENT,
        cause=f"credit-payment:{batch_id}",
        reference=reference,
        batch_id=batch_id,
        now=now,
    )
    settle_state(organization_id=organization_id, now=now)


@transaction.atomic
def give_credit(
    *,
    book: Book,
    amount_micros: int,
    funded_by: AccountKind,
    kind: TransferKind,
    source: str,
    reason: str,
    reference: str,
    now: datetime,
    first_invoice_id: UUID | None = None,
) -> CreditLot | None:
    """Give an amount to the customer: what is owed is settled first, the rest becomes paid credit, returned if any.

    first_invoice_id: the invoice that is settled before all others. Called under the wallet's lock.
    """
    batch_id = uuid7()
    settled = settle_receivable(
        book,
        amount_micros,
        funded_by=funded_by,
        batch_id=batch_id,
        kind=kind,
        receipt="credit_note",
        reason=reason,
        reference=reference,
        invoice_id=first_invoice_id,
        now=now,
    )
    if amount_micros == settled:
        return None
    return open_lot(
        book=book,
        pot=Pot.PAID,
        amount_micros=amount_micros - settled,
        effective_at=floor_hour(now),
        funded_by=funded_by,
        kind=kind,
        source=source,
        reason=reason,
        reference=reference,
        batch_id=batch_id,
        now=now,
    )
