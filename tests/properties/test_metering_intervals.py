"""Usage is a pure function of the event set and the cut-off, and agrees with a model that looks at every instant."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from apps.metering.intervals import (
    GPU_HOURS,
    HEARTBEAT,
    INSTANCE_HOURS,
    RECORDED,
    RESIZED,
    STARTED,
    STOPPED,
    Fact,
    HourKey,
    claims,
    hours,
)

PROJECTS = [None, UUID(int=1)]
TURNS = {STOPPED: 0, STARTED: 1, RESIZED: 2, HEARTBEAT: 3}
HOUR = 3_600_000


def model(events: list[Fact], cutoff: int, boundaries: list[int], tick: int) -> dict[HourKey, int]:
    """Ask at each tick who is using the resource; slow, and written from the rules rather than from the code."""
    found: dict[HourKey, int] = defaultdict(int)

    def add(meter: str, event: Fact, moment: int, quantity: int) -> None:
        piece = max([moment // HOUR * HOUR, *[b for b in boundaries if b <= moment]])
        found[HourKey(meter, event.project, event.sku, event.region, event.credential, piece)] += quantity

    times = [cutoff, *[e.time for e in events], *[e.ended for e in events if e.ended is not None]]
    for moment in range(min(times), min(cutoff, max(times) + 60_000), tick):
        if contenders := contenders_at(moment, events):
            _since, gpus, _id, event = max(contenders, key=lambda contender: contender[:3])
            if gpus:
                add(GPU_HOURS, event, moment, tick * gpus)
            else:
                add(INSTANCE_HOURS, event, moment, tick * 1000)
    for event in events:
        if event.meter and event.time <= cutoff and event.quantity:
            add(event.meter, event, event.time, event.quantity)
    return dict(found)


def contenders_at(moment: int, events: list[Fact]) -> list[tuple[int, int, str, Fact]]:
    """Return (since, GPUs, id, event) of everything that claims a moment."""
    turns = sorted((e for e in events if e.type != RECORDED), key=lambda e: (e.time, TURNS[e.type], e.id))
    found = [
        (event.started, event.milli_gpus, event.id, event)
        for event in events
        if event.ended is not None and event.started <= moment < event.ended
    ]
    for index, event in enumerate(turns):
        later = turns[index + 1 :]
        stops = [other.time for other in later if other.type == STOPPED]
        end = stops[0] if stops else turns[-1].time + 60_000
        if event.type == STARTED and event.time <= moment < end:
            sizes = [other.milli_gpus for other in later if other.type == RESIZED and other.time <= moment]
            found.append((event.time, [event.milli_gpus, *sizes][-1], event.id, event))
    return found


def facts(tick: int, span: int) -> st.SearchStrategy[list[Fact]]:
    """Sets of events on a grid of `tick` milliseconds, so that ties are common."""
    row = st.tuples(
        st.sampled_from([STARTED, STARTED, STOPPED, RESIZED, HEARTBEAT, "interval", "interval", "reading"]),
        st.integers(0, span),
        st.integers(0, span),
        st.sampled_from([0, 460, 1000, 8000]),
        st.sampled_from(["h100", "a100"]),
        st.sampled_from(PROJECTS),
    )
    return st.lists(row, max_size=10).map(
        lambda rows: [_fact(f"e{number:02d}", tick, *row) for number, row in enumerate(rows)]
    )


def _fact(
    name: str, tick: int, kind: str, at: int, length: int, gpus: int, sku: str, project: UUID | None
) -> Fact:
    start, end = at * tick, (at + length) * tick
    if kind == "interval":
        return Fact(name, RECORDED, start, gpus, sku, "eu", project, started=start, ended=end)
    if kind == "reading":
        return Fact(name, RECORDED, start, meter="egress_gb", quantity=end)
    if kind == STARTED:
        return Fact(name, kind, start, gpus, sku, "eu", project)
    return Fact(name, kind, start, gpus if kind == RESIZED else 0)


SECONDS = facts(1000, 240)
MILLISECONDS = facts(1, 40)


@settings(deadline=None)
@given(SECONDS, st.integers(0, 320).map(lambda n: n * 1000), st.sampled_from([[], [0], [0, 90_000, 200_000]]))
def test_agrees_with_asking_every_second(events, cutoff, boundaries):
    assert hours(claims(events, cutoff), boundaries) == model(events, cutoff, boundaries, 1000)


@settings(deadline=None)
@given(
    facts(7000, 60).flatmap(
        lambda events: st.tuples(
            st.just(events), st.integers(HOUR - 300_000, HOUR).map(lambda n: n // 1000 * 1000)
        )
    )
)
def test_agrees_across_the_hour(given_events):
    events, shift = given_events
    moved = [
        event._replace(
            time=event.time + shift,
            started=None if event.started is None else event.started + shift,
            ended=None if event.ended is None else event.ended + shift,
        )
        for event in events
    ]
    assert hours(claims(moved, 2 * HOUR), [0]) == model(moved, 2 * HOUR, [0], 1000)


@settings(deadline=None)
@given(MILLISECONDS, st.integers(0, 80))
def test_agrees_with_asking_every_millisecond(events, cutoff):
    assert hours(claims(events, cutoff), [0, 13]) == model(events, cutoff, [0, 13], 1)


@settings(deadline=None)
@given(SECONDS, st.randoms(use_true_random=False), st.integers(0, 320_000))
def test_order_does_not_matter(events, random, cutoff):
    shuffled = list(events)
    random.shuffle(shuffled)

    assert claims(shuffled, cutoff) == claims(events, cutoff)


@settings(deadline=None)
@given(SECONDS, st.integers(0, 320_000))
def test_an_earlier_cutoff_cuts_and_changes_nothing_else(events, cutoff):
    whole = claims(events, 10**12)
    cut = claims(events, cutoff)

    assert cut.live_until == whole.live_until
    assert [(s.start, min(s.end, cutoff), *s[2:]) for s in whole.segments if s.start < cutoff] == list(
        cut.segments
    )
    if whole.live_until is None or whole.live_until <= cutoff:
        assert cut == whole


@settings(deadline=None)
@given(SECONDS)
def test_segments_never_overlap(events):
    segments = claims(events, 10**12).segments

    assert all(segment.start < segment.end for segment in segments)
    assert all(earlier.end <= later.start for earlier, later in pairwise(segments))


@settings(deadline=None)
@given(SECONDS, st.integers(0, 3).map(lambda n: n * HOUR))
def test_a_window_holds_the_same_hours_as_the_whole(events, since):
    usage = claims(events, 10**12)
    boundaries = [0, 100_000]

    assert hours(usage, boundaries, since) == {
        key: quantity for key, quantity in hours(usage, boundaries).items() if key.hour >= since
    }
