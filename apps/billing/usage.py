"""Usage with what it costs: grouped, by resource, and hour by hour as it was rated.

An hour's amount belongs to its charge key. Where a group holds only a part of the hour's quantity it gets the same
share of the amount: for display, never summed into anything that is posted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection
from django.db.models import QuerySet
from django.utils.dateparse import parse_date
from django.utils.translation import gettext as _

from apps.billing import charging
from apps.billing.charging import Plan
from apps.billing.models import ChargeHour
from apps.core import money, periods
from apps.core.actor import Actor
from apps.core.errors import InvalidRequest, NotFound
from apps.core.moments import day_begins, parse_moment
from apps.metering import selectors as metering
from apps.metering.models import Resource, ResourceQuerySet
from apps.organizations.models import Organization, Project
from apps.pricing import selectors as pricing

GROUPS = ("sku", "project", "region", "credential", "resource")
INTERVALS = ("hour", "day", "month")
# How many days one answer may have rows of: the longest month by hour, more than a year by day or of every resource.
HOURLY_DAYS_MAX = 31
DAYS_MAX = 400
# Of some resources.
_EARLIEST = "(SELECT min(hour) FROM metering_usagehour WHERE resource_id = ANY(%(resources)s))"
# The columns of hourly usage that tell groups apart, and once it is added up by them, their names.
_IDS = {
    "sku": "sku",
    "project": "project_id",
    "region": "region",
    "credential": "credential_id",
    "resource": "resource_id",
}
_NAMES = {
    "sku": "summed.sku",
    "project": "project.slug",
    "region": "summed.region",
    "credential": "credential.public_id",
    "resource": "resource.subject",
}
_JOINS = {
    "project": "LEFT JOIN organizations_project project ON project.id = summed.project_id",
    "credential": "LEFT JOIN credentials_apikey credential ON credential.id = summed.credential_id",
    "resource": "LEFT JOIN metering_resource resource ON resource.id = summed.resource_id",
}
# What is not posted yet, with the parameters of `unposted`.
_OPEN = """
    unnest(%(meters)s::text[], %(skus)s::text[], %(regions)s::text[], %(hours)s::timestamptz[],
           %(quantities)s::numeric[], %(micros)s::numeric[], %(priced)s::boolean[])
        AS open (meter, sku, region, hour, quantity, micros, priced)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """A half-open range of usage, what to group it by, and the interval it is cut into, if any."""

    start: datetime
    end: datetime
    group_by: tuple[str, ...]
    interval: str | None

    @classmethod
    def parse(cls, parameters: Mapping[str, str], *, zone: str, now: datetime) -> Self:
        """Return the query that a query string says, or raise InvalidRequest; the default is the running month.

        Sums that have few rows however long the range, those by month or of all of it, may be of any length.
        """
        if unknown := sorted(set(parameters) - {"from", "to", "group_by", "interval"}):
            raise InvalidRequest(
                _("Unknown parameter: %(names)s.") % {"names": ", ".join(unknown)}, parameters=unknown
            )
        wanted = [name for name in parameters.get("group_by", "").split(",") if name]
        if any(name not in GROUPS for name in wanted):
            raise InvalidRequest(
                _("`group_by` takes %(groups)s, comma-separated.") % {"groups": ", ".join(GROUPS)},
                parameter="group_by",
            )
        interval = parameters.get("interval")
        if interval is not None and interval not in INTERVALS:
            raise InvalidRequest(_("`interval` is hour, day or month."), parameter="interval")
        this_month = periods.month_start(periods.label_of(now, zone), zone)
        query = cls(
            start=_bound(parameters, "from", zone) or this_month,
            end=_bound(parameters, "to", zone) or now,
            group_by=tuple(name for name in GROUPS if name in wanted),
            interval=interval,
        )
        if query.start >= query.end:
            raise InvalidRequest(_("`from` must lie before `to`."), parameter="from")
        query._refuse_too_long()
        return query

    def _refuse_too_long(self) -> None:
        # Days of which one is longer by the hour that clocks are set back are so many days all the same.
        length = self.end - self.start - timedelta(hours=1)
        if self.interval == "hour" and length > timedelta(days=HOURLY_DAYS_MAX):
            raise InvalidRequest(
                _(
                    "By hour, %(days)d days are answered at once. Ask for one range after the other, or by day."
                )
                % {"days": HOURLY_DAYS_MAX},
                parameter="interval",
                days_max=HOURLY_DAYS_MAX,
            )
        if (self.interval == "day" or "resource" in self.group_by) and length > timedelta(days=DAYS_MAX):
            raise InvalidRequest(
                _(
                    "By day or by resource, %(days)d days are answered at once. Ask for one range after the other."
                )
                % {"days": DAYS_MAX},
                parameter="from",
                days_max=DAYS_MAX,
            )


