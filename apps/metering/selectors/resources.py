"""Resources: which run, since when, and as what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

from django.conf import settings
from django.db import connection

from apps.core.periods import floor_hour
from apps.metering import intervals
from apps.metering.facts import END_OF_TIME, facts_in, latest_facts
from apps.metering.intervals import Fact, Usage, from_ms, to_ms
from apps.metering.models import Resource

# Of what a resource did, staff see at most this.
SHOWN = timedelta(days=31)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUsage:
    """A resource as it is, or as it was when its usage ended.

    since: start of the latest stretch of usage without a gap; of one that began hours before its end, the first start
    after the last stop. until: its end, None while it runs.
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
    """Return what each resource is or was last, in the given order. One query, which reads its last hour alone."""
    known = list(resources)
    facts = latest_facts({resource.pk: _last_hour(resource, now) for resource in known}, to_ms(now))
    return [_describe(resource, facts.get(resource.pk, ()), now) for resource in known]


def latest_usage(resource: Resource, now: datetime) -> Usage | None:
    """Return the intervals of a resource in the last days that it was used, and which turns were ignored then.

    None if more events tell of them than one process is to hold. Of heartbeats only the last can be ignored.
    """
    since = max(0, _last_hour(resource, now) - SHOWN // timedelta(milliseconds=1))
    facts = facts_in([resource.pk], since, END_OF_TIME).get(resource.pk, [])
    return None if facts is None else intervals.claims(facts, to_ms(now))


def _last_hour(resource: Resource, now: datetime) -> int:
    """Return the hour in which the usage counted so far ends, in milliseconds; 0 if nothing was counted yet."""
    if resource.live_until is None:
        return 0
    # An end is no longer used time, so on the hour the one before is the last.
    return to_ms(floor_hour(min(resource.live_until, now) - timedelta(milliseconds=1)))


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
