"""Reads of usage: what metering counts from, what charging adds up, what pages and explanations show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import batched, chain, pairwise
from typing import Literal, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connection
from django.db.models import Exists, Min, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import TruncDay, TruncHour, TruncMonth

from apps.core.periods import HOUR, floor_hour
from apps.metering import intervals
from apps.metering.facts import count_usage, facts_in, load_facts
from apps.metering.intervals import HOUR_MS, Fact, Segment, Usage, from_ms, to_ms
from apps.metering.models import (
    DirtyBatch,
    EventType,
    MeteringState,
    Resource,
    UsageChange,
    UsageEvent,
    UsageHour,
)
from apps.organizations.models import BillingPeriod, Organization

type GroupBy = Literal["sku", "project", "region", "credential", "resource"]
type Interval = Literal["hour", "day", "month"]

_COLUMNS: Mapping[str, str] = {
    "sku": "sku",
    "project": "project_id",
    "region": "region",
    "credential": "credential_id",
    "resource": "resource_id",
}
# Beyond so many, an explanation says that it leaves some out.
EVENTS_SHOWN_MAX = 1_000
_TIMED = frozenset({intervals.GPU_HOURS, intervals.INSTANCE_HOURS})
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUsage:
    """A resource as it is, or as it was when its usage ended.

    since: start of the latest stretch of usage without a gap. until: its end, None while it runs.
    gpus: to three decimals. The fields are empty for a resource without intervals, such as a meter reading.
    """

    resource: Resource
    is_running: bool
    sku: str
    region: str
    gpus: Decimal | None
    project_id: UUID | None
    credential_id: UUID | None
    since: datetime | None
    until: datetime | None

    @property
    def meter(self) -> str:
        """What its time counts as: GPU-hours, or instance-hours without a GPU."""
        return intervals.GPU_HOURS if self.gpus else intervals.INSTANCE_HOURS


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Why a resource has usage in a piece of an hour.

    segments: the intervals, cut to the piece. readings: ids of meter events in it. events: all that these rest on,
    in order of time: those named as causes, those in the piece, and the next one, which proves that it ran on.
    is_cut: whether there are more than are here.
    """

    row: UsageHour
    segments: Sequence[Segment]
    events: Sequence[UsageEvent]
    is_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How well counting and charging keep up.

    lag_seconds: how far the organization counted least is behind; 0 when none is counted yet.
    backlog: changes of resources that wait for a tick. uncharged: changed sums. events_stored: an estimate.
    """

    lag_seconds: float
    backlog: int
    uncharged: int
    events_stored: int


def health(now: datetime) -> Health:
    """Return how well counting and charging keep up, without reading any large table."""
    slowest = slowest_metered_until()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'metering_usageevent'::regclass"
        )
        (events_stored,) = cursor.fetchone()
    return Health(
        lag_seconds=0 if slowest is None else max(0, (now - slowest).total_seconds()),
        backlog=backlog(),
        uncharged=UsageChange.objects.count(),
        events_stored=events_stored,
    )


def slowest_metered_until() -> datetime | None:
    """Return up to when the organization that is furthest behind is counted; None before any tick.

    Deleted organizations are counted no further and left out.
    """
    states = MeteringState.objects.filter(
        organization__in=Organization.objects.existing(), metered_until__isnull=False
    )
    slowest: datetime | None = states.aggregate(slowest=Min("metered_until"))["slowest"]
    return slowest


def metered_until(organization_id: UUID) -> datetime | None:
    """Return up to when an organization's usage is counted; None before its first tick."""
    return MeteringState.objects.filter(pk=organization_id).values_list("metered_until", flat=True).first()


def organizations_with_work(until: datetime) -> list[UUID]:
    """Return the organizations that are not counted up to `until`, or that have news; those with news first.

    A deleted organization has work only while events accepted before are not counted.
    """
    dirty = Exists(DirtyBatch.objects.filter(organization=OuterRef("pk")))
    counted = Exists(MeteringState.objects.filter(pk=OuterRef("pk"), metered_until__gte=until))
    behind = Organization.objects.existing().filter(~counted).values_list("pk", flat=True)
    with_news = Organization.objects.filter(dirty).order_by("pk").values_list("pk", flat=True)
    return list(dict.fromkeys(chain(with_news, behind.order_by("pk"))))


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


def has_changes(organization_id: UUID) -> bool:
    """Return whether sums of an organization wait to be charged."""
    return UsageChange.objects.filter(organization_id=organization_id).exists()


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


def running_resources(organization_id: UUID, now: datetime) -> list[ResourceUsage]:
    """Return the resources that run, longest first; what started since the last tick is not among them."""
    # The last tick may be older than the silence that ends a run, so newer events decide.
    lately = now - timedelta(seconds=2 * settings.METERING_TICK_SECONDS)
    running = Resource.objects.filter(organization_id=organization_id).running_at(lately).order_by("pk")
    found = [item for item in describe_resources(running, now) if item.is_running]
    return sorted(found, key=lambda item: (item.since or now, item.resource.pk))


