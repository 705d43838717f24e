"""Every write to the books: open a wallet, lock it, post transfers, reverse them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from apps.core import binary_copy, correlation
from apps.core.errors import Conflict
from apps.core.ids import uuid7
from apps.ledger.models import LOT_KINDS, Account, AccountKind, Transfer, TransferKind, Wallet

__all__ = [
    "AccountKind",
    "Book",
    "CurrencyMismatch",
    "Posting",
    "TransferKind",
    "open_book",
    "open_lot_account",
    "post_transfers",
    "reverse_transfer",
]

# One statement for all rows moves each balance once.
_COPY_TRANSFERS = """
    COPY ledger_transfer (
        id, debit_id, credit_id, amount_micros, kind, cause, reason, reference, occurred_at, organization_id, currency,
        batch_id, created_at, correlation_id
    ) FROM STDIN (FORMAT binary)
"""
_TRANSFER_FIELDS = (14).to_bytes(2)


class CurrencyMismatch(Conflict):
    """The organization is billed in another currency; it was fixed by its first transfer."""

    code = "currency_mismatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """What to post: the ids of the debited and the credited account, and a positive amount in micros.

    cause: unique over the whole ledger and built from what made it, ending in a line number, such as
    `usage:<key>:<hour>:3:1`; posting the same cause twice is refused by the database.
    """

    debit_id: UUID
    credit_id: UUID
    amount_micros: int
    kind: TransferKind
    cause: str
    occurred_at: datetime
    reason: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Book:
    """A locked wallet with the ids of its accounts; whoever holds one holds the wallet's row lock."""

    wallet: Wallet
    accounts: Mapping[str, UUID]

    def __getitem__(self, kind: AccountKind) -> UUID:
        return self.accounts[kind]


@transaction.atomic
def open_book(*, organization_id: UUID, currency: str, now: datetime) -> Book:
    """Lock the wallet of an organization, opening its book at first use.

    Raises CurrencyMismatch when the organization already has a book in another currency. The lock lasts until the
    caller's transaction ends; take it before any other row.
    """
    wallet = Wallet.objects.select_for_update(no_key=True).filter(organization_id=organization_id).first()
    if wallet is None:
        # Two may open at once: the loser waits here for the winner's commit, then finds the row.
        Wallet.objects.bulk_create(
            [Wallet(organization_id=organization_id, currency=currency, created_at=now)],
            ignore_conflicts=True,
        )
        wallet = Wallet.objects.select_for_update(no_key=True).get(organization_id=organization_id)
    if wallet.currency != currency:
        raise CurrencyMismatch(
            _("This organization is billed in %(billed)s, not in %(asked)s.")
            % {"billed": wallet.currency, "asked": currency},
            currency=wallet.currency,
        )
    return Book(wallet, _accounts(wallet, now=now))


def _accounts(wallet: Wallet, *, now: datetime) -> dict[str, UUID]:
    """Return the one account of each kind, opening what is missing; called under the wallet's lock."""
    single = [kind for kind in AccountKind if kind not in LOT_KINDS]
    rows = Account.objects.filter(
        organization_id=wallet.organization_id, currency=wallet.currency, kind__in=single
    ).values_list("kind", "id")
    accounts: dict[str, UUID] = dict(rows)
    missing = [
        Account(organization_id=wallet.organization_id, currency=wallet.currency, kind=kind, created_at=now)
        for kind in single
        if kind not in accounts
    ]
    Account.objects.bulk_create(missing)
    accounts.update({account.kind: account.id for account in missing})
    return accounts


@transaction.atomic
def open_lot_account(*, book: Book, kind: AccountKind, now: datetime) -> UUID:
    """Open the account of a new lot of paid or promotional credit and return its id."""
    assert kind in LOT_KINDS, "only lots have an account each"
    account = Account.objects.create(
        organization_id=book.wallet.organization_id, currency=book.wallet.currency, kind=kind, created_at=now
    )
    return account.id


@transaction.atomic
def post_transfers(
    *, book: Book, postings: Sequence[Posting], now: datetime, batch_id: UUID | None = None
) -> list[UUID]:
    """Post transfers that belong together under one batch id and return their ids.

    The database moves the balances with the rows and refuses what would leave a lot below zero or a receivable
    above it (IntegrityError: the caller decided wrongly, which is a bug), and a cause that was posted before.
    """
    if not postings:
        return []
    ids = [uuid7() for _posting in postings]
    of_batch = b"".join(
        (
            binary_copy.uuid(book.wallet.organization_id),
            binary_copy.text(book.wallet.currency),
            binary_copy.uuid(batch_id or uuid7()),
            binary_copy.instant(now),
            binary_copy.text(correlation.current()),
        )
    )
    binary_copy.send(
        _COPY_TRANSFERS,
        (
            b"".join((_TRANSFER_FIELDS, binary_copy.uuid(pk), *_fields(posting), of_batch))
            for pk, posting in zip(ids, postings, strict=True)
        ),
    )
    return ids


def _fields(posting: Posting) -> tuple[bytes, ...]:
    return (
        binary_copy.uuid(posting.debit_id),
        binary_copy.uuid(posting.credit_id),
        binary_copy.bigint(posting.amount_micros),
        binary_copy.text(posting.kind),
        binary_copy.text(posting.cause),
        binary_copy.text(posting.reason),
        binary_copy.text(posting.reference),
        binary_copy.instant(posting.occurred_at),
    )


@transaction.atomic
def reverse_transfer(*, book: Book, transfer: Transfer, reason: str, now: datetime) -> Transfer:
    """Post the opposite of a transfer, once: a second reversal of the same transfer is refused by its cause."""
    assert transfer.organization_id == book.wallet.organization_id, "a transfer is reversed in its own book"
    posting = Posting(
        debit_id=transfer.credit_id,
        credit_id=transfer.debit_id,
        amount_micros=transfer.amount_micros,
        kind=TransferKind.REVERSAL,
        cause=f"reversal:{transfer.id}:1",
        occurred_at=now,
        reason=reason,
        reference=transfer.cause,
    )
    (reversal_id,) = post_transfers(book=book, postings=[posting], now=now)
    return Transfer.objects.get(pk=reversal_id)
