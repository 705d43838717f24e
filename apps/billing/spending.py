"""What an organization spent in its running month, beside the same stretch of the month before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import connection

from apps.billing import usage
from apps.billing.charging import Plan
from apps.core import money, periods
from apps.organizations.models import Organization

_IN_BOTH_MONTHS = "(hour >= %(month)s OR hour < %(until)s)"

_SUMS = f"""
    SELECT 'sku', sku, hour >= %(month)s, date_trunc('day', hour AT TIME ZONE %(zone)s) AT TIME ZONE %(zone)s,
           sum(quantity) FILTER (WHERE meter = 'gpu_hours'), sum(micros)
    FROM slot WHERE {_IN_BOTH_MONTHS} GROUP BY 2, 3, 4
    UNION ALL
    SELECT 'project', project.slug, used.hour >= %(month)s, NULL,
           sum(used.quantity) FILTER (WHERE used.meter = 'gpu_hours'), sum(used.micros)
    FROM {usage.shared_slots(["project_id"], within=_IN_BOTH_MONTHS)} used
    LEFT JOIN organizations_project project ON project.id = used.project_id GROUP BY 2, 3
    UNION ALL
    SELECT 'period', NULL, NULL, NULL, NULL, sum(micros) FROM slot WHERE hour >= %(period)s
    UNION ALL
    SELECT DISTINCT 'charged', sku, NULL::boolean, NULL::timestamptz, NULL::numeric, NULL::numeric
    FROM billing_chargekey WHERE organization_id = %(organization)s
    ORDER BY 1, 2, 3, 4
"""  # noqa: S608 (nothing but our own clauses is put in)


@dataclass(slots=True, kw_only=True)
class Spent:
    """What one SKU or project used and cost: this month, and the month before up to the same moment."""

    gpu_seconds: Decimal = Decimal(0)
    micros: int = 0
    micros_before: int = 0

    @property
    def gpu_hours(self) -> str:
        """GPU-hours of this month with six decimals."""
        return money.in_unit(self.gpu_seconds, periods.SECONDS_PER_HOUR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """The running month so far; it starts in the organization's time zone.

    period_micros: what the running billing period cost, the open hour included. skus: all that were ever charged.
    days: micros by the start of a day, then by SKU. by_project: "" for usage of none.
    """

    start: datetime
    period_micros: int
    skus: Sequence[str]
    days: Mapping[datetime, Mapping[str, int]]
    by_sku: Mapping[str, Spent]
    by_project: Mapping[str, Spent]


def month_so_far(organization: Organization, plan: Plan, *, now: datetime) -> Month:
    """Return what the running month cost so far, in one query.

    plan: what is not posted yet. A project has its share of what an hour of a SKU costs, rounded to micros once.
    """
    zone = organization.timezone
    label = periods.label_of(now, zone)
    start = periods.month_start(label, zone)
    earlier = periods.month_start(periods.previous_label(label), zone)
    period = next((one for one in plan.periods if one.starts_at <= now < one.ends_at), None)
    ctes, parameters = usage.slots(organization, plan, start=earlier, end=now)
    parameters |= {
        "month": start,
        # The month before may be shorter than this one is already.
        "until": min(earlier + (now - start), start),
        "period": period.starts_at if period else start,
        "zone": zone,
    }
    with connection.cursor() as cursor:
        cursor.execute(f"WITH {ctes} {_SUMS}", parameters)
        rows = cursor.fetchall()
    period_micros, skus = 0, []
    days: dict[datetime, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    spent: dict[str, dict[str, Spent]] = {"sku": defaultdict(Spent), "project": defaultdict(Spent)}
    for what, name, is_this_month, day, gpu_seconds, exact_micros in rows:
        micros = int((exact_micros or Decimal(0)).to_integral_value(context=money.EXACT))
        if what == "charged":
            skus.append(name)
        elif what == "period":
            period_micros = micros
        elif is_this_month:
            one = spent[what][name or ""]
            one.gpu_seconds += gpu_seconds or 0
            one.micros += micros
            if day is not None:
                days[day][name] += micros
        else:
            spent[what][name or ""].micros_before += micros
    return Month(
        start=start,
        period_micros=period_micros,
        skus=skus,
        days=days,
        by_sku=spent["sku"],
        by_project=spent["project"],
    )
