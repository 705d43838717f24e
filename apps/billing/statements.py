"""The statement: an organization's transfers as the customer sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate
from typing import Any, Self
from zoneinfo import ZoneInfo

from django.db.models import BigIntegerField, Case, Count, F, Min, Q, Sum, Value, When
from django.db.models.functions import TruncDay, TruncMonth
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core import money
from apps.core.errors import InvalidRequest
from apps.core.moments import parse_moment
from apps.core.periods import month_start, next_label, previous_label
from apps.ledger.selectors import AccountKind, Transfer, transfers_of
from apps.ledger.services import TransferKind
from apps.organizations.models import Organization

POTS = ("paid", "promo", "receivable")
GROUPS = ("kind", "pot", "day", "month")
_POT_OF = {AccountKind.PAID_LOT: "paid", AccountKind.PROMO_LOT: "promo", AccountKind.RECEIVABLE: "receivable"}
_POT_LABELS = {"paid": _("Paid credit"), "promo": _("Promotional credit"), "receivable": _("Owed")}
_USAGE_KINDS = (TransferKind.USAGE, TransferKind.USAGE_REVERSAL)
_IN, _OUT = Q(credit__kind__in=list(_POT_OF)), Q(debit__kind__in=list(_POT_OF))
# The customer's account that a transfer touches, and its amount from the customer's side; between two of their own
# accounts nothing comes or goes.
_OWN = Case(When(_IN, then=F("credit__kind")), default=F("debit__kind"))
_SIGNED = Case(
    When(_IN & _OUT, then=Value(0)),
    When(_IN, then=F("amount_micros")),
    default=-F("amount_micros"),
    output_field=BigIntegerField(),
)


def transaction_row(transfer: Transfer) -> dict[str, Any]:
    """Return one transfer from the customer's side: positive is more credit or less debt, in major units."""
    incoming = transfer.credit.kind in _POT_OF
    pot = _POT_OF[AccountKind(transfer.credit.kind if incoming else transfer.debit.kind)]
    micros = transfer.amount_micros if incoming else -transfer.amount_micros
    return {
        "id": transfer.id,
        "kind": transfer.kind,
        "amount": f"{money.from_micros(micros):f}",
        "currency": transfer.currency,
        "pot": pot,
        "reason": transfer.reason,
        "reference": transfer.reference,
        "occurred_at": transfer.occurred_at,
        "created_at": transfer.created_at,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateQuery:
    """What the statement is added up by, over a half-open range of time."""

    group_by: str
    occurred_from: datetime | None
    occurred_to: datetime | None

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> Self:
        """Return the query that a query string says, or raise InvalidRequest."""
        unknown = set(parameters) - {"group_by", "occurred_from", "occurred_to"}
        group_by = parameters.get("group_by", "")
        if unknown or group_by not in GROUPS:
            raise InvalidRequest(
                _now("Give group_by as one of %(groups)s, with occurred_from and occurred_to if wanted.")
                % {"groups": ", ".join(GROUPS)},
                parameters=sorted(unknown),
            )
        return cls(
            group_by=group_by,
            occurred_from=_moment(parameters, "occurred_from"),
            occurred_to=_moment(parameters, "occurred_to"),
        )


def aggregate(organization: Organization, query: AggregateQuery) -> list[dict[str, Any]]:
    """Return the statement's signed sums by group, in the group's order."""
    transfers = transfers_of(organization.id).on_statement()
    if query.occurred_from:
        transfers = transfers.filter(occurred_at__gte=query.occurred_from)
    if query.occurred_to:
        transfers = transfers.filter(occurred_at__lt=query.occurred_to)
    zone = ZoneInfo(organization.timezone)
    groups = {
        "kind": F("kind"),
        "pot": Case(*(When(own=kind, then=Value(pot)) for kind, pot in _POT_OF.items())),
        "day": TruncDay("occurred_at", tzinfo=zone),
        "month": TruncMonth("occurred_at", tzinfo=zone),
    }
    rows = (
        transfers.annotate(own=_OWN)
        .annotate(group=groups[query.group_by])
        .order_by("group")
        .values("group")
        .annotate(
            micros=Sum(_SIGNED),
            count=Count("id"),
        )
    )
    formats = {"day": "%Y-%m-%d", "month": "%Y-%m"}
    return [
        {
            "group": row["group"].strftime(formats[query.group_by])
            if query.group_by in formats
            else row["group"],
            "amount": f"{money.from_micros(int(row['micros'])):f}",
            "count": row["count"],
        }
        for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """One line of a statement: a transfer, or all usage of a day that one pot paid, at the end of that day.

    at: the transfer's moment, or the start of the day. micros: positive is more credit or less debt.
    balance_micros: credit less what is owed, after this line. transfers: how many it adds up; reference: the id of the
    one that it is.
    """

    at: datetime
    kind: str
    pot: str
    micros: int
    balance_micros: int = 0
    is_day: bool = False
    reason: str = ""
    reference: str = ""
    transfers: int = 1

    @property
    def kind_label(self) -> str:
        return str(TransferKind(self.kind).label)

    @property
    def pot_label(self) -> str:
        return str(_POT_LABELS[self.pot])


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A calendar month of an organization, in its time zone; lines in the order of their moments.

    earlier, later: the labels of the months before and after, where there is anything to see.
    """

    label: str
    starts_at: datetime
    opening_micros: int
    closing_micros: int
    lines: Sequence[StatementLine]
    earlier: str
    later: str


def statement(organization: Organization, label: str, *, now: datetime) -> Statement:
    """Return the statement of a month, with a running balance: every line's is the one before it and its amount.

    A month may have a hundred thousand hours of usage, so these are added up by day and pot. Three queries.
    """
    zone = organization.timezone
    start, end = month_start(label, zone), month_start(next_label(label), zone)
    transfers = transfers_of(organization.id).on_statement().order_by()
    signed = transfers.annotate(signed=_SIGNED, own=_OWN)
    before = transfers.filter(occurred_at__lt=start).aggregate(
        micros=Sum(_SIGNED, default=0), first=Min("occurred_at")
    )
    month = signed.filter(occurred_at__gte=start, occurred_at__lt=end)
    days = (
        month.filter(kind__in=_USAGE_KINDS)
        .annotate(day=TruncDay("occurred_at", tzinfo=ZoneInfo(zone)))
        .values("day", "kind", "own")
        .annotate(micros=Sum("signed"), count=Count("pk"))
    )
    lines = [
        StatementLine(
            at=row["day"],
            is_day=True,
            kind=row["kind"],
            pot=_POT_OF[AccountKind(row["own"])],
            micros=int(row["micros"]),
            transfers=row["count"],
        )
        for row in days
    ]
    lines += [
        StatementLine(
            at=row["occurred_at"],
            kind=row["kind"],
            pot=_POT_OF[AccountKind(row["own"])],
            micros=int(row["signed"]),
            reason=row["reason"],
            reference=str(row["id"]),
        )
        for row in month.exclude(kind__in=_USAGE_KINDS).values(
            "id", "occurred_at", "kind", "own", "signed", "reason"
        )
    ]
    lines.sort(key=lambda one: (_day_of(one.at, zone), one.is_day, one.at, one.kind, one.pot, one.reference))
    opening = int(before["micros"])
    balances = list(accumulate((one.micros for one in lines), initial=opening))
    return Statement(
        label=label,
        starts_at=start,
        opening_micros=opening,
        closing_micros=balances[-1],
        lines=[
            replace(one, balance_micros=balance) for one, balance in zip(lines, balances[1:], strict=True)
        ],
        earlier=previous_label(label) if before["first"] else "",
        later=next_label(label) if end <= now else "",
    )


def _day_of(moment: datetime, zone: str) -> datetime:
    return moment.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0)


def _moment(parameters: Mapping[str, str], name: str) -> datetime | None:
    text = parameters.get(name)
    if text is None:
        return None
    try:
        return parse_moment(text)
    except ValueError:
        message = _now("`%(name)s` is a moment such as 2026-05-01T00:00:00Z.") % {"name": name}
        raise InvalidRequest(message, parameter=name) from None
