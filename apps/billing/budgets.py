"""What each budget has spent in the running billing period, and what it will have by the end at the same pace."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection

from apps.billing import charging
from apps.billing.charging import Plan
from apps.billing.models import Budget, BudgetAction, BudgetScope
from apps.billing.usage import priced_usage, unposted
from apps.core import money, periods
from apps.organizations import services as organizations
from apps.organizations.models import BillingPeriod, Organization

# Before that, a pace says nothing about a month.
PACE_AFTER = timedelta(hours=6)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """A budget in the running period.

    forecast_micros: by the period's end, at the pace so far; None while it is too early to say.
    """

    budget: Budget
    period: BillingPeriod
    spent_micros: int
    forecast_micros: int | None

    @property
    def percent(self) -> int:
        """How much of the amount is spent, in whole percent, rounded down."""
        return max(self.spent_micros, 0) * 100 // self.budget.amount_micros

    @property
    def state(self) -> str:
        """Return within, warned (a threshold is passed) or exceeded (nothing is left)."""
        if self.spent_micros >= self.budget.amount_micros:
            return "exceeded"
        return "warned" if self.passed() else "within"

    @property
    def blocks(self) -> bool:
        """Whether new usage in its scope is blocked."""
        return self.budget.action == BudgetAction.BLOCK_NEW and self.state == "exceeded"

    def passed(self) -> list[int]:
        """Return the thresholds that the spending has reached, ascending."""
        return [
            percent
            for percent in sorted(self.budget.thresholds)
            if self.spent_micros * 100 >= self.budget.amount_micros * percent
        ]


def states(
    organization: Organization, budgets: Collection[Budget], *, plan: Plan | None = None, now: datetime
) -> list[BudgetState]:
    """Return the budgets of one organization as they stand, in the order given.

    Spending of a project or an API key is its share of each hour's amount by quantity, as statements split it.
    plan: what is not posted yet, if it is known.
    """
    if not budgets:
        return []
    period = organizations.period_containing(organization.id, now) or _without_usage(organization, now)
    spent = _spent(organization, period, plan or charging.plan_unposted(organization, now=now))
    found = []
    for budget in budgets:
        micros = sum(
            (
                amount
                for (project, credential), amount in spent.items()
                if _counts(budget, project, credential)
            ),
            Decimal(0),
        )
        whole = int(micros.to_integral_value(context=money.EXACT))
        found.append(
            BudgetState(
                budget=budget,
                period=period,
                spent_micros=whole,
                forecast_micros=_forecast(whole, period, now=now),
            )
        )
    return found


def blocking(
    organization: Organization, budgets: Collection[Budget], *, plan: Plan | None = None, now: datetime
) -> list[BudgetState]:
    """Return those of some budgets that block new usage in their scope now; see `states`."""
    able = [budget for budget in budgets if budget.action == BudgetAction.BLOCK_NEW]
    return [found for found in states(organization, able, plan=plan, now=now) if found.blocks]


def _without_usage(organization: Organization, now: datetime) -> BillingPeriod:
    """Return the running month before anything made its row; nothing can have been spent in it."""
    label = periods.label_of(now, organization.timezone)
    return BillingPeriod(
        organization=organization,
        label=label,
        starts_at=periods.month_start(label, organization.timezone),
        ends_at=periods.month_start(periods.next_label(label), organization.timezone),
    )


def _counts(budget: Budget, project_id: UUID | None, credential_id: UUID | None) -> bool:
    if budget.scope == BudgetScope.PROJECT:
        return budget.project_id == project_id
    return budget.scope == BudgetScope.ORGANIZATION or budget.credential_id == credential_id


def _forecast(spent: int, period: BillingPeriod, *, now: datetime) -> int | None:
    elapsed = now - period.starts_at
    if elapsed < PACE_AFTER:
        return None
    # In whole microseconds: a time multiplied by an amount soon passes the longest time there is.
    return spent * ((period.ends_at - period.starts_at) // _TICK) // (elapsed // _TICK)


def _spent(
    organization: Organization, period: BillingPeriod, plan: Plan
) -> dict[tuple[UUID | None, UUID | None], Decimal]:
    """Return the micros of a period by project and API key, hours not posted yet as they stand."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT used.project_id, used.credential_id,
                   sum(used.quantity / coalesce(open.quantity, charged.quantity)
                       * coalesce(open.micros, charged.amount_micros))
            FROM {priced_usage("%(start)s")}
            WHERE used.organization_id = %(organization)s AND used.hour >= %(start)s AND used.hour < %(end)s
              AND used.quantity > 0
            GROUP BY used.project_id, used.credential_id
            """,  # noqa: S608 (nothing but our own clause is put in)
            {
                "organization": organization.id,
                "start": period.starts_at,
                "end": period.ends_at,
                **unposted(plan),
            },
        )
        return {
            (project, credential): micros or Decimal(0) for project, credential, micros in cursor.fetchall()
        }


def budgets_of(organization_id: UUID) -> Sequence[Budget]:
    """Return an organization's budgets in force, the oldest first."""
    rows = Budget.objects.filter(organization_id=organization_id).in_force()
    return list(rows.select_related("project", "credential").order_by("created_at", "pk"))


def budget_row(found: BudgetState) -> dict[str, Any]:
    """Return a budget as programs read it; amounts in major units to the micro."""
    budget = found.budget
    forecast = found.forecast_micros
    return {
        "id": budget.id,
        "name": budget.name,
        "scope": budget.scope,
        "project": budget.project.slug if budget.project else None,
        "api_key": budget.credential.public_id if budget.credential else None,
        "amount": f"{money.from_micros(budget.amount_micros):f}",
        "currency": budget.currency,
        "thresholds": sorted(budget.thresholds),
        "action": budget.action,
        "period": found.period.label,
        "spent": f"{money.from_micros(found.spent_micros):f}",
        "percent": found.percent,
        "state": found.state,
        "forecast": None if forecast is None else f"{money.from_micros(forecast):f}",
        "created_at": budget.created_at,
    }
