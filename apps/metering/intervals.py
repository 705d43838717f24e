"""From events to usage: which time was used with how many GPUs, and how much of it falls into each hour.

Pure functions of an event set and a cut-off: the order of arrival, repetition and batching cannot matter. Inside, times
are integer milliseconds since 1970, GPUs integer thousandths and quantities integer millionths, so nothing is rounded.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID

STARTED = "allocation.started"
HEARTBEAT = "allocation.heartbeat"
RESIZED = "allocation.resized"
STOPPED = "allocation.stopped"
RECORDED = "usage.recorded"

GPU_HOURS = "gpu_hours"
INSTANCE_HOURS = "instance_hours"

# Without a stop, a run is believed for this long after its last event.
SILENCE_MS = 60_000
HOUR_MS = 3_600_000
# No piece of an hour begins between two of these: a billing period starts at midnight of some time zone.
QUARTER_MS = HOUR_MS // 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TURN_ORDER = {STOPPED: 0, STARTED: 1, RESIZED: 2, HEARTBEAT: 3}


def to_ms(moment: datetime) -> int:
    """Return a moment in whole milliseconds since 1970, rounded down."""
    return (moment - _EPOCH) // _MILLISECOND


def from_ms(milliseconds: int) -> datetime:
    """Return milliseconds since 1970 as a moment in UTC, exactly."""
    return _EPOCH + milliseconds * _MILLISECOND


class Fact(NamedTuple):
    """What metering needs of one event. `ended` is set for finished intervals, `quantity` for meter readings."""

    id: str
    type: str
    time: int
    milli_gpus: int = 0
    sku: str = ""
    region: str = ""
    project: UUID | None = None
    credential: UUID | None = None
    meter: str = ""
    quantity: int = 0
    started: int | None = None
    ended: int | None = None


class Segment(NamedTuple):
    """A stretch of time that one claim won. `causes` are the ids of the events that say so."""

    start: int
    end: int
    milli_gpus: int
    sku: str
    region: str
    project: UUID | None
    credential: UUID | None
    causes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a set of events proves up to a cut-off.

    segments: in order of time, never overlapping. readings: meter events up to the cut-off.
    ignored: ids of events after a stop and before the next start.
    live_until: where usage ends whatever the cut-off, so no later cut-off changes the result; None without usage.
    running_until: where the part without a stop ends; None when every run is stopped.
    """

    segments: tuple[Segment, ...]
    readings: tuple[Fact, ...]
    ignored: tuple[str, ...]
    live_until: int | None
    running_until: int | None


class HourInParts:
    """The usage of one hour, put together from parts of it without holding their segments: its sums are the same."""

    def __init__(self) -> None:
        self._used: dict[tuple[int, tuple[Any, ...]], int] = {}
        self._readings: list[Fact] = []
        self._last: Usage | None = None

    def add(self, usage: Usage, since: int, until: int) -> None:
        """Add what a usage says about a part of the hour."""
        for segment in usage.segments:
            start, end = max(segment.start, since), min(segment.end, until)
            while start < end:
                stop = min(end, start - start % QUARTER_MS + QUARTER_MS)
                what = (start - start % QUARTER_MS, segment[2:-1])
                self._used[what] = self._used.get(what, 0) + stop - start
                start = stop
        self._readings += [fact for fact in usage.readings if since <= fact.time < until]
        self._last = usage

    def usage(self) -> Usage:
        """Return all that was added; in each quarter what was used alike comes in one piece."""
        assert self._last is not None, "a part was added"
        segments: list[Segment] = []
        for (quarter, what), milliseconds in sorted(self._used.items(), key=lambda item: item[0][0]):
            start = max(quarter, segments[-1].end) if segments else quarter
            segments.append(Segment._make((start, start + milliseconds, *what, ())))
        return replace(self._last, segments=tuple(segments), readings=tuple(self._readings), ignored=())


class HourKey(NamedTuple):
    """What quantities of one resource are added up by; `hour` is where the piece starts."""

    meter: str
    project: UUID | None
    sku: str
    region: str
    credential: UUID | None
    hour: int


class _Claim(NamedTuple):
    """A stretch with a constant number of GPUs; where claims overlap, the greatest (since, milli_gpus, id) wins."""

    since: int
    milli_gpus: int
    id: str
    start: int
    end: int
    fact: Fact
    causes: tuple[str, ...]


@dataclass(slots=True)
class _Run:
    fact: Fact
    steps: list[tuple[int, int, tuple[str, ...]]] = field(default_factory=list)

    def claims(self, end: int) -> Iterator[_Claim]:
        """Yield one claim for each number of GPUs, up to the run's end."""
        ends = [start for start, _gpus, _causes in self.steps[1:]] + [end]
        for (start, milli_gpus, causes), stop in zip(self.steps, ends, strict=True):
            if start < stop:
                yield _Claim(self.fact.time, milli_gpus, self.fact.id, start, stop, self.fact, causes)


