"""The journal for bookkeeping: every document, and whatever else moved money, as balanced lines by account.

Documents are booked as they read: what a customer is asked for against revenue and tax by rate. What a customer paid
ahead and what a customer owes are one account, so paying from credit is no entry of its own; hourly usage is none
before its document. Promotional credit is a lower revenue. Amounts are whole minor units.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from itertools import chain
from operator import attrgetter
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connection
from django.db.models import CharField, Exists, F, OuterRef, Value
from django.db.models.functions import Cast, Concat

from apps.core import money
from apps.core.periods import month_start, next_label
from apps.core.spreadsheets import csv_lines, neutral
from apps.invoices.models import (
    Invoice,
    InvoiceTax,
    JournalEntry,
    JournalMonth,
    SellerAssignment,
    SellerEntity,
)
from apps.invoices.models.sellers import DEFAULT_ENTITY
from apps.invoices.parties import Seller
from apps.ledger.selectors import AccountKind, TransferKind

COLUMNS = (
    "month", "entity", "entry", "date", "document", "organization", "debit", "credit", "amount", "currency",
    "tax_code", "text",
)  # fmt: skip
CUSTOMERS, PROMO = "customers", "promo"
# Money that moves without a document; the rest is told by documents, hourly usage included.
VOUCHER_KINDS = (
    TransferKind.TOP_UP,
    TransferKind.REFUND,
    TransferKind.DISPUTE,
    TransferKind.EXPIRY,
    TransferKind.WRITE_OFF,
    TransferKind.REVERSAL,
)
_ACCOUNTS = {
    AccountKind.PAID_LOT: CUSTOMERS,
    AccountKind.RECEIVABLE: CUSTOMERS,
    AccountKind.PROMO_LOT: PROMO,
    AccountKind.PROMO_EXPENSE: PROMO,
}
_VOUCHERS_AT_ONCE = 1_000
_FURTHEST = timedelta(hours=14)  # No zone is further ahead of UTC, none further behind than 12.


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An amount from one account to another, in minor units and never below zero.

    debit_code, credit_code: what bookkeeping called the accounts when the month was locked; empty before.
    """

    debit: str
    credit: str
    minor: int
    tax_code: str = ""
    debit_code: str = ""
    credit_code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One document or voucher. number: None while its month is not locked."""

    source: str
    organization_id: UUID
    organization: str
    entity: str
    date: date
    document: str
    currency: str
    text: str
    lines: tuple[Line, ...]
    number: int | None = None


def pending_entries(label: str) -> list[Entry]:
    """Return what no locked month holds and is dated up to the end of a month, numbered by nobody yet.

    A day is that of the selling entity. By entity, date and document.
    """
    return sorted(_pending(label), key=attrgetter("entity", "date", "document", "source"))


def _pending(label: str) -> Iterator[Entry]:
    limit = month_start(next_label(label), "UTC") + _FURTHEST
    last = month_start(next_label(label), "UTC").date()
    found = chain(_documents(limit), _vouchers(_sellers(), limit))
    return (entry for entry in found if entry.date < last)


def locked_entries(month: JournalMonth) -> Iterator[Entry]:
    """Yield the entries of a locked month as they were exported, by entity and number."""
    for row in month.entries.order_by("entity", "number").iterator(chunk_size=1_000):
        yield Entry(
            source=row.source,
            organization_id=row.organization_id,
            organization=row.organization_slug,
            entity=row.entity,
            date=row.date,
            document=row.document,
            currency=row.currency,
            text=row.text,
            lines=tuple(Line(**line) for line in row.lines),
            number=row.number,
        )


def entries_of(label: str) -> Iterable[Entry]:
    """Return the journal of a month: as locked, or what locking it now would hold."""
    month = JournalMonth.objects.filter(label=label, unlocked_at=None).first()
    return locked_entries(month) if month else pending_entries(label)


def numbered(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield entries with their numbers, from one within each entity."""
    counters: dict[str, int] = defaultdict(int)
    for entry in entries:
        counters[entry.entity] += 1
        yield replace(entry, number=counters[entry.entity])


def as_row(entry: Entry, month: JournalMonth) -> JournalEntry:
    """Return an entry as the unsaved row of a locked month."""
    assert entry.number is not None, "locking numbers entries"
    same = ("organization_id", "entity", "number", "source", "date", "document", "currency", "text")
    return JournalEntry(
        month=month,
        organization_slug=entry.organization,
        lines=[
            asdict(replace(line, debit_code=account_code(line.debit), credit_code=account_code(line.credit)))
            for line in entry.lines
        ],
        **{name: getattr(entry, name) for name in same},
    )