def slots(
    organization: Organization, plan: Plan, *, start: datetime, end: datetime
) -> tuple[str, dict[str, Any]]:
    """Return common table expressions whose last, `slot`, has each hour of usage in [start, end); and their parameters.

    An hour has its meter, sku and region, its quantity over all resources, what it costs in micros, and whether it has
    a price: as it was charged, or as it stands while it is not posted.
    """
    sql = f"""
        open AS MATERIALIZED (
            SELECT * FROM {_OPEN}
        ), slot AS MATERIALIZED (
            SELECT * FROM open WHERE hour >= %(start)s AND hour < %(end)s
            UNION ALL
            SELECT k.meter, k.sku, k.region, h.hour, h.quantity, h.amount_micros::numeric, k.price_key_id IS NOT NULL
            FROM billing_chargekey k JOIN billing_chargehour h ON h.key_id = k.id
            WHERE k.organization_id = %(organization)s AND h.organization_id = %(organization)s
              AND h.hour >= %(start)s AND h.hour < %(end)s AND h.quantity > 0
              AND NOT EXISTS (
                  SELECT FROM open
                  WHERE (open.meter, open.sku, open.region, open.hour) = (k.meter, k.sku, k.region, h.hour)
              )
        )"""  # noqa: S608 (nothing but our own clause is put in)
    return sql, {"organization": organization.id, "start": start, "end": end, **unposted(plan)}


def cells(organization: Organization, query: UsageQuery, plan: Plan) -> tuple[str, dict[str, Any]]:
    """Return a SELECT that adds usage up by meter and group, and by interval if one is asked for; and its parameters.

    Its columns are the start (with an interval), the meter, the groups, then the quantity, what it costs in micros,
    what of the quantity has no price, and the seconds of the meter's unit.
    """
    ctes, parameters = slots(organization, plan, start=query.start, end=query.end)
    ids = [_IDS[name] for name in query.group_by]
    start = "NULL"
    if query.interval:
        start = "date_trunc(%(interval)s, used.hour AT TIME ZONE %(zone)s) AT TIME ZONE %(zone)s"
        parameters |= {"interval": query.interval, "zone": organization.timezone}
    names = [
        *(["summed.start"] if query.interval else []),
        "summed.meter",
        *(_NAMES[name] for name in query.group_by),
    ]
    by_name = ", ".join(str(number) for number in range(1, len(names) + 1))
    by_id = ", ".join(str(number) for number in range(1, len(ids) + 3))
    sql = f"""
        WITH {ctes}
        SELECT {", ".join(names)}, sum(summed.quantity), coalesce(sum(summed.micros), 0),
               coalesce(sum(summed.unpriced), 0), coalesce(min(meter.unit_seconds), 1)
        FROM (
            SELECT {", ".join([f"{start} AS start", "used.meter", *(f"used.{name}" for name in ids)])},
                   sum(used.quantity) AS quantity, sum(used.micros) AS micros,
                   sum(used.quantity) FILTER (WHERE used.priced IS NOT TRUE) AS unpriced
            FROM {shared_slots(ids)} used
            GROUP BY {by_id}
        ) summed
        LEFT JOIN pricing_meter meter ON meter.code = summed.meter
        {" ".join(_JOINS[name] for name in query.group_by if name in _JOINS)}
        GROUP BY {by_name}
    """  # noqa: S608 (only our own column names are put in)
    return sql, parameters


