"""Usage as the explorer shows it: by day or hour or month as bars, by group as a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Subquery, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from apps.billing.models import BillingProgress, ChargeKey
from apps.billing.usage import UsageQuery, usage_with_amounts
from apps.core.charts import COLOURS, Chart, Column, colours_of, stacked
from apps.metering.models import UsageHour
from apps.organizations.models import Organization

SHOWN_ROWS_MAX = 200
OTHERS = "…"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One group's usage of one meter over the whole range. colour: 0 for none."""

    name: str
    meter: str
    quantity: Decimal
    amount: Decimal
    is_unpriced: bool
    colour: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """What was asked for. rows: the dearest groups first, at most SHOWN_ROWS_MAX of them; hidden: how many more."""

    chart: Chart
    rows: Sequence[Row]
    hidden: int
    amount: Decimal
    columns: Sequence[Column]


def sku_colours(organization: Organization) -> dict[str, int]:
    """Return the colour of every SKU that the organization ever used, the same on each page. One query."""
    charged = ChargeKey.objects.filter(organization_id=organization.id).order_by()
    progress = BillingProgress.objects.filter(pk=organization.id).values("charged_until")
    # What first ran within the hour has no charge yet.
    since = Coalesce(Subquery(progress), Value(EPOCH))
    fresh = UsageHour.objects.filter(organization_id=organization.id, hour__gte=since)
    skus = charged.values_list("sku", flat=True).union(fresh.values_list("sku", flat=True))
    return colours_of(sorted(skus))


def explore(
    organization: Organization, *, start: datetime, end: datetime, group: str, interval: str, now: datetime
) -> Exploration:
    """Return usage in a half-open range by one group and interval, with amounts in major units."""
    query = UsageQuery(start=start, end=min(end, now), group_by=(group,), interval=interval)
    found = usage_with_amounts(organization, query, now=now) if query.start < query.end else []
    rows = _rows(found, group)
    if group == "sku":
        colours = sku_colours(organization)
    else:
        # The dearest get colours, the rest one bar on top.
        named = [row.name for row in rows if row.name][: COLOURS - 1]
        colours = {name: place + 1 for place, name in enumerate(named)} | {OTHERS: COLOURS}
    columns = list(_columns(found, group, colours, query, interval=interval, now=now))
    return Exploration(
        chart=stacked(columns, colours, unit=organization.currency),
        rows=[_coloured(row, colours) for row in rows[:SHOWN_ROWS_MAX]],
        hidden=max(0, len(rows) - SHOWN_ROWS_MAX),
        amount=sum((row.amount for row in rows), Decimal(0)),
        columns=[column for column in columns if column.amounts],
    )


def days_of(rows: Sequence[Mapping[str, Any]], *, start: datetime, now: datetime) -> list[Column]:
    """Return a column for each day from a moment to now, by SKU, of rows by day and SKU."""
    skus = {str(row["sku"]): 1 for row in rows}
    query = UsageQuery(start=start, end=now, group_by=("sku",), interval="day")
    return list(_columns(rows, "sku", skus, query, interval="day", now=now))


def _rows(found: Sequence[Mapping[str, Any]], group: str) -> list[Row]:
    sums: dict[tuple[str, str], list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0), Decimal(0)])
    for row in found:
        total = sums[str(row[group] or ""), str(row["meter"])]
        for place, column in enumerate(("quantity", "amount", "unpriced_quantity")):
            total[place] += Decimal(row[column])
    rows = [
        Row(name=name, meter=meter, quantity=quantity, amount=amount, is_unpriced=unpriced > 0, colour=0)
        for (name, meter), (quantity, amount, unpriced) in sums.items()
    ]
    return sorted(rows, key=lambda row: (-row.amount, row.name, row.meter))


def _coloured(row: Row, colours: Mapping[str, int]) -> Row:
    return Row(
        name=row.name,
        meter=row.meter,
        quantity=row.quantity,
        amount=row.amount,
        is_unpriced=row.is_unpriced,
        colour=colours.get(row.name, colours.get(OTHERS, 0)),
    )


def _columns(
    found: Sequence[Mapping[str, Any]],
    group: str,
    colours: Mapping[str, int],
    query: UsageQuery,
    *,
    interval: str,
    now: datetime,
) -> Iterator[Column]:
    amounts: dict[datetime, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for row in found:
        name = str(row[group] or "")
        amounts[row["start"]][name if name in colours else OTHERS] += Decimal(row["amount"])
    for begin, end in _steps(query.start, query.end, interval):
        local = timezone.localtime(begin)
        label = {"hour": f"{local:%H:%M}", "day": f"{local.day}", "month": f"{local:%b}"}[interval]
        title = {"hour": f"{local:%-d %b, %H:%M}", "day": f"{local:%-d %b}", "month": f"{local:%B %Y}"}
        yield Column(
            label=label,
            title=title[interval],
            amounts=dict(amounts.get(begin, {})),
            is_partial=begin <= now < end,
        )


def _steps(start: datetime, end: datetime, interval: str) -> Iterator[tuple[datetime, datetime]]:
    """Yield the intervals of the current time zone that touch a range, each as its two ends."""
    if interval == "hour":
        begin = start.replace(minute=0, second=0, microsecond=0)
        while begin < end:
            yield begin, begin + timedelta(hours=1)
            begin += timedelta(hours=1)
        return
    day = timezone.localdate(start)
    day = day.replace(day=1) if interval == "month" else day
    while (begin := _midnight(day)) < end:
        following = (
            day + timedelta(days=1) if interval == "day" else (day + timedelta(days=32)).replace(day=1)
        )
        yield begin, _midnight(following)
        day = following


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime(day.year, day.month, day.day))  # noqa: DTZ001  Made aware at once.
