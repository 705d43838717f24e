"""Reading events for counting: only what can matter from a moment on, never more than a part of it at a time.

However many events wait, a process holds those of one resource, and of a resource with very many only some hours'
worth: an instant is decided by what lies around it (ADR 45).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection

from apps.metering import intervals
from apps.metering.intervals import Fact, Usage, from_ms, to_ms

END_OF_TIME = to_ms(datetime(9999, 1, 1, tzinfo=UTC))
# A resource with more events than this is counted some hours at a time.
FACTS_MAX = 10_000
_FETCHED = 2_000

_COLUMNS = """
    wanted.resource_id, event.event_id, event.type, (extract(epoch FROM event.time) * 1000)::bigint,
    coalesce(event.gpus * 1000, 0)::bigint, event.sku, event.region, event.project_id, event.credential_id,
    event.meter, 0::numeric, (extract(epoch FROM event.started_at) * 1000)::bigint,
    (extract(epoch FROM event.ended_at) * 1000)::bigint
"""
_WANTED = """
    WITH wanted AS MATERIALIZED (
        SELECT resource_id, since, until, coalesce((
                   SELECT stop.time FROM metering_usageevent stop
                    WHERE stop.resource_id = given.resource_id AND stop.type = 'allocation.stopped'
                      AND stop.type IN ('allocation.started', 'allocation.resized', 'allocation.stopped')
                      AND stop.time < given.since ORDER BY stop.time DESC LIMIT 1), '-infinity') AS stopped
          FROM unnest(%(ids)s::uuid[], %(since)s::timestamptz[], %(until)s::timestamptz[])
               AS given (resource_id, since, until)
    )
"""
# Nothing before the last stop lasts until now. Of heartbeats only the last tells something: any other lies between two
# events. After a window the next stop says how far its runs go, or else the last event of all. A billing period starts
# at midnight of some time zone, so on a quarter of an hour: readings of one are added up by PostgreSQL.
_FACTS = f"""
    {_WANTED}
    SELECT {_COLUMNS} FROM wanted JOIN metering_usageevent event
        ON event.resource_id = wanted.resource_id
       AND event.type IN ('allocation.started', 'allocation.resized', 'allocation.stopped')
       AND event.time >= wanted.stopped AND event.time < wanted.until
    UNION ALL
    SELECT {_COLUMNS} FROM wanted CROSS JOIN LATERAL (
        (SELECT * FROM metering_usageevent beat
          WHERE beat.resource_id = wanted.resource_id AND beat.type = 'allocation.heartbeat'
          ORDER BY beat.time DESC LIMIT 1)
        UNION ALL
        (SELECT * FROM metering_usageevent later
          WHERE later.resource_id = wanted.resource_id AND later.type = 'allocation.stopped'
            AND later.type IN ('allocation.started', 'allocation.resized', 'allocation.stopped')
            AND later.time >= wanted.until ORDER BY later.time LIMIT 1)
        UNION ALL
        (SELECT * FROM metering_usageevent later
          WHERE later.resource_id = wanted.resource_id AND later.type IN ('allocation.started', 'allocation.resized')
            AND later.type IN ('allocation.started', 'allocation.resized', 'allocation.stopped')
            AND later.time >= wanted.until ORDER BY later.time DESC LIMIT 1)
    ) event
    UNION ALL
    SELECT {_COLUMNS} FROM wanted JOIN metering_usageevent event
        ON event.resource_id = wanted.resource_id AND event.type = 'usage.recorded' AND event.meter = ''
       AND coalesce(event.ended_at, event.time) >= wanted.since AND event.started_at < wanted.until
    UNION ALL
    SELECT wanted.resource_id, '', 'usage.recorded', (extract(epoch FROM max(event.time)) * 1000)::bigint, 0,
           event.sku, event.region, event.project_id, event.credential_id, event.meter,
           trunc(sum(event.quantity) * 1000000), NULL, NULL
      FROM wanted JOIN metering_usageevent event
        ON event.resource_id = wanted.resource_id AND event.type = 'usage.recorded' AND event.meter <> ''
       AND coalesce(event.ended_at, event.time) >= wanted.since
       AND coalesce(event.ended_at, event.time) < wanted.until
     GROUP BY wanted.resource_id, event.sku, event.region, event.project_id, event.credential_id, event.meter,
              date_bin('15 minutes', event.time, 'epoch'), event.time <= %(cutoff)s
    ORDER BY 1