def as_csv(label: str, entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the lines of a month as CSV; accounts by the operator's numbers where there are any."""
    return csv_lines(chain([COLUMNS], _rows(label, entries)))


def _rows(label: str, entries: Iterable[Entry]) -> Iterator[tuple[object, ...]]:
    for entry in entries:
        number = "" if entry.number is None else f"{label}/{entry.number}"
        head = (
            label, entry.entity, number, entry.date.isoformat(), neutral(entry.document), entry.organization,
        )  # fmt: skip
        for line in entry.lines:
            amount = f"{money.from_minor(line.minor, entry.currency):f}"
            accounts = (
                line.debit_code or account_code(line.debit),
                line.credit_code or account_code(line.credit),
            )
            yield (*head, *accounts, amount, entry.currency, line.tax_code, neutral(entry.text))


def account_code(account: str) -> str:
    """Return what bookkeeping calls one of our accounts."""
    return str(settings.JOURNAL_ACCOUNTS.get(account, account))


def _sellers() -> dict[UUID | None, tuple[str, str]]:
    """Return code and zone of who sells to each organization; under None, to all others."""
    default = SellerEntity.objects.filter(code=DEFAULT_ENTITY).first()
    found: dict[UUID | None, tuple[str, str]] = {
        None: (DEFAULT_ENTITY, default.timezone if default else "UTC")
    }
    for row in SellerAssignment.objects.select_related("seller"):
        found[row.organization_id] = (row.seller_id, row.seller.timezone)
    return found


def _documents(limit: datetime) -> Iterator[Entry]:
    held = JournalEntry.objects.filter(
        source=Concat(Value("document:"), Cast(OuterRef("pk"), CharField())), is_released=False
    )
    documents = (
        Invoice.objects.final()
        .filter(~Exists(held), finalized_at__lt=limit)
        .select_related("organization", "period")
        .prefetch_related("taxes")
    )
    for document in documents.order_by("pk").iterator(chunk_size=500):
        assert document.finalized_at is not None, "it is final"
        taxes = sorted(document.taxes.all(), key=attrgetter("position"))
        yield Entry(
            source=f"document:{document.pk}",
            organization_id=document.organization_id,
            organization=document.organization.slug,
            entity=document.entity,
            date=document.finalized_at.astimezone(
                ZoneInfo(Seller.from_json(document.seller).timezone)
            ).date(),
            document=str(document.number),
            currency=document.currency,
            text=f"{document.get_kind_display()} {document.period.label}, {document.organization.name}"[:300],
            lines=tuple(line for tax in taxes for line in _tax_lines(tax)),
        )


def _tax_lines(tax: InvoiceTax) -> Iterator[Line]:
    """Yield a rate group's net against revenue, and its tax; a net of zero too, so that no document is missing."""
    code = "-".join(part for part in (tax.category, tax.country, money.plain(tax.percent)) if part)
    yield _line(CUSTOMERS, AccountKind.REVENUE, tax.base_minor, code)
    if tax.tax_minor:
        yield _line(CUSTOMERS, AccountKind.TAX_PAYABLE, tax.tax_minor, code)


def _line(debit: str, credit: str, minor: int, tax_code: str = "") -> Line:
    if minor < 0:
        debit, credit = credit, debit
    return Line(debit=str(debit), credit=str(credit), minor=abs(minor), tax_code=tax_code)


def _vouchers(sellers: dict[UUID | None, tuple[str, str]], limit: datetime) -> Iterator[Entry]:
    """Yield what moved money without a document, a batch of transfers each; moves within an account are none."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(
            """
            SELECT moved.batch_id, moved.organization_id, organization.slug, organization.name, moved.currency,
                   min(moved.kind), min(moved.reason), min(moved.reference), min(moved.occurred_at),
                   array_agg(ARRAY[debit.kind, credit.kind] ORDER BY moved.id),
                   array_agg(moved.amount_micros ORDER BY moved.id)
            FROM ledger_transfer moved
            JOIN ledger_account debit ON debit.id = moved.debit_id
            JOIN ledger_account credit ON credit.id = moved.credit_id
            JOIN organizations_organization organization ON organization.id = moved.organization_id
            WHERE moved.kind = ANY(%s) AND moved.occurred_at < %s
                AND NOT (debit.kind = ANY(%s) AND credit.kind = ANY(%s))
                AND NOT (debit.kind = ANY(%s) AND credit.kind = ANY(%s))
                AND NOT EXISTS (
                    SELECT FROM invoices_journalentry held
                    WHERE held.source = 'voucher:' || moved.batch_id AND NOT held.is_released
                )
            GROUP BY moved.batch_id, moved.organization_id, organization.slug, organization.name, moved.currency
            """,
            [list(map(str, VOUCHER_KINDS)), limit, *(2 * [_named(CUSTOMERS)]), *(2 * [_named(PROMO)])],
        )
        while rows := cursor.fetchmany(_VOUCHERS_AT_ONCE):
            yield from _voucher_entries(rows, sellers)


def _voucher_entries(
    rows: Sequence[tuple[Any, ...]], sellers: dict[UUID | None, tuple[str, str]]
) -> Iterator[Entry]:
    numbers = _numbers_of({row[7] for row in rows})
    for (
        batch_id,
        organization_id,
        slug,
        name,
        currency,
        kind,
        reason,
        reference,
        moment,
        accounts,
        amounts,
    ) in rows:
        lines = _voucher_lines(zip(accounts, amounts, strict=True), currency)
        if not lines:
            continue
        entity, zone = sellers.get(organization_id, sellers[None])
        label = str(TransferKind(kind).label)
        yield Entry(
            source=f"voucher:{batch_id}",
            organization_id=organization_id,
            organization=slug,
            entity=entity,
            date=moment.astimezone(ZoneInfo(zone)).date(),
            document=numbers.get(reference) or str(batch_id),
            currency=currency,
            text=": ".join(part for part in (f"{label}, {name}", reason) if part)[:300],
            lines=tuple(lines),
        )


def _voucher_lines(moved: Iterable[tuple[list[str], int]], currency: str) -> list[Line]:
    """Return the sums between each two accounts in minor units, rounded half up."""
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for (debit, credit), micros in moved:
        one, other = (str(_ACCOUNTS.get(AccountKind(kind), kind)) for kind in (debit, credit))
        if (other, one) in sums:
            sums[other, one] -= micros
        else:
            sums[one, other] += micros
    minors = {pair: money.round_micros_to_minor(micros, currency) for pair, micros in sums.items()}
    return [_line(*pair, minor) for pair, minor in minors.items() if minor]


def _named(account: str) -> list[str]:
    return [str(kind) for kind, name in _ACCOUNTS.items() if name == account]


def _numbers_of(references: set[str]) -> dict[str, str]:
    """Return the numbers of those references that are documents."""
    ids = [reference for reference in references if len(reference) == 36]
    rows = Invoice.objects.annotate(text_id=Cast(F("id"), CharField())).filter(text_id__in=ids)
    return {str(pk): str(number) for pk, number in rows.values_list("pk", "number") if number}


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How many entries a month has, and debits − credits of each account by currency, in minor units."""

    entries: int
    minors: dict[tuple[str, str], int]


def totals_of(label: str) -> Totals:
    """Return the totals of a month's journal, holding none of its entries; those of a currency add up to zero."""
    month = JournalMonth.objects.filter(label=label, unlocked_at=None).first()
    return _locked_totals(month) if month else _totals(_pending(label))


def _totals(entries: Iterable[Entry]) -> Totals:
    sums: dict[tuple[str, str], int] = defaultdict(int)
    count = 0
    for entry in entries:
        count += 1
        for line in entry.lines:
            sums[entry.currency, line.debit] += line.minor
            sums[entry.currency, line.credit] -= line.minor
    return Totals(entries=count, minors=dict(sums))


def _locked_totals(month: JournalMonth) -> Totals:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT entry.currency, side.account, sum(side.minor) FROM invoices_journalentry entry
            CROSS JOIN jsonb_to_recordset(entry.lines) AS line (debit text, credit text, minor bigint)
            CROSS JOIN LATERAL (
                VALUES (line.debit, line.minor), (line.credit, -line.minor)
            ) AS side (account, minor)
            WHERE entry.month_id = %s GROUP BY entry.currency, side.account
            """,
            [month.pk],
        )
        minors = {(currency, account): int(minor) for currency, account, minor in cursor}
    return Totals(entries=month.entries.count(), minors=minors)
