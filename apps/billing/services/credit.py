"""Credit comes in, and goes when it expires; payments settle what is owed before they become credit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import cast
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.billing.models import AMOUNT_MICROS_MAX, BillingProgress, CreditLot, Pot
from apps.billing.services.guarding import settle_state
from apps.core.actor import Actor
from apps.core.errors import Conflict, FieldError, ValidationFailed
from apps.core.ids import uuid7
from apps.core.money import plain_micros
from apps.core.periods import floor_hour, is_whole_hour
from apps.ledger import selectors as ledger_balances
from apps.ledger import services as ledger
from apps.ledger.services import AccountKind, Book, Posting, TransferKind
from apps.organizations.models import Organization
from apps.outbox import services as outbox

PRIORITY_DEFAULT = 50


class InvalidExpiry(ValidationFailed):
    """Credit must expire on a whole UTC hour in the future."""


class AlreadyGranted(Conflict):
    """The same form was sent twice."""

    code = "credit_already_granted"
    default_message = _("This credit was granted already.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What became of credit that came in: the part that settled debts, and the lot that the rest is, if any."""

    settled_micros: int
    lot: CreditLot | None


@transaction.atomic
def grant_credit(
    *,
    actor: Actor,
    organization_id: UUID,
    amount_micros: int,
    pot: Pot,
    reason: str,
    now: datetime,
    expires_at: datetime | None = None,
    priority: int = PRIORITY_DEFAULT,
    source: str = "grant",
    reference: str = "",
    attempt_id: UUID | None = None,
) -> Grant:
    """Add credit to an organization and return what became of it.

    Paid credit settles the receivable first, the oldest open invoice before usage that is not invoiced yet; only the
    rest becomes a lot. Promotional credit always becomes a lot. A lot takes effect with the current UTC hour.
    attempt_id: of the form that asks for it, which takes effect once.
    Raises InvalidExpiry unless `expires_at` is a later whole UTC hour, ValidationFailed for a zero amount,
    AlreadyGranted for an attempt that was made before.
    """
    _check_grant(amount_micros=amount_micros, priority=priority, expires_at=expires_at, now=now)
    organization = Organization.objects.get(pk=organization_id)
    book = ledger.open_book(organization_id=organization_id, currency=organization.currency, now=now)
    batch_id = attempt_id or uuid7()
    if attempt_id and ledger_balances.transfers_of(organization_id).filter(batch_id=batch_id).exists():
        raise AlreadyGranted
    settled = 0
    if pot == Pot.PAID:
        settled = settle_receivable(
            book, amount_micros, funded_by=AccountKind.BANK, batch_id=batch_id, reason=reason, now=now
        )
    lot = None
    if amount_micros > settled:
        lot = open_lot(
            book=book,
            pot=pot,
            amount_micros=amount_micros - settled,
            effective_at=floor_hour(now),
            expires_at=expires_at,
            priority=priority,
            source=source,
            reason=reason,
            reference=reference,
            funded_by=AccountKind.BANK if pot == Pot.PAID else AccountKind.PROMO_EXPENSE,
            kind=TransferKind.TOP_UP if pot == Pot.PAID else TransferKind.GRANT,
            batch_id=batch_id,
            now=now,
        )
    audit.record(
        actor=actor,
        action="credit.granted",
        target=lot or organization,
        organization_id=organization_id,
        diff={
            "amount": plain_micros(amount_micros),
            "settled": plain_micros(settled),
            "currency": organization.currency,
            "pot": str(pot),
            "expires_at": expires_at.isoformat() if expires_at else None,
        },
        reason=reason,
    )
    outbox.publish(
        "billing.credit_granted",
        {
            "organization_id": str(organization_id),
            "lot_id": str(lot.id) if lot else None,
            "pot": str(pot),
            "amount": plain_micros(amount_micros),
            "currency": organization.currency,
        },
        organization_id=organization_id,
    )
    settle_state(organization_id=organization_id, now=now)
    return Grant(settled_micros=settled, lot=lot)


def _check_grant(*, amount_micros: int, priority: int, expires_at: datetime | None, now: datetime) -> None:
    if not 0 < amount_micros <= AMOUNT_MICROS_MAX:
        message = _("Give an amount above zero, up to a billion.")
        raise ValidationFailed(fields=[FieldError(path="amount", code="range", message=str(message))])
    if not 0 <= priority <= 100:
        raise ValidationFailed(
            fields=[
                FieldError(
                    path="priority", code="range", message=str(_("Give a priority between 0 and 100."))
                )
            ]
        )
    if expires_at is not None and (expires_at <= now or not is_whole_hour(expires_at)):
        raise InvalidExpiry(
            fields=[
                FieldError(
                    path="expires_at",
                    code="whole_hour",
                    message=str(_("Credit expires on a whole UTC hour in the future.")),
                )
            ]
        )


