"""The raw events that a piece of counted usage rests on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from uuid import UUID

from django.db.models import OuterRef, QuerySet, Subquery

from apps.core.periods import HOUR, floor_hour
from apps.metering import intervals
from apps.metering.facts import facts_in
from apps.metering.intervals import Fact, Segment, to_ms
from apps.metering.models import EventType, Resource, UsageEvent, UsageHour
from apps.organizations.models import BillingPeriod

# Beyond so many, an explanation says that it leaves some out.
EVENTS_SHOWN_MAX = 1_000
_TIMED = frozenset({intervals.GPU_HOURS, intervals.INSTANCE_HOURS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Why a resource has usage in a piece of an hour.

    segments: the intervals, cut to the piece. events: all that the usage rests on, in order of time:
    those named as causes, those in the piece, and the next one, which proves that it ran on.
    is_cut: whether there are more than are here.
    """

    row: UsageHour
    segments: Sequence[Segment]
    events: Sequence[UsageEvent]
    is_cut: bool = False


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