def shared_slots(ids: Sequence[str], *, within: str = "true") -> str:
    """Return the slots of `slots`, each told apart by columns of hourly usage, with its share of what the hour costs.

    within: what else is asked of an `hour`. A slot is one SKU in one region, so nothing but the charges is read where
    no other column is asked for. Usage is added up by slot before its share is looked for; by resource there is little
    to add up.
    """
    if set(ids) <= {"sku", "region"}:
        return f"(SELECT * FROM slot WHERE {within})"  # noqa: S608 (nothing but our own clause is put in)
    columns = ", ".join(dict.fromkeys(("meter", "sku", "region", "hour", *ids)))
    is_sparse = "resource_id" in ids
    return f"""(
        SELECT part.*, part.quantity / slot.quantity * slot.micros AS micros, slot.priced
        FROM (
            SELECT {columns}, {"quantity" if is_sparse else "sum(quantity) AS quantity"}
            FROM metering_usagehour
            WHERE organization_id = %(organization)s AND hour >= %(start)s AND hour < %(end)s AND quantity > 0
              AND {within}
            {"" if is_sparse else f"GROUP BY {columns}"}
        ) part
        LEFT JOIN slot
            ON (slot.meter, slot.sku, slot.region, slot.hour) = (part.meter, part.sku, part.region, part.hour)
    )"""  # noqa: S608 (nothing but our own clauses is put in)


def usage_with_amounts(
    organization: Organization, query: UsageQuery, *, now: datetime, plan: Plan | None = None
) -> list[dict[str, Any]]:
    """Return usage added up by meter and group, with amounts; hours not posted yet are priced as they stand.

    plan: what is not posted yet, where it is known. Without, it takes the queries of a plan and one of its own.
    """
    plan = plan or charging.plan_unposted(organization, now=now)
    names = [*(["start"] if query.interval else []), "meter", *query.group_by]
    sql, parameters = cells(organization, query, plan)
    ordinals = ", ".join(str(number) for number in range(1, len(names) + 1))
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} ORDER BY {ordinals}", parameters)
        rows = cursor.fetchall()
    found = []
    for row in rows:
        values = dict(zip(names, row[: len(names)], strict=True))
        quantity, micros, unpriced, unit = row[len(names) :]
        found.append(
            values
            | {
                "gpu_hours": money.in_unit(quantity, periods.SECONDS_PER_HOUR)
                if values["meter"] == "gpu_hours"
                else None,
                "quantity": money.in_unit(quantity, unit),
                "amount": _micros_text(micros),
                "unpriced_quantity": money.in_unit(unpriced, unit),
                "currency": organization.currency,
            }
        )
    return found


def priced_usage(since: str) -> str:
    """Return the clause for usage beside the hour it was charged in, or beside what an hour not posted yet costs now.

    since: SQL for a moment before which no usage is asked for, so that the charges of the years before are not read.
    The parameters are `organization` and those of `unposted`.
    """
    return f"""
        metering_usagehour used
        LEFT JOIN {_OPEN}
            ON (open.meter, open.sku, open.region, open.hour) = (used.meter, used.sku, used.region, used.hour)
        LEFT JOIN (
            SELECT k.meter, k.sku, k.region, k.price_key_id, h.hour, h.quantity, h.amount_micros
            FROM billing_chargekey k JOIN billing_chargehour h ON h.key_id = k.id
            WHERE k.organization_id = %(organization)s AND h.organization_id = %(organization)s AND h.quantity > 0
              AND h.hour >= {since}
        ) charged
            ON (charged.meter, charged.sku, charged.region, charged.hour)
                = (used.meter, used.sku, used.region, used.hour)
    """  # noqa: S608 (nothing but our own clauses is put in)


def unposted(plan: Plan) -> dict[str, list[Any]]:
    """Return what the hours of a plan cost now, as columns for the `unnest` of `priced_usage`."""
    posted = {(delta.plan.key.id, delta.hour): delta.micros for delta in plan.deltas}
    columns: dict[str, list[Any]] = {
        name: [] for name in ("meters", "skus", "regions", "hours", "quantities", "micros", "priced")
    }
    for key_plan in plan.keys:
        for hour in key_plan.touched:
            row = key_plan.hours[hour]
            if not row.quantity:
                continue
            columns["meters"].append(key_plan.key.meter)
            columns["skus"].append(key_plan.key.sku)
            columns["regions"].append(key_plan.key.region)
            columns["hours"].append(hour)
            columns["quantities"].append(row.quantity)
            columns["micros"].append(row.amount_micros + posted.get((key_plan.key.id, hour), 0))
            columns["priced"].append(key_plan.terms is not None)
    return columns


