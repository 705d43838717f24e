"""Reading events for counting: only what can matter from a moment on, never more than a part of it at a time.

However many events wait, a process holds those of one resource, and of a resource with very many only some hours'
worth, or a part of an hour's: an instant is decided by what lies around it (ADR 45, ADR 46).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection

from apps.metering import intervals
from apps.metering.intervals import HOUR_MS, Fact, Usage, from_ms, to_ms

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
# Nothing before the last stop lasts until now, and of what is open at the beginning the latest start wins, with the
# last size. Of heartbeats only the last tells something: any other lies between two events. After a window the next
# stop says how far its runs go, or else the last event of all. Of finished intervals that last all the window long one
# wins all of it, and those that end where it begins say nothing of it, however many end on the hour. A billing period
# starts at midnight of some time zone, so on a quarter of an hour: readings of one are added up by PostgreSQL.
_MATTERING = f"""
    {_WANTED}
    SELECT {_COLUMNS} FROM wanted JOIN metering_usageevent event
        ON event.resource_id = wanted.resource_id
       AND event.type IN ('allocation.started', 'allocation.resized', 'allocation.stopped')
       AND event.time >= wanted.since AND event.time < wanted.until
    UNION ALL
    SELECT {_COLUMNS} FROM wanted CROSS JOIN LATERAL (
        (SELECT * FROM metering_usageevent start
          WHERE start.resource_id = wanted.resource_id AND start.type = 'allocation.started'
            AND start.type IN ('allocation.started', 'allocation.resized', 'allocation.stopped')
            AND start.time >= wanted.stopped AND start.time < wanted.since
          ORDER BY start.time DESC FETCH FIRST ROW WITH TIES)
        UNION ALL
        (SELECT * FROM metering_usageevent size
          WHERE size.resource_id = wanted.resource_id AND size.type = 'allocation.resized'
            AND size.type IN ('allocation.started', 'allocation.resized', 'allocation.stopped')
            AND size.time >= wanted.stopped AND size.time < wanted.since
          ORDER BY size.time DESC, size.event_id COLLATE "C" DESC LIMIT 1)
        UNION ALL
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
       AND event.ended_at > wanted.since AND (event.started_at > wanted.since OR event.ended_at < wanted.until)
    UNION ALL
    SELECT {_COLUMNS} FROM wanted CROSS JOIN LATERAL (
        SELECT * FROM metering_usageevent around
         WHERE around.resource_id = wanted.resource_id AND around.type = 'usage.recorded' AND around.meter = ''
           AND coalesce(around.ended_at, around.time) >= wanted.until AND around.started_at <= wanted.since
         ORDER BY around.started_at DESC, around.gpus DESC, around.event_id COLLATE "C" DESC LIMIT 1
    ) event
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
"""  # noqa: S608  Only the constants above are put in.
_FACTS = f"{_MATTERING} ORDER BY 1"
# The first start since the last stop says since when a run lasts. It may be the latest as well and come twice, which
# says nothing new.
_LATEST = f"""
    {_MATTERING}
    UNION ALL
    SELECT {_COLUMNS} FROM wanted CROSS JOIN LATERAL (
        SELECT * FROM metering_usageevent start
         WHERE start.resource_id = wanted.resource_id AND start.type = 'allocation.started'
           AND start.type IN ('allocation.started', 'allocation.resized', 'allocation.stopped')
           AND start.time >= wanted.stopped AND start.time < wanted.since
         ORDER BY start.time LIMIT 1
    ) event
"""  # noqa: S608  Only the constants above are put in.
# The moments, beginning inside some time, by which events that are read one by one matter.
_MOMENTS = f"""
    {_WANTED}, moments AS (
        SELECT event.time AS moment FROM wanted JOIN metering_usageevent event
            ON event.resource_id = wanted.resource_id
           AND event.type IN ('allocation.started', 'allocation.resized', 'allocation.stopped')
           AND event.time >= wanted.since AND event.time < wanted.until
        UNION ALL
        SELECT bound FROM wanted JOIN metering_usageevent event
            ON event.resource_id = wanted.resource_id AND event.type = 'usage.recorded' AND event.meter = ''
           AND coalesce(event.ended_at, event.time) >= wanted.since AND event.started_at < wanted.until
           AND event.ended_at > wanted.since
          CROSS JOIN LATERAL unnest(ARRAY[event.started_at, event.ended_at]) AS bound
         WHERE bound >= wanted.since AND bound < wanted.until
    )
"""  # noqa: S608  Only constants are put in.
_HOURS = f"""
    {_MOMENTS}
    SELECT (extract(epoch FROM date_trunc('hour', moment, 'UTC')) * 1000)::bigint, count(*)
      FROM moments GROUP BY 1 ORDER BY 1
"""  # noqa: S608  Only constants are put in.
_EVERY = f"""
    {_MOMENTS}
    SELECT DISTINCT (extract(epoch FROM moment) * 1000)::bigint
      FROM (SELECT moment, row_number() OVER (ORDER BY moment) AS place FROM moments) placed
     WHERE place %% %(every)s = 0 ORDER BY 1
"""  # noqa: S608  Only constants are put in.


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


def facts_in(resource_ids: Iterable[UUID], since: int, until: int) -> dict[UUID, list[Fact] | None]:
    """Return what of the events of some resources matters in [since, until), whole UTC hours in milliseconds.

    None for a resource with more than `FACTS_MAX` of them. One query.
    """
    return dict(_of_resources(dict.fromkeys(resource_ids, since), until, until))


def latest_facts(wanted: Mapping[UUID, int], cutoff: int) -> dict[UUID, list[Fact]]:
    """Return what matters from the moment given for each resource on, a whole UTC hour in milliseconds (0: everything).

    With it comes the start of what runs then. Readings are added up. One query.
    """
    if not wanted:
        return {}
    found: dict[UUID, list[Fact]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_LATEST, _parameters(wanted, END_OF_TIME, cutoff))
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
    live_until: int | None = None
    hour = intervals.HourInParts()
    for end in _cuts(resource_id, since, until, cutoff):
        with connection.cursor() as cursor:
            cursor.execute(_FACTS, _parameters({resource_id: since}, end, cutoff))
            facts = [_fact(row)[1] for row in cursor]
        usage = intervals.claims(facts, cutoff)
        live_until = max(
            (known for known in (live_until, usage.live_until) if known is not None), default=None
        )
        usage = replace(usage, live_until=live_until)
        if end % HOUR_MS or since % HOUR_MS:
            hour.add(usage, since, end)
            usage = hour.usage()
        if end % HOUR_MS == 0:
            begin = since - since % HOUR_MS
            yield Window(resource_id, usage, begin, end, is_last=end == until)
            hour = intervals.HourInParts()
        since = end


def _cuts(resource_id: UUID, since: int, until: int, cutoff: int) -> Iterator[int]:
    """Yield where to cut the time so that each part has about `FACTS_MAX` events: between hours, and inside those that
    have more; the end is the last.
    """
    with connection.cursor() as cursor:
        cursor.execute(_HOURS, _parameters({resource_id: since}, until, cutoff))
        hours = cursor.fetchall()
    count, last = 0, since
    for hour, events in hours:
        # A crowded hour is divided by itself: its parts are put together again, what comes before it is not.
        if hour > last and (events > FACTS_MAX or (count and count + events > FACTS_MAX)):
            yield hour
            count, last = 0, hour
        count += events
        if events <= FACTS_MAX:
            continue
        parameters = _parameters({resource_id: hour}, hour + HOUR_MS, cutoff) | {"every": FACTS_MAX}
        with connection.cursor() as cursor:
            cursor.execute(_EVERY, parameters)
            yield from (moment for (moment,) in cursor.fetchall() if moment > hour)
        yield hour + HOUR_MS
        count, last = 0, hour + HOUR_MS
    yield until


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