def claims(events: Iterable[Fact], cutoff: int) -> Usage:
    """Return the usage that the events of one resource prove, counted up to the cut-off.

    The instant of the cut-off itself is not used time, but a meter reading at it counts.
    """
    facts = list(events)
    readings = sorted((fact for fact in facts if fact.meter), key=lambda fact: (fact.time, fact.id))
    intervals = [fact for fact in facts if fact.ended is not None]
    turns = sorted(
        (fact for fact in facts if fact.type != RECORDED),
        key=lambda fact: (fact.time, _TURN_ORDER[fact.type], fact.id),
    )
    found, ignored, running_until = _follow(turns)
    found += [
        _Claim(fact.started, fact.milli_gpus, fact.id, fact.started, fact.ended, fact, (fact.id,))
        for fact in intervals
        if fact.started is not None and fact.ended is not None and fact.started < fact.ended
    ]
    ends = [claim.end for claim in found] + [fact.time for fact in readings]
    return Usage(
        segments=tuple(_winners(found, cutoff)),
        readings=tuple(fact for fact in readings if fact.time <= cutoff),
        ignored=tuple(ignored),
        live_until=max(ends, default=None),
        running_until=running_until,
    )


def _follow(turns: Sequence[Fact]) -> tuple[list[_Claim], list[str], int | None]:
    """Return the claims of all runs, the ids of ignored events, and where the open runs end."""
    found: list[_Claim] = []
    ignored: list[str] = []
    runs: list[_Run] = []
    for fact in turns:
        if fact.type == STARTED:
            runs.append(_Run(fact, [(fact.time, fact.milli_gpus, (fact.id,))]))
        elif not runs:
            ignored.append(fact.id)
        elif fact.type == STOPPED:
            for run in runs:
                found += run.claims(fact.time)
            runs = []
        elif fact.type == RESIZED:
            for run in runs:
                run.steps.append((fact.time, fact.milli_gpus, (run.fact.id, fact.id)))
    if not runs:
        return found, ignored, None
    # Every event since the oldest open start belongs to it, so the last of all proves them all.
    running_until = turns[-1].time + SILENCE_MS
    for run in runs:
        found += run.claims(running_until)
    return found, ignored, running_until


def _winners(found: Iterable[_Claim], cutoff: int) -> Iterator[Segment]:
    """Yield the winning claim of each stretch of time before the cut-off."""
    # Sorted by (since, GPUs, id), so that a claim's place is its rank; `start` only separates one run's own claims.
    ranked = sorted(found, key=lambda claim: claim[:4])
    arrivals = sorted(range(len(ranked)), key=lambda rank: ranked[rank].start, reverse=True)
    points = sorted({point for claim in ranked for point in (claim.start, claim.end)} | {cutoff})
    contenders: list[int] = []
    last: Segment | None = None
    for start, end in pairwise(points):
        if start >= cutoff:
            break
        while arrivals and ranked[arrivals[-1]].start <= start:
            heapq.heappush(contenders, -arrivals.pop())
        while contenders and ranked[-contenders[0]].end <= start:
            heapq.heappop(contenders)
        if not contenders:
            continue
        won = _segment(ranked[-contenders[0]], start, end)
        if last and last.end == start and last[2:] == won[2:]:
            last = last._replace(end=end)
            continue
        if last:
            yield last
        last = won
    if last:
        yield last


def _segment(claim: _Claim, start: int, end: int) -> Segment:
    fact = claim.fact
    return Segment(
        start, end, claim.milli_gpus, fact.sku, fact.region, fact.project, fact.credential, claim.causes
    )


def hours(
    usage: Usage, boundaries: Sequence[int], since: int | None = None, until: int | None = None
) -> dict[HourKey, int]:
    """Return the quantities, in millionths, of each piece of an hour that has usage.

    GPUs > 0 count as GPU-seconds, GPUs = 0 as instance seconds; readings count at their time.
    boundaries: starts of billing periods, ascending; a piece starts at the later of its UTC hour and its period.
    since, until: whole UTC hours; pieces before the one or from the other on are left out.
    """
    found: dict[HourKey, int] = {}
    for segment in usage.segments:
        meter, weight = (GPU_HOURS, segment.milli_gpus) if segment.milli_gpus else (INSTANCE_HOURS, 1000)
        start = segment.start if since is None else max(segment.start, since)
        end = segment.end if until is None else min(segment.end, until)
        for hour, milliseconds in _pieces(start, end, boundaries):
            key = HourKey(meter, segment.project, segment.sku, segment.region, segment.credential, hour)
            found[key] = found.get(key, 0) + milliseconds * weight
    for fact in usage.readings:
        if fact.quantity and (since is None or fact.time >= since) and (until is None or fact.time < until):
            hour = _piece_of(fact.time, boundaries)
            key = HourKey(fact.meter, fact.project, fact.sku, fact.region, fact.credential, hour)
            found[key] = found.get(key, 0) + fact.quantity
    return found


def _piece_of(moment: int, boundaries: Sequence[int]) -> int:
    hour = moment - moment % HOUR_MS
    index = bisect_right(boundaries, moment)
    return max(hour, boundaries[index - 1]) if index else hour


def _pieces(start: int, end: int, boundaries: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (piece, milliseconds) for each piece that the range touches."""
    index = bisect_right(boundaries, start)
    while start < end:
        hour = start - start % HOUR_MS
        piece = max(hour, boundaries[index - 1]) if index else hour
        stop = min(end, hour + HOUR_MS)
        if index < len(boundaries) and boundaries[index] <= stop:
            stop = boundaries[index]
            index += 1
        yield piece, stop - start
        start = stop