def resources_of(organization_id: UUID) -> ResourceQuerySet:
    """Return an organization's resources."""
    return Resource.objects.filter(organization_id=organization_id)


def resource_rows(
    organization: Organization, resources: Sequence[Resource], *, now: datetime
) -> list[dict[str, Any]]:
    """Return resources with their state and what each has cost so far, by its share of each hour."""
    costs = _resource_costs(organization, [resource.pk for resource in resources], now=now)
    described = metering.describe_resources(resources, now)
    projects = dict(
        Project.objects.filter(pk__in={row.project_id for row in described if row.project_id}).values_list(
            "pk", "slug"
        )
    )
    return [
        {
            "resource": row.resource.subject,
            "source": row.resource.source,
            "state": "running" if row.is_running else "stopped",
            "sku": row.sku,
            "region": row.region,
            "project": projects.get(row.project_id) if row.project_id else None,
            "gpus": None if row.gpus is None else money.plain(row.gpus),
            "since": row.since,
            "until": row.until,
            "cost": _micros_text(costs.get(row.resource.pk, Decimal(0))),
            "currency": organization.currency,
        }
        for row in described
    ]


def _resource_costs(
    organization: Organization, resource_ids: Sequence[UUID], *, now: datetime
) -> dict[UUID, Decimal]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT used.resource_id,
                   sum(used.quantity / coalesce(open.quantity, charged.quantity)
                       * coalesce(open.micros, charged.amount_micros))
            FROM {priced_usage(_EARLIEST)}
            WHERE used.resource_id = ANY(%(resources)s) AND used.quantity > 0
            GROUP BY used.resource_id
            """,  # noqa: S608 (nothing but our own clause is put in)
            {
                "organization": organization.id,
                "resources": list(resource_ids),
                **unposted(charging.plan_unposted(organization, now=now)),
            },
        )
        return {resource_id: micros or Decimal(0) for resource_id, micros in cursor.fetchall()}


def records_of(actor: Actor) -> QuerySet[ChargeHour]:
    """Return the rated hours that an actor may see."""
    return (
        ChargeHour.objects.visible_to(actor)
        .filter(quantity__gt=0)
        .select_related("key__period", "key__price__version__book")
        .prefetch_related("key__invoice_lines__invoice")
    )


def record_by_id(actor: Actor, record_id: UUID) -> ChargeHour:
    """Return one rated hour that the actor may see, or raise NotFound."""
    record = records_of(actor).filter(pk=record_id).first()
    if record is None:
        raise NotFound
    return record


def record_rows(records: Sequence[ChargeHour], currency: str) -> list[dict[str, Any]]:
    """Return rated hours with their price version and the invoice that bills their key, if one does."""
    units = pricing.unit_seconds()
    return [
        {
            "id": record.id,
            "period": record.key.period.label,
            "hour": record.hour,
            "meter": record.key.meter,
            "sku": record.key.sku,
            "region": record.key.region,
            "quantity": money.in_unit(record.quantity, units.get(record.key.meter, 1)),
            "amount": f"{money.from_micros(record.amount_micros):f}",
            "currency": currency,
            "price_version": str(record.key.price.version) if record.key.price else None,
            "invoice": _invoice_of(record),
        }
        for record in records
    ]


def _invoice_of(record: ChargeHour) -> str | None:
    """Return the number of the invoice that billed an hour's key first, before those that correct or cancel it."""
    lines = record.key.invoice_lines.all()
    invoices = [line.invoice for line in lines if line.invoice.kind == "invoice" and line.invoice.number]
    invoices.sort(key=lambda invoice: (invoice.state == "cancelled", invoice.finalized_at, invoice.id))
    return invoices[0].number if invoices else None


def _micros_text(micros: Decimal) -> str:
    whole = int(micros.to_integral_value(context=money.EXACT))
    return f"{money.from_micros(whole):f}"


def _bound(parameters: Mapping[str, str], name: str, zone: str) -> datetime | None:
    """Return a moment, or the start of a date in the organization's time zone."""
    text = parameters.get(name)
    if text is None:
        return None
    try:
        if (date := parse_date(text)) is not None:
            return day_begins(date, ZoneInfo(zone))
        return parse_moment(text)
    except ValueError:
        message = _("`%(name)s` is a date, or a moment such as 2026-05-01T00:00:00Z.") % {"name": name}
        raise InvalidRequest(message, parameter=name) from None
