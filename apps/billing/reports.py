"""What became of all customers' credit, month by month: what finance defers, earns and writes off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import Count, Sum
from django.db.models.functions import TruncMonth
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.billing.models import CreditLot
from apps.core.periods import label_of, month_start, previous_label
from apps.ledger import selectors as ledger
from apps.ledger.services import TransferKind

MONTHS = 12
# The columns between the opening and the closing balance, and what moves each.
COLUMNS: Mapping[str, tuple[Promise, frozenset[TransferKind]]] = {
    "came_in": (_("Came in"), frozenset({TransferKind.TOP_UP, TransferKind.GRANT})),
    "used": (_("Used"), frozenset({TransferKind.USAGE, TransferKind.USAGE_REVERSAL})),
    "tax": (_("Tax"), frozenset({TransferKind.TAX})),
    "paid_invoices": (_("Paid invoices"), frozenset({TransferKind.INVOICE_PAYMENT})),
    "credit_notes": (_("Credit notes"), frozenset({TransferKind.CREDIT_NOTE})),
    "refunded": (_("Refunds, disputes"), frozenset({TransferKind.REFUND, TransferKind.DISPUTE})),
    "expired": (_("Expired"), frozenset({TransferKind.EXPIRY})),
    "corrected": (
        _("Taken back"),
        frozenset({TransferKind.REVERSAL, TransferKind.INVOICE, TransferKind.WRITE_OFF}),
    ),
}
_COLUMN_OF = {kind: column for column, (_label, kinds) in COLUMNS.items() for kind in kinds}


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditMonth:
    """A calendar month (UTC) of one pot in one currency; micros, what leaves the credit is below zero.

    moved: by the columns' names. opening + what moved = closing.
    """

    label: str
    currency: str
    pot: str
    opening_micros: int
    moved: Mapping[str, int]
    closing_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditEnd:
    """Credit that is left of lots which end in a calendar month (UTC)."""

    label: str
    currency: str
    pot: str
    lots: int
    micros: int


def credit_by_month(*, now: datetime) -> list[CreditMonth]:
    """Return the last twelve months of all organizations together, newest first, of every pot that ever had credit.

    A transfer belongs to the month in which it was posted, so a month that is over never changes: what late usage costs
    stands in the month in which it came in. Months in which a pot had nothing are left out. Two queries.
    """
    labels = [label_of(now, "UTC")]
    while len(labels) < MONTHS:
        labels.append(previous_label(labels[-1]))
    moved: dict[tuple[str, str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(COLUMNS, 0))
    for row in ledger.credit_movements(since=month_start(labels[-1], "UTC")):
        place = f"{row['month']:%Y-%m}", row["currency"], row["pot"]
        moved[place][_COLUMN_OF[TransferKind(row["kind"])]] += int(row["micros"])
    found = []
    for currency, pot, balance in ledger.credit_totals():
        closing = balance
        for label in labels:
            columns = moved[label, currency, pot]
            opening = closing - sum(columns.values())
            if opening or closing or any(columns.values()):
                found.append(
                    CreditMonth(
                        label=label,
                        currency=currency,
                        pot=pot,
                        opening_micros=opening,
                        moved=columns,
                        closing_micros=closing,
                    )
                )
            closing = opening
    return found


def credit_ending(*, now: datetime) -> Sequence[CreditEnd]:
    """Return what is left of the credit that has an end, by the month in which it ends, the next first. One query."""
    rows = (
        CreditLot.objects.filter(expires_at__gt=now, account__balance_micros__gt=0)
        .annotate(month=TruncMonth("expires_at", tzinfo=UTC))
        .values("month", "currency", "pot")
        .annotate(lots=Count("pk"), micros=Sum("account__balance_micros"))
        .order_by("month", "currency", "pot")
    )
    return [
        CreditEnd(
            label=f"{row['month']:%Y-%m}",
            currency=row["currency"],
            pot=row["pot"],
            lots=row["lots"],
            micros=int(row["micros"]),
        )
        for row in rows
    ]
