"""What the first page of an organization shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from apps.billing import explorer, usage
from apps.billing import selectors as billing
from apps.billing.burning import LotState
from apps.billing.charging import Plan
from apps.billing.models import SpendGuard
from apps.billing.selectors import Balance
from apps.billing.usage import UsageQuery
from apps.core import periods
from apps.core.charts import Chart, Column, stacked
from apps.metering.selectors import ResourceUsage
from apps.organizations.models import Organization


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How an organization stands. spent: of the running period in micros, the open hour included.

    charged: every SKU ever charged, with what of the period is posted. plan: what is not posted yet. guard: what staff
    allow beyond the credit. ending: credit in force that has an end, the first to end first.
    """

    balance: Balance
    spent_micros: int
    running: Sequence[ResourceUsage]
    gpus: Decimal
    charged: Mapping[str, int]
    plan: Plan
    guard: SpendGuard
    ending: Sequence[LotState]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one SKU or project cost: this month, and last month up to the same moment. colour: 0 for none."""

    name: str
    gpu_hours: Decimal
    amount: Decimal
    before: Decimal
    colour: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """The spend of a month by day, SKU and project, beside the month before. Amounts are major units."""

    chart: Chart
    by_sku: Sequence[Share]
    by_project: Sequence[Share]
    amount: Decimal
    before: Decimal
    columns: Sequence[Column]


def standing(organization: Organization, *, now: datetime) -> Standing:
    """Return how an organization stands at a moment."""
    found = billing.assess(organization, now=now)
    charged = billing.charged_micros(organization.id, now=now)
    plan = found.standing.plan
    return Standing(
        balance=found.balance,
        spent_micros=sum(charged.values()) + _unposted_micros(plan, now),
        running=found.running,
        gpus=sum((resource.gpus or Decimal(0) for resource in found.running), Decimal(0)),
        charged=charged,
        plan=plan,
        guard=found.standing.guard,
        ending=sorted(
            (lot for lot in found.standing.in_force if lot.expires_at and lot.balance_micros),
            key=lambda lot: (lot.expires_at, lot.id),
        ),
    )


def _unposted_micros(plan: Plan, now: datetime) -> int:
    """Return what of the running period is not posted yet; hours of an earlier one may wait as well."""
    running = {period.id for period in plan.periods if period.starts_at <= now < period.ends_at}
    return sum(delta.micros for delta in plan.deltas if delta.plan.key.period_id in running)


def spend(organization: Organization, stands: Standing, *, now: datetime) -> Spend:
    """Return what the running month cost so far, against the same stretch of the month before."""
    zone = organization.timezone
    label = periods.label_of(now, zone)
    start = periods.month_start(label, zone)
    earlier = periods.month_start(periods.previous_label(label), zone)
    # The month before may be shorter than this one is already.
    until = min(earlier + (now - start), start)
    query = UsageQuery(
        start=earlier, end=now, group_by=("sku", "project"), interval="day", left_out=(until, start)
    )
    found = usage.usage_with_amounts(organization, query, now=now, plan=stands.plan)
    rows = [row for row in found if row["start"] >= start]
    before = [row for row in found if row["start"] < start]
    colours = explorer.sku_colours(stands.charged, stands.plan)
    columns = explorer.days_of(rows, start=start, now=now)
    return Spend(
        chart=stacked(columns, colours, unit=organization.currency),
        by_sku=_shares(rows, before, "sku", colours),
        by_project=_shares(rows, before, "project", {}),
        amount=_total(rows),
        before=_total(before),
        columns=[column for column in columns if column.amounts],
    )


def _shares(
    rows: Sequence[Mapping[str, object]],
    before: Sequence[Mapping[str, object]],
    column: str,
    colours: Mapping[str, int],
) -> list[Share]:
    """Return the shares by one column, the dearest first; usage of no project is named by the template."""
    names = {str(row[column] or "") for row in (*rows, *before)}
    found = []
    for name in names:
        own = [row for row in rows if (row[column] or "") == name]
        found.append(
            Share(
                name=name,
                gpu_hours=sum((Decimal(str(row["gpu_hours"] or 0)) for row in own), Decimal(0)),
                amount=_total(own),
                before=_total([row for row in before if (row[column] or "") == name]),
                colour=colours.get(name, 0),
            )
        )
    return sorted(found, key=lambda share: (-share.amount, share.name))


def _total(rows: Sequence[Mapping[str, object]]) -> Decimal:
    return sum((Decimal(str(row["amount"])) for row in rows), Decimal(0))