def stopped_since(
    organization_id: UUID, moments: Mapping[tuple[str, str], datetime], *, counted: bool = False
) -> set[tuple[str, str]]:
    """Return those (source, subject) whose resource stopped after the moment given for it; "" is any source. One query.

    A stop counts if it is both dated and received after the moment, so that neither clock can end what came later.

    counted: only where no event of the resource waits to be counted, so that its usage up to the stop is known.
    """
    if not moments:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT wanted.source, wanted.subject
              FROM unnest(%s::text[], %s::text[], %s::timestamptz[]) AS wanted (source, subject, since)
              JOIN metering_resource resource
                ON resource.organization_id = %s AND wanted.source IN ('', resource.source)
               AND resource.subject = wanted.subject AND NOT resource.is_single_event
             WHERE EXISTS (
                SELECT FROM metering_usageevent event
                 WHERE event.resource_id = resource.id AND event.type = 'allocation.stopped'
                   AND event.time > wanted.since AND event.received_at > wanted.since)
               AND NOT (%s AND EXISTS (
                SELECT FROM metering_dirtybatch news
                 WHERE news.organization_id = resource.organization_id
                   AND resource.id = ANY (news.resource_ids)))
            """,
            [
                [source for source, _subject in moments],
                [subject for _source, subject in moments],
                list(moments.values()),
                organization_id,
                counted,
            ],
        )
        return {(source, subject) for source, subject in cursor}


def describe_resources(resources: Iterable[Resource], now: datetime) -> list[ResourceUsage]:
    """Return what each resource is or was last, in the given order. One query."""
    known = list(resources)
    facts = load_facts([resource.pk for resource in known], to_ms(now))
    return [_describe(resource, facts.get(resource.pk, ()), now) for resource in known]


def intervals_of(resource: Resource, cutoff: datetime) -> Usage:
    """Return the intervals of a resource up to a cut-off, and which of its events were ignored."""
    events = UsageEvent.objects.of_resources([resource.pk])
    return intervals.claims([_fact(event) for event in events], to_ms(cutoff))


def hours_in_slot(
    organization_id: UUID, meter: str, sku: str, region: str, hour: datetime
) -> QuerySet[UsageHour]:
    """Return the usage of each resource in a slot of hourly usage."""
    slot = UsageHour.objects.filter(
        organization_id=organization_id, meter=meter, sku=sku, region=region, hour=hour
    )
    return slot.counted().select_related("resource", "project", "credential")


def events_behind(rows: Sequence[UsageHour]) -> list[Evidence]:
    """Return, for each of some rows of one slot, its intervals in the piece and the events behind them.

    As many queries for one row as for many; at most `EVENTS_SHOWN_MAX` events of the piece, of all rows together.
    """
    if not rows:
        return []
    first = rows[0]
    since, end = floor_hour(first.hour), _piece_end(first.organization_id, first.hour)
    ids = {row.resource_id for row in rows}
    facts = facts_in(ids, to_ms(since), to_ms(since + HOUR))
    segments = {row.pk: _segments(row, facts.get(row.resource_id, ()), to_ms(end)) for row in rows}
    causes = {cause for found in segments.values() for segment in found or () for cause in segment.causes}
    inside = _events_inside(ids, first, end)
    shown = {event.pk: event for event in inside[:EVENTS_SHOWN_MAX]}
    named = UsageEvent.objects.of_resources(ids).filter(
        source__in={row.resource.source for row in rows}, event_id__in=sorted(causes)[:EVENTS_SHOWN_MAX]
    )
    shown |= {event.pk: event for event in named}
    shown |= {event.pk: event for event in _next_events(ids, end)} if first.meter in _TIMED else {}
    by_resource: dict[UUID, list[UsageEvent]] = defaultdict(list)
    for event in sorted(shown.values(), key=lambda event: (event.time, event.event_id)):
        by_resource[event.resource_id].append(event)
    return [
        Evidence(
            row=row,
            segments=list(segments[row.pk] or ())[:EVENTS_SHOWN_MAX],
            events=[
                event
                for event in by_resource[row.resource_id]
                if event.type != EventType.RECORDED or event.meter or _is_cause(event, segments[row.pk])
            ],
            is_cut=len(inside) > EVENTS_SHOWN_MAX
            or segments[row.pk] is None
            or len(causes) > EVENTS_SHOWN_MAX,
        )
        for row in rows
    ]


def backlog() -> int:
    """Return how many changes of resources wait for a tick; one may wait several times."""
    return DirtyBatch.objects.resources()


def _describe(resource: Resource, facts: Iterable[Fact], now: datetime) -> ResourceUsage:
    usage = intervals.claims(facts, to_ms(now))
    if not usage.segments:
        return ResourceUsage(
            resource=resource,
            is_running=False,
            sku="",
            region="",
            gpus=None,
            project_id=None,
            credential_id=None,
            since=None,
            until=None,
        )
    last = usage.segments[-1]
    since = last.start
    for earlier, later in pairwise(reversed(usage.segments)):
        if later.end != earlier.start:
            break
        since = later.start
    is_running = usage.running_until is not None and usage.running_until > to_ms(now)
    return ResourceUsage(
        resource=resource,
        is_running=is_running,
        sku=last.sku,
        region=last.region,
        gpus=Decimal(last.milli_gpus).scaleb(-3),
        project_id=last.project,
        credential_id=last.credential,
        since=from_ms(since),
        until=None if is_running else from_ms(last.end),
    )


def _fact(event: UsageEvent) -> Fact:
    return Fact(
        id=event.event_id,
        type=event.type,
        time=to_ms(event.time),
        milli_gpus=int((event.gpus or 0) * 1000),
        sku=event.sku,
        region=event.region,
        project=event.project_id,
        credential=event.credential_id,
        meter=event.meter,
        quantity=int((event.quantity or 0) * 1_000_000),
        started=None if event.started_at is None else to_ms(event.started_at),
        ended=None if event.ended_at is None else to_ms(event.ended_at),
    )


def _piece_end(organization_id: UUID, hour: datetime) -> datetime:
    end = floor_hour(hour) + HOUR
    cut = (
        BillingPeriod.objects.of(organization_id)
        .filter(starts_at__gt=hour, starts_at__lt=end)
        .values_list("starts_at", flat=True)
        .first()
    )
    return cut or end


def _segments(row: UsageHour, facts: Sequence[Fact] | None, end: int) -> list[Segment] | None:
    """Return the intervals of a row's resource that count for it, cut to its piece; None if the facts are too many."""
    if facts is None:
        return None
    start = to_ms(row.hour)
    return [
        segment._replace(start=max(segment.start, start), end=min(segment.end, end))
        for segment in intervals.claims(facts, end).segments
        if segment.end > start
        and (segment.sku, segment.region, segment.project, segment.credential)
        == (row.sku, row.region, row.project_id, row.credential_id)
    ]


