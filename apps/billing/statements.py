"""The statement: an organization's transfers as the customer sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from zoneinfo import ZoneInfo

from django.db.models import Case, Count, F, Q, Sum, Value, When
from django.db.models.functions import TruncDay, TruncMonth
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from apps.core import money
from apps.core.errors import InvalidRequest
from apps.ledger.selectors import AccountKind, Transfer, transfers_of
from apps.organizations.models import Organization

POTS = ("paid", "promo", "receivable")
GROUPS = ("kind", "pot", "day", "month")
_POT_OF = {AccountKind.PAID_LOT: "paid", AccountKind.PROMO_LOT: "promo", AccountKind.RECEIVABLE: "receivable"}


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
                _("Give group_by as one of %(groups)s, with occurred_from and occurred_to if wanted.")
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
    incoming = Q(credit__kind__in=list(_POT_OF))
    own_kind = Case(When(incoming, then=F("credit__kind")), default=F("debit__kind"))
    groups = {
        "kind": F("kind"),
        "pot": Case(*(When(own=kind, then=Value(pot)) for kind, pot in _POT_OF.items())),
        "day": TruncDay("occurred_at", tzinfo=zone),
        "month": TruncMonth("occurred_at", tzinfo=zone),
    }
    rows = (
        transfers.annotate(own=own_kind)
        .annotate(group=groups[query.group_by])
        .order_by("group")
        .values("group")
        .annotate(
            micros=Sum(Case(When(incoming, then=F("amount_micros")), default=-F("amount_micros"))),
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


def _moment(parameters: Mapping[str, str], name: str) -> datetime | None:
    text = parameters.get(name)
    if text is None:
        return None
    try:
        moment = parse_datetime(text)
    except ValueError:  # Well formed, but no day of any calendar.
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidRequest(
            _("`%(name)s` is a moment such as 2026-05-01T00:00:00Z.") % {"name": name}, parameter=name
        )
    return moment