"""  # noqa: S608  Only the constants above are put in.
# How many events that are read one by one lie in each hour.
_HOURS = f"""
    {_WANTED}
    SELECT (extract(epoch FROM date_trunc('hour', moment, 'UTC')) * 1000)::bigint, count(*)
      FROM (
        SELECT event.time AS moment FROM wanted JOIN metering_usageevent event
            ON event.resource_id = wanted.resource_id
           AND event.type IN ('allocation.started', 'allocation.resized', 'allocation.stopped')
           AND event.time >= wanted.stopped AND event.time < wanted.until
        UNION ALL
        SELECT event.ended_at FROM wanted JOIN metering_usageevent event
            ON event.resource_id = wanted.resource_id AND event.type = 'usage.recorded' AND event.meter = ''
           AND coalesce(event.ended_at, event.time) >= wanted.since AND event.started_at < wanted.until
      ) found
     GROUP BY 1 ORDER BY 1
"""  # noqa: S608


class Window(NamedTuple):
    """What the events of one resource prove about [since, until), both whole UTC hours in milliseconds.

    Of its usage only the part inside the window holds; `is_last` says that nothing comes after it.
    """

    resource_id: UUID
    usage: Usage
    since: int
    until: int
    is_last: bool


def count_usage(wanted: Mapping[UUID, int], cutoff: int, until: int = END_OF_TIME) -> Iterator[Window]:
    """Yield the usage of every resource from the moment given for it (0: all of it) up to the cut-off.

    A resource comes in one window, or in several in order of time if it has very many events. All moments are
    milliseconds, those that bound windows whole UTC hours.
    """
    large: list[UUID] = []
    rest = dict(wanted)
    for resource_id, facts in _of_resources(wanted, until, cutoff):
        if facts is None:
            large.append(resource_id)
            continue
        since = rest.pop(resource_id)
        yield Window(resource_id, intervals.claims(facts, cutoff), since, until, is_last=True)
    for resource_id in large:
        yield from _large(resource_id, rest.pop(resource_id), until, cutoff)
    for resource_id, since in rest.items():
        yield Window(resource_id, intervals.claims((), cutoff), since, until, is_last=True)


def load_facts(resource_ids: Iterable[UUID], cutoff: int) -> dict[UUID, list[Fact]]:
    """Return what all events of some resources say, for reading single resources; readings are added up. One query."""
    wanted = dict.fromkeys(resource_ids, 0)
    if not wanted:
        return {}
    found: dict[UUID, list[Fact]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_FACTS, _parameters(wanted, END_OF_TIME, cutoff))
        for resource_id, fact in map(_fact, cursor):
            found[resource_id].append(fact)
    return found


def _of_resources(
    wanted: Mapping[UUID, int], until: int, cutoff: int
) -> Iterator[tuple[UUID, list[Fact] | None]]:
    """Yield the facts of one resource after the other, None instead if they are more than `FACTS_MAX`."""
    if not wanted:
        return
    for resource_id, rows in groupby(_rows(wanted, until, cutoff), key=itemgetter(0)):
        facts: list[Fact] | None = []
        for row in rows:
            if facts is None:
                continue
            facts.append(_fact(row)[1])
            if len(facts) > FACTS_MAX:
                facts = None
        yield resource_id, facts


def _rows(wanted: Mapping[UUID, int], until: int, cutoff: int) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a cursor that PostgreSQL keeps, so that only some are here."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(_FACTS, _parameters(wanted, until, cutoff))
        while rows := cursor.fetchmany(_FETCHED):
            yield from rows


def _large(resource_id: UUID, since: int, until: int, cutoff: int) -> Iterator[Window]:
    with connection.cursor() as cursor:
        cursor.execute(_HOURS, _parameters({resource_id: since}, until, cutoff))
        hours = cursor.fetchall()
    ends = [*_cuts(hours, since), until]
    for end in ends:
        with connection.cursor() as cursor:
            cursor.execute(_FACTS, _parameters({resource_id: since}, end, cutoff))
            facts = [_fact(row)[1] for row in cursor]
        yield Window(resource_id, intervals.claims(facts, cutoff), since, end, is_last=end == until)
        since = end


def _cuts(hours: Sequence[tuple[int, int]], since: int) -> Iterator[int]:
    """Yield where to cut the time so that each part has about `FACTS_MAX` events, hours being indivisible."""
    count = 0
    for hour, events in hours:
        if count and count + events > FACTS_MAX and hour > since:
            yield hour
            count = 0
        count += events


def _parameters(wanted: Mapping[UUID, int], until: int, cutoff: int) -> dict[str, Any]:
    return {
        "ids": list(wanted),
        "since": [from_ms(since) for since in wanted.values()],
        "until": [from_ms(until)] * len(wanted),
        "cutoff": from_ms(cutoff),
    }


def _fact(row: Sequence[Any]) -> tuple[UUID, Fact]:
    resource_id, *fields = row
    fact = Fact(*fields)
    return resource_id, fact._replace(quantity=int(fact.quantity)) if fact.meter else fact