def _is_cause(event: UsageEvent, segments: Sequence[Segment] | None) -> bool:
    return any(event.event_id in segment.causes for segment in segments or ())


def _events_inside(resource_ids: Collection[UUID], row: UsageHour, end: datetime) -> list[UsageEvent]:
    """Return the first events that happened in a row's piece and can matter to its meter, one more than are shown."""
    events = UsageEvent.objects.of_resources(resource_ids).filter(time__gte=row.hour, time__lt=end)
    if row.meter not in _TIMED:
        readings = events.filter(type=EventType.RECORDED, meter=row.meter)
        return list(readings.order_by("time", "pk")[: EVENTS_SHOWN_MAX + 1])
    turns = events.filter(type__in=[EventType.STARTED, EventType.RESIZED, EventType.STOPPED])
    beats = events.filter(type=EventType.HEARTBEAT)
    found = [list(part.order_by("time", "pk")[: EVENTS_SHOWN_MAX + 1]) for part in (turns, beats)]
    return sorted(chain(*found), key=lambda event: (event.time, event.pk))


def _next_events(resource_ids: Collection[UUID], moment: datetime) -> list[UsageEvent]:
    """Return of each resource the first event of a run from a moment on, which proves that it ran until there."""
    later = UsageEvent.objects.filter(resource=OuterRef("pk"), time__gte=moment).order_by("time", "event_id")
    turns = later.filter(type__in=[EventType.STARTED, EventType.RESIZED, EventType.STOPPED])
    beats = later.filter(type=EventType.HEARTBEAT)
    rows = Resource.objects.filter(pk__in=resource_ids).values_list(
        Subquery(turns.values("pk")[:1]), Subquery(beats.values("pk")[:1])
    )
    events = UsageEvent.objects.filter(pk__in=[pk for row in rows for pk in row if pk is not None])
    first: dict[UUID, UsageEvent] = {}
    for event in events.order_by("time", "event_id"):
        first.setdefault(event.resource_id, event)
    return list(first.values())


def recount(
    organization_id: UUID, start: datetime, end: datetime, cutoff: datetime
) -> dict[UsageSlot, Decimal]:
    """Return the quantity of every slot in [start, end) from the raw events alone, trusting no stored usage.

    cutoff: up to when the organization is counted. Reads what of the events of all its resources matters there.
    """
    boundaries = [
        to_ms(moment)
        for moment in BillingPeriod.objects.of(organization_id).values_list("starts_at", flat=True)
    ]
    sums: dict[tuple[str, str, str, int], int] = defaultdict(int)
    resources = (
        Resource.objects.filter(organization_id=organization_id).order_by("pk").iterator(chunk_size=500)
    )
    first, last = to_ms(floor_hour(start)), to_ms(end)
    for chunk in batched(resources, 500):
        for window in count_usage(
            dict.fromkeys((resource.pk for resource in chunk), first),
            to_ms(cutoff),
            -(-last // HOUR_MS) * HOUR_MS,
        ):
            for key, quantity in intervals.hours(
                window.usage, boundaries, window.since, window.until
            ).items():
                if to_ms(start) <= key.hour < last:
                    sums[key.meter, key.sku, key.region, key.hour] += quantity
    return {
        UsageSlot(meter, sku, region, from_ms(hour)): Decimal(quantity).scaleb(-6)
        for (meter, sku, region, hour), quantity in sums.items()
        if quantity
    }
