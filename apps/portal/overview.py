"""What the first page of an organization shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from apps.billing import explorer, spending
from apps.billing import selectors as billing
from apps.billing.burning import LotState
from apps.billing.charging import Plan
from apps.billing.models import SpendGuard
from apps.billing.selectors import Balance
from apps.billing.spending import Spent
from apps.core import money
from apps.core.charts import Chart, Column, stacked
from apps.metering.selectors import ResourceUsage
from apps.organizations.models import Organization


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How an organization stands.

    plan: what is not posted yet. guard: what staff allow beyond the credit. ending: credit in force that has an end,
    the first to end first.
    """

    balance: Balance
    running: Sequence[ResourceUsage]
    gpus: Decimal
    plan: Plan
    guard: SpendGuard
    ending: Sequence[LotState]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one SKU or project cost: this month, and last month up to the same moment. colour: 0 for none."""

    name: str
    gpu_hours: str
    amount: Decimal
    before: Decimal
    colour: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """The spend of a month by day, SKU and project, beside the month before. Amounts are major units.

    period_micros: of the running billing period, the open hour included.
    """

    period_micros: int
    chart: Chart
    by_sku: Sequence[Share]
    by_project: Sequence[Share]
    amount: Decimal
    before: Decimal
    columns: Sequence[Column]


def standing(organization: Organization, *, now: datetime) -> Standing:
    """Return how an organization stands at a moment."""
    found = billing.assess(organization, now=now)
    return Standing(
        balance=found.balance,
        running=found.running,
        gpus=sum((resource.gpus or Decimal(0) for resource in found.running), Decimal(0)),
        plan=found.standing.plan,
        guard=found.standing.guard,
        ending=sorted(
            (lot for lot in found.standing.in_force if lot.expires_at and lot.balance_micros),
            key=lambda lot: (lot.expires_at, lot.id),
        ),
    )


def spend(organization: Organization, plan: Plan, *, now: datetime) -> Spend:
    """Return what the running month cost so far, against the same stretch of the month before.

    plan: what is not posted yet.
    """
    month = spending.month_so_far(organization, plan, now=now)
    colours = explorer.sku_colours(month.skus, plan)
    columns = explorer.days_of(month.days, start=month.start, now=now)
    return Spend(
        period_micros=month.period_micros,
        chart=stacked(columns, colours, unit=organization.currency),
        by_sku=_shares(month.by_sku, colours),
        by_project=_shares(month.by_project, {}),
        amount=money.from_micros(sum(spent.micros for spent in month.by_sku.values())),
        before=money.from_micros(sum(spent.micros_before for spent in month.by_sku.values())),
        columns=[column for column in columns if column.amounts],
    )


def _shares(spent: Mapping[str, Spent], colours: Mapping[str, int]) -> list[Share]:
    """Return the shares, the dearest first; usage of no project is named by the template."""
    found = [
        Share(
            name=name,
            gpu_hours=one.gpu_hours,
            amount=money.from_micros(one.micros),
            before=money.from_micros(one.micros_before),
            colour=colours.get(name, 0),
        )
        for name, one in spent.items()
    ]
    return sorted(found, key=lambda share: (-share.amount, share.name))
