"""Usage as the explorer shows it: by day or hour or month as bars, by group as a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from operator import itemgetter

from django.db import connection
from django.utils import timezone

from apps.billing import charging, selectors
from apps.billing.charging import Plan
from apps.billing.usage import UsageQuery, cells
from apps.core import money
from apps.core.charts import COLOURS, Chart, Column, colours_of, stacked
from apps.organizations.models import Organization

SHOWN_ROWS_MAX = 200
OTHERS = "…"

type _Amounts = dict[datetime, dict[str, Decimal]]


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


def sku_colours(charged: Iterable[str], plan: Plan) -> dict[str, int]:
    """Return the colour of every SKU that an organization ever used, the same on each page.

    charged: every SKU of its charges; plan: what is not posted yet, for what first ran within the hour has no charge.
    """
    fresh = {one.key.sku for one in plan.keys if any(row.quantity for row in one.hours.values())}
    return colours_of(sorted({*charged, *fresh}))


def explore(
    organization: Organization, *, start: datetime, end: datetime, group: str, interval: str, now: datetime
) -> Exploration:
    """Return usage in a half-open range by one group and interval, with amounts in major units."""
    query = UsageQuery(start=start, end=min(end, now), group_by=(group,), interval=interval)
    plan = charging.plan_unposted(organization, now=now)
    if group == "sku":
        rows, amounts = _sums(organization, query, plan, series_max=None)
        colours = sku_colours(selectors.charged_micros(organization.id, now=now), plan)
    else:
        # The dearest get colours, the rest one bar on top.
        rows, amounts = _sums(organization, query, plan, series_max=COLOURS - 1)
        drawn = {name for of_step in amounts.values() for name in of_step}
        named = dict.fromkeys(row.name for row in rows if row.name in drawn)
        colours = {name: place for place, name in enumerate(named, start=1)} | {OTHERS: COLOURS}
    columns = list(_columns(amounts, query, interval=interval, now=now))
    return Exploration(
        chart=stacked(columns, colours, unit=organization.currency),
        rows=[_coloured(row, colours) for row in rows[:SHOWN_ROWS_MAX]],
        hidden=max(0, len(rows) - SHOWN_ROWS_MAX),
        amount=sum((row.amount for row in rows), Decimal(0)),
        columns=[column for column in columns if column.amounts],
    )


def days_of(days: Mapping[datetime, Mapping[str, int]], *, start: datetime, now: datetime) -> list[Column]:
    """Return a column for each day from a moment to now, of micros by the start of a day and by SKU."""
    amounts = {
        day: {sku: money.from_micros(micros) for sku, micros in of_day.items()}
        for day, of_day in days.items()
    }
    query = UsageQuery(start=start, end=now, group_by=("sku",), interval="day")
    return list(_columns(amounts, query, interval="day", now=now))


def _sums(
    organization: Organization, query: UsageQuery, plan: Plan, *, series_max: int | None
) -> tuple[list[Row], _Amounts]:
    """Return the sums of each group and meter, the dearest first, and the amounts by interval and group.

    series_max: so many of the dearest groups with a name are told apart by interval, the others added up; None: all.
    Each cell is rounded as the file has it before it is added up.
    """
    sql, parameters = cells(organization, query, plan)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH cells AS MATERIALIZED (
                SELECT start, meter, coalesce(name, '') AS name, round(quantity / unit, 6) AS quantity,
                       round(micros) AS micros, round(unpriced / unit, 6) AS unpriced
                FROM ({sql}) AS cell (start, meter, name, quantity, micros, unpriced, unit)
            ), sums AS MATERIALIZED (
                SELECT name, meter, sum(quantity) AS quantity, sum(micros) AS micros, sum(unpriced) AS unpriced
                FROM cells GROUP BY name, meter
            ), series AS (
                SELECT name FROM sums WHERE name <> '' OR %(series_max)s::int IS NULL
                ORDER BY micros DESC, name COLLATE "C", meter COLLATE "C" LIMIT %(series_max)s
            )
            SELECT NULL, name, meter, quantity, micros, unpriced FROM sums
            UNION ALL
            SELECT start, CASE WHEN name IN (SELECT name FROM series) THEN name ELSE %(others)s END,
                   NULL, NULL, sum(micros), NULL
            FROM cells GROUP BY 1, 2
            """,  # noqa: S608 (nothing but our own clause is put in)
            parameters | {"series_max": series_max, "others": OTHERS},
        )
        found = cursor.fetchall()
    rows: list[Row] = []
    amounts: _Amounts = defaultdict(dict)
    for start, name, meter, quantity, micros, unpriced in sorted(found, key=itemgetter(1)):
        amount = money.from_micros(int(micros))
        if start is None:
            row = Row(
                name=name, meter=meter, quantity=quantity, amount=amount, is_unpriced=unpriced > 0, colour=0
            )
            rows.append(row)
        else:
            amounts[start][name] = amount
    return sorted(rows, key=lambda row: (-row.amount, row.name, row.meter)), amounts


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
    amounts: Mapping[datetime, Mapping[str, Decimal]], query: UsageQuery, *, interval: str, now: datetime
) -> Iterator[Column]:
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
