"""Counted usage: what charging adds up and what pages group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import batched
from typing import Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection
from django.db.models import Sum
from django.db.models.functions import TruncDay, TruncHour, TruncMonth

from apps.metering import intervals
from apps.metering.facts import count_usage
from apps.metering.intervals import HOUR_MS, from_ms, to_ms
from apps.metering.models import Resource, UsageHour
from apps.organizations.models import BillingPeriod

type GroupBy = Literal["sku", "project", "region", "credential", "resource"]
type Interval = Literal["hour", "day", "month"]

_COLUMNS: Mapping[str, str] = {
    "sku": "sku",
    "project": "project_id",
    "region": "region",
    "credential": "credential_id",
    "resource": "resource_id",
}
_TRUNCATIONS = {"hour": TruncHour, "day": TruncDay, "month": TruncMonth}


class UsageSlot(NamedTuple):
    """One sum that is charged."""

    meter: str
    sku: str
    region: str
    hour: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Usage added up. Fields that were not grouped by are None; `start` is None without an interval.

    quantity: GPU-seconds for `gpu_hours`, seconds for `instance_hours`, else the meter's own unit.
    """

    start: datetime | None
    meter: str
    quantity: Decimal
    sku: str | None = None
    project_id: UUID | None = None
    region: str | None = None
    credential_id: UUID | None = None
    resource_id: UUID | None = None


def slot_quantities(organization_id: UUID, slots: Collection[UsageSlot]) -> dict[UsageSlot, Decimal]:
    """Return the quantity of each slot that has hourly rows, all resources added up. One query."""
    if not slots:
        return {}
    ordered = list(slots)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT slot.meter, slot.sku, slot.region, slot.hour, sum(counted.quantity)
              FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[]) AS slot (meter, sku, region, hour)
              JOIN metering_usagehour counted
                ON counted.organization_id = %s AND counted.meter = slot.meter AND counted.sku = slot.sku
               AND counted.region = slot.region AND counted.hour = slot.hour
             GROUP BY slot.meter, slot.sku, slot.region, slot.hour
            """,
            [
                [slot.meter for slot in ordered],
                [slot.sku for slot in ordered],
                [slot.region for slot in ordered],
                [slot.hour for slot in ordered],
                organization_id,
            ],
        )
        return {
            UsageSlot(meter, sku, region, hour): quantity for meter, sku, region, hour, quantity in cursor
        }


def pending_quantities(
    organization_id: UUID, *, open_from: datetime | None, also: Collection[UsageSlot] = ()
) -> dict[UsageSlot, Decimal]:
    """Return the quantity of every slot that is not charged yet, all resources added up, in one query.

    Those are the queued changes, of which nothing may be left, and the hours from a moment on (None: all).
    also: further slots.
    """
    more = list(also)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT slot.meter, slot.sku, slot.region, slot.hour, coalesce(sum(counted.quantity), 0)
              FROM (SELECT meter, sku, region, hour FROM metering_usagechange
                     WHERE organization_id = %(organization)s
                    UNION
                    SELECT meter, sku, region, hour FROM metering_usagehour
                     WHERE organization_id = %(organization)s
                       AND (%(open_from)s::timestamptz IS NULL OR hour >= %(open_from)s)
                    UNION
                    SELECT * FROM unnest(%(meters)s::text[], %(skus)s::text[], %(regions)s::text[],
                                         %(hours)s::timestamptz[])) AS slot (meter, sku, region, hour)
              LEFT JOIN metering_usagehour counted
                ON counted.organization_id = %(organization)s AND counted.meter = slot.meter
               AND counted.sku = slot.sku AND counted.region = slot.region AND counted.hour = slot.hour
             GROUP BY slot.meter, slot.sku, slot.region, slot.hour
            """,
            {
                "organization": organization_id,
                "open_from": open_from,
                "meters": [slot.meter for slot in more],
                "skus": [slot.sku for slot in more],
                "regions": [slot.region for slot in more],
                "hours": [slot.hour for slot in more],
            },
        )
        return {
            UsageSlot(meter, sku, region, hour): quantity for meter, sku, region, hour, quantity in cursor
        }


def usage_rows(
    organization_id: UUID,
    start: datetime,
    end: datetime,
    group_by: Collection[GroupBy] = (),
    interval: Interval | None = None,
    zone: str = "UTC",
) -> list[UsageRow]:
    """Return the usage of the pieces that start in [start, end), by meter and whatever else is asked.

    interval: hours, days or months of the time zone. Ordered by time, then meter, then the columns in their order.
    """
    columns = [column for name, column in _COLUMNS.items() if name in group_by]
    hours = UsageHour.objects.filter(organization_id=organization_id, hour__gte=start, hour__lt=end)
    if interval:
        hours = hours.annotate(start=_TRUNCATIONS[interval]("hour", tzinfo=ZoneInfo(zone)))
        columns = ["start", "meter", *columns]
    else:
        columns = ["meter", *columns]
    rows = hours.values(*columns).annotate(total=Sum("quantity")).filter(total__gt=0).order_by(*columns)
    return [
        UsageRow(
            start=row.get("start"),
            quantity=row["total"],
            **{column: row[column] for column in columns if column != "start"},
        )
        for row in rows
    ]


def recount(
    organization_id: UUID, start: datetime | None, end: datetime, cutoff: datetime
) -> dict[UsageSlot, Decimal]:
    """Return the quantity of every slot in [start, end) from the raw events alone, trusting no stored usage.

    start: None for all that is before the end. cutoff: up to when the organization is counted. Reads what of the
    events of all its resources matters there.
    """
    boundaries = [
        to_ms(moment)
        for moment in BillingPeriod.objects.of(organization_id).values_list("starts_at", flat=True)
    ]
    sums: dict[tuple[str, str, str, int], int] = defaultdict(int)
    resources = (
        Resource.objects.filter(organization_id=organization_id).order_by("pk").iterator(chunk_size=500)
    )
    first, last = to_ms(start) if start else 0, to_ms(end)
    for chunk in batched(resources, 500):
        for window in count_usage(
            dict.fromkeys((resource.pk for resource in chunk), first - first % HOUR_MS),
            to_ms(cutoff),
            -(-last // HOUR_MS) * HOUR_MS,
        ):
            for key, quantity in intervals.hours(
                window.usage, boundaries, window.since, window.until
            ).items():
                if first <= key.hour < last:
                    sums[key.meter, key.sku, key.region, key.hour] += quantity
    return {
        UsageSlot(meter, sku, region, from_ms(hour)): Decimal(quantity).scaleb(-6)
        for (meter, sku, region, hour), quantity in sums.items()
        if quantity
    }