def open_lot(
    *,
    book: Book,
    pot: Pot,
    amount_micros: int,
    effective_at: datetime,
    funded_by: AccountKind,
    kind: TransferKind,
    source: str,
    now: datetime,
    expires_at: datetime | None = None,
    priority: int = PRIORITY_DEFAULT,
    reason: str = "",
    reference: str = "",
    batch_id: UUID | None = None,
    occurred_at: datetime | None = None,
    lot_id: UUID | None = None,
) -> CreditLot:
    """Open a lot and post its amount from one of the operator's accounts; called under the wallet's lock.

    lot_id: an id that its cause already has, so that the same cause cannot open a second lot.
    """
    account_kind = AccountKind.PAID_LOT if pot == Pot.PAID else AccountKind.PROMO_LOT
    lot = CreditLot.objects.create(
        id=lot_id or uuid7(),
        organization_id=book.wallet.organization_id,
        currency=book.wallet.currency,
        account_id=ledger.open_lot_account(book=book, kind=account_kind, now=now),
        pot=pot,
        amount_micros=amount_micros,
        priority=priority,
        effective_at=effective_at,
        expires_at=expires_at,
        source=source,
        reason=reason,
        created_at=now,
    )
    posting = Posting(
        debit_id=book[funded_by],
        credit_id=lot.account_id,
        amount_micros=amount_micros,
        kind=kind,
        cause=f"lot:{lot.id}:1",
        occurred_at=occurred_at or now,
        reason=reason,
        reference=reference,
    )
    ledger.post_transfers(book=book, postings=[posting], now=now, batch_id=batch_id)
    return lot


def settle_receivable(
    book: Book,
    amount_micros: int,
    *,
    funded_by: AccountKind,
    batch_id: UUID,
    reason: str,
    now: datetime,
    reference: str = "",
    invoice_id: UUID | None = None,
    kind: TransferKind = TransferKind.TOP_UP,
    receipt: str = "payment",
) -> int:
    """Use a payment, or a credit note, for what is owed and return the micros used; called under the wallet's lock.

    Open invoices come first, of them the one that it names, then what payments taken back left owed, then usage that is
    not invoiced yet. receipt: what invoices call it, `payment` or `credit_note`.
    """
    organization_id = book.wallet.organization_id
    owed = -ledger_balances.balance_micros(organization_id, AccountKind.RECEIVABLE)
    settled = min(amount_micros, owed)
    if not settled:
        return 0
    allocate = import_string(settings.RECEIPT_ALLOCATOR)
    on_invoices: int = allocate(
        organization_id=organization_id,
        amount_micros=settled,
        batch_id=batch_id,
        kind=receipt,
        first_invoice_id=invoice_id,
        now=now,
    )
    assert 0 <= on_invoices <= settled, "no more is allocated than was paid"
    put_unbilled_receipts(organization_id=organization_id, micros=settled - on_invoices)
    posting = Posting(
        debit_id=book[funded_by],
        credit_id=book[AccountKind.RECEIVABLE],
        amount_micros=settled,
        kind=kind,
        cause=f"receipt:{batch_id}:1",
        occurred_at=now,
        reason=reason,
        reference=reference,
    )
    ledger.post_transfers(book=book, postings=[posting], now=now, batch_id=batch_id)
    return settled


@transaction.atomic
def put_unbilled_receipts(*, organization_id: UUID, micros: int) -> None:
    """Count what settles the receivable beyond open invoices: what was taken back first, then invoices to come."""
    assert micros >= 0, "what was paid ahead is used by `take_unbilled_receipts`"
    if not micros:
        return
    progress = BillingProgress.objects.get(organization_id=organization_id)
    again = min(micros, progress.taken_back_micros)
    progress.taken_back_micros -= again
    progress.unbilled_receipts_micros += micros - again
    progress.save(update_fields=["taken_back_micros", "unbilled_receipts_micros"])


def expires_to(lot: CreditLot) -> AccountKind:
    """Return the operator's account that what is left of a lot goes to at its end."""
    return AccountKind.BREAKAGE if lot.pot == Pot.PAID else AccountKind.PROMO_EXPENSE


@transaction.atomic
def expire_lots(*, book: Book, until: datetime, now: datetime) -> int:
    """Post the end of every lot that expired at or before `until` and return how many; expiry is final.

    Called once metering has passed the instant, so that usage before it was charged first. Each transfer is dated at
    the lot's own expiry.
    """
    lots = list(
        CreditLot.objects.filter(
            organization_id=book.wallet.organization_id, expires_at__lte=until, expired_at=None
        )
        .select_related("account")
        .order_by("expires_at", "id")
    )
    postings = [
        Posting(
            debit_id=lot.account_id,
            credit_id=book[expires_to(lot)],
            amount_micros=lot.account.balance_micros,
            kind=TransferKind.EXPIRY,
            cause=f"expiry:{lot.id}:1",
            occurred_at=cast("datetime", lot.expires_at),
        )
        for lot in lots
        if lot.account.balance_micros
    ]
    ledger.post_transfers(book=book, postings=postings, now=now)
    CreditLot.objects.filter(pk__in=[lot.pk for lot in lots]).update(expired_at=now)
    return len(lots)
