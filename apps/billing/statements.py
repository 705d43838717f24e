"""The statement: an organization's transfers as the customer sees them, each as what it did to a pot of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate
from typing import Any, Self
from zoneinfo import ZoneInfo

from django.db.models import Case, Count, F, Min, Sum, Value, When
from django.db.models.functions import TruncDay, TruncMonth
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core import money
from apps.core.errors import InvalidRequest
from apps.core.moments import parse_moment
from apps.core.periods import month_start, next_label, previous_label
from apps.ledger.selectors import AccountKind, Movement, movements_of
from apps.ledger.services import TransferKind
from apps.organizations.models import Organization

ACCOUNT_KINDS = {
    "paid": AccountKind.PAID_LOT,
    "promo": AccountKind.PROMO_LOT,
    "receivable": AccountKind.RECEIVABLE,
}
POTS = tuple(ACCOUNT_KINDS)
GROUPS = ("kind", "pot", "day", "month")
_POT_OF = {str(kind): pot for pot, kind in ACCOUNT_KINDS.items()}
_POT_LABELS = {"paid": _("Paid credit"), "promo": _("Promotional credit"), "receivable": _("Owed")}
_USAGE_KINDS = (TransferKind.USAGE, TransferKind.USAGE_REVERSAL)


def transaction_row(movement: Movement) -> dict[str, Any]:
    """Return one movement from the customer's side: positive is more credit or less debt, in major units."""
    return {
        "id": movement.id,
        "kind": movement.kind,
        "amount": f"{money.from_micros(movement.signed_micros):f}",
        "currency": movement.currency,
        "pot": _POT_OF[movement.account_kind],
        "reason": movement.reason,
        "reference": movement.reference,
        "occurred_at": movement.occurred_at,
        "created_at": movement.created_at,
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
    movements = movements_of(organization.id)
    if query.occurred_from:
        movements = movements.filter(occurred_at__gte=query.occurred_from)
    if query.occurred_to:
        movements = movements.filter(occurred_at__lt=query.occurred_to)
    zone = ZoneInfo(organization.timezone)
    groups = {
        "kind": F("kind"),
        "pot": Case(*(When(account_kind=kind, then=Value(pot)) for kind, pot in _POT_OF.items())),
        "day": TruncDay("occurred_at", tzinfo=zone),
        "month": TruncMonth("occurred_at", tzinfo=zone),
    }
    rows = (
        movements.annotate(group=groups[query.group_by])
        .order_by("group")
        .values("group")
        .annotate(micros=Sum("signed_micros"), count=Count("id"))
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
    """One line of a statement: a movement, or all usage of a day that one pot paid, at the end of that day.

    at: the movement's moment, or the start of the day. micros: positive is more credit or less debt.
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
        if self.kind == TransferKind.TOP_UP and self.pot == "receivable":
            return str(_("Payment"))
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
    movements = movements_of(organization.id)
    before = movements.filter(occurred_at__lt=start).aggregate(
        micros=Sum("signed_micros", default=0), first=Min("occurred_at")
    )
    month = movements.filter(occurred_at__gte=start, occurred_at__lt=end)
    days = (
        month.filter(kind__in=_USAGE_KINDS)
        .annotate(day=TruncDay("occurred_at", tzinfo=ZoneInfo(zone)))
        .values("day", "kind", "account_kind")
        .annotate(micros=Sum("signed_micros"), count=Count("pk"))
    )
    lines = [
        StatementLine(
            at=row["day"],
            is_day=True,
            kind=row["kind"],
            pot=_POT_OF[row["account_kind"]],
            micros=int(row["micros"]),
            transfers=row["count"],
        )
        for row in days
    ]
    lines += [
        StatementLine(
            at=row["occurred_at"],
            kind=row["kind"],
            pot=_POT_OF[row["account_kind"]],
            micros=row["signed_micros"],
            reason=row["reason"],
            reference=str(row["transfer_id"]),
        )
        for row in month.exclude(kind__in=_USAGE_KINDS).values(
            "transfer_id", "occurred_at", "kind", "account_kind", "signed_micros", "reason"
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
