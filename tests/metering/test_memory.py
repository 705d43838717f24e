"""However many events wait, counting and taking them in hold a bounded part of them."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.db import connection

from apps.metering import facts, services
from apps.metering.events import bodies
from apps.metering.intervals import HOUR_MS, to_ms
from apps.metering.models import Resource, UsageHour
from apps.metering.services import counting
from tests import build
from tests.depth import FULL
from tests.metering.events import (
    EARLIER,
    NOW,
    heartbeat,
    minutes,
    provisioner,
    reading,
    recorded,
    send,
    tick,
    usage,
)

MIB = 1024 * 1024
# The backlogs are small by default, with windows as much smaller; COUNTINGHOUSE_TEST_FULL makes them large.
SCALE = 1 if FULL else 20
# Held at once, each of the backlogs below takes more.
PEAK_MIB_MAX = 32 if FULL else 6


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(facts, "FACTS_MAX", facts.FACTS_MAX // SCALE)
    monkeypatch.setattr(counting, "SLICE_HOURS", counting.SLICE_HOURS // SCALE)


@pytest.fixture
def lab(db):
    return build.organization("lab", now=EARLIER)


def peak_mib(work: Callable[[], object]) -> float:
    """Return the most memory that Python's objects took during some work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def add_events(subject: str, count: int, kind: str, time: str, **columns: str) -> None:
    """Store events of a known resource as ingestion would, and the news of it; SQL sees the event's number as `i`."""
    resource = Resource.objects.get(subject=subject)
    values = {
        "source": "'prov'",
        "event_id": f"'{subject}/' || i",
        "payload_hash": "sha256(i::text::bytea)",
        "organization_id": f"'{resource.organization_id}'",
        "resource_id": f"'{resource.pk}'",
        "type": f"'{kind}'",
        "time": time,
        "sku": "''",
        "region": "''",
        "meter": "''",
        "labels": "'{}'",
        "received_at": "now()",
        "correlation_id": "''",
        **columns,
    }
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO metering_usageevent ({', '.join(values)}) SELECT {', '.join(values.values())}"
            " FROM generate_series(1, %s) AS i",
            [count],
        )
        cursor.execute(
            "INSERT INTO metering_dirtybatch (organization_id, resource_ids, since) VALUES (%s, ARRAY[%s]::uuid[], %s)",
            [resource.organization_id, resource.pk, [EARLIER - minutes(60 * 24)]],
        )


def test_a_backlog_of_readings_of_one_subject_is_counted_in_little_memory(lab):
    send(reading(EARLIER, "requests", 1, subject="gateway"))
    add_events(
        "gateway",
        100_000 // SCALE,
        "usage.recorded",
        f"'2026-05-15T09:00Z'::timestamptz + i * interval '{0.1 * SCALE} s'",
        meter="'requests'",
        quantity="2.5",
    )

    assert peak_mib(lambda: tick(lab.pk, NOW)) < PEAK_MIB_MAX

    hours = UsageHour.objects.order_by("hour").values_list("quantity", flat=True)
    # One less in the first hour, beside the one that was sent; the rest in the third.
    hourly = 36_000 // SCALE
    counts = [hourly - 1, hourly, 100_000 // SCALE - 2 * hourly + 1]
    assert list(hours) == [
        Decimal("2.5") * count + extra for count, extra in zip(counts, (1, 0, 0), strict=True)
    ]


def test_a_backlog_of_intervals_of_one_subject_is_counted_in_little_memory(lab):
    send(recorded("endpoint", EARLIER, EARLIER + minutes(0.05), gpus=1))
    add_events(
        "endpoint",
        40_000 // SCALE,
        "usage.recorded",
        f"'2026-05-13T00:00Z'::timestamptz + i * interval '{2 * SCALE} s'",
        sku="'h100'",
        region="'eu'",
        gpus="2",
        started_at=f"'2026-05-13T00:00Z'::timestamptz + i * interval '{2 * SCALE} s' - interval '{SCALE} s'",
        ended_at=f"'2026-05-13T00:00Z'::timestamptz + i * interval '{2 * SCALE} s'",
    )

    assert peak_mib(lambda: tick(lab.pk, NOW)) < PEAK_MIB_MAX

    hours = list(UsageHour.objects.order_by("hour").values_list("quantity", flat=True))
    # Half of the time on two GPUs, for 80,000 seconds; and what was sent.
    assert [f"{quantity:f}" for quantity in hours] == ["3600.000000"] * 22 + ["800.000000", "3.000000"]


def test_a_backlog_of_heartbeats_of_one_resource_is_counted_in_little_memory(lab):
    send(heartbeat("a", EARLIER - minutes(1)))
    add_events(
        "a",
        200_000 // SCALE,
        "allocation.heartbeat",
        f"'2026-05-15T09:00Z'::timestamptz + i * interval '{0.05 * SCALE} s'",
    )
    add_events(
        "a",
        1,
        "allocation.started",
        "'2026-05-15T09:00Z'",
        sku="'h100'",
        region="'eu'",
        gpus="1",
        event_id="'s'",
    )

    assert peak_mib(lambda: tick(lab.pk, NOW)) < PEAK_MIB_MAX

    # Until the last heartbeat after 10,000 seconds, and a minute that it is believed for.
    assert usage(lab.pk) == {
        ("gpu_hours", "h100", "a", "05-15 09:00"): "3600",
        ("gpu_hours", "h100", "a", "05-15 10:00"): "3600",
        ("gpu_hours", "h100", "a", "05-15 11:00"): "2860",
    }


def test_a_crowded_hour_of_one_subject_is_counted_in_little_memory(lab):
    send(recorded("endpoint", EARLIER - minutes(5), EARLIER - minutes(4), gpus=1))
    count = 100_000 // SCALE
    step = Decimal(3600) / count
    start = f"'2026-05-15T09:00Z'::timestamptz + (i - 1) * interval '{step} s'"
    end = f"{start} + interval '{10 * step} s'"
    columns = {"sku": "'h100'", "region": "'eu'"}
    add_events("endpoint", count, "usage.recorded", end, gpus="1", started_at=start, ended_at=end, **columns)
    whole = {
        "started_at": "'2026-05-15T09:00Z'",
        "ended_at": "'2026-05-15T10:00Z'",
        "event_id": "'whole/' || i",
    }
    add_events("endpoint", count, "usage.recorded", "'2026-05-15T10:00Z'", gpus="3", **whole, **columns)

    assert peak_mib(lambda: tick(lab.pk, NOW)) < PEAK_MIB_MAX

    hours = list(UsageHour.objects.order_by("hour").values_list("quantity", flat=True))
    # The latest start wins, and of those at once the most GPUs; the last of them reach into the next hour.
    assert hours == [60, 3600 + 2 * step, 9 * step]


def test_intervals_that_end_where_a_window_begins_are_not_read(lab):
    ten = EARLIER.replace(minute=0)
    for number in range(3):
        send(recorded("endpoint", ten - minutes(60), ten, gpus=1, id=f"before-{number}"))
    send(recorded("endpoint", ten - minutes(1), ten + minutes(1), gpus=1, id="into"))
    resource = Resource.objects.get(subject="endpoint")

    found = facts.facts_in([resource.pk], to_ms(ten), to_ms(ten) + HOUR_MS)[resource.pk]

    assert [fact.id for fact in found] == ["into"]


def test_a_run_that_is_resized_without_end_is_counted_in_little_memory(lab):
    send(heartbeat("a", EARLIER - minutes(1)))
    start = {"sku": "'h100'", "region": "'eu'", "gpus": "1", "event_id": "'s'"}
    add_events("a", 1, "allocation.started", "'2026-05-15T09:00Z'", **start)
    times = f"'2026-05-15T09:00Z'::timestamptz + i * interval '{0.1 * SCALE} s'"
    add_events("a", 100_000 // SCALE, "allocation.resized", times, gpus="1 + i %% 2")

    assert peak_mib(lambda: tick(lab.pk, NOW)) < PEAK_MIB_MAX

    # One GPU and two by turns for 10,000 seconds, then one for the minute that the last size is believed for.
    assert usage(lab.pk) == {
        ("gpu_hours", "h100", "a", "05-15 09:00"): "5400",
        ("gpu_hours", "h100", "a", "05-15 10:00"): "5400",
        ("gpu_hours", "h100", "a", "05-15 11:00"): "4260",
    }


def test_a_backlog_of_many_subjects_is_counted_in_little_memory(lab):
    subjects = 200 if FULL else 20
    send(*(reading(EARLIER, "requests", 1, subject=f"s{n}", id=f"s{n}") for n in range(subjects)))
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO metering_usageevent (source, event_id, payload_hash, organization_id, resource_id, type, time,"
            " sku, region, meter, quantity, labels, received_at, correlation_id)"
            " SELECT 'prov', subject || '/' || i, sha256(''), organization_id, id, 'usage.recorded',"
            " '2026-05-01T00:00Z'::timestamptz + i * interval '1 hour', '', '', 'requests', 1, '{}', now(), ''"
            " FROM metering_resource, generate_series(1, 200) AS i"
        )

    assert peak_mib(lambda: tick(lab.pk, NOW)) < PEAK_MIB_MAX

    assert UsageHour.objects.count() == subjects * 201


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson", "an array with NaN"])
def test_a_large_body_is_taken_in_little_memory(lab, kind, monkeypatch):
    part = 1 if FULL else 5
    monkeypatch.setattr(bodies, "CHUNK_EVENTS", bodies.CHUNK_EVENTS // part)
    labels = {f"label-{number:02d}": "x" * 20 for number in range(14)}
    events = [
        json.dumps(recorded("a", EARLIER, EARLIER + minutes(1), id=f"{number:05d}", labels=labels))
        for number in range(10_000 // part)
    ]
    if kind == "an array with NaN":
        events[7] = json.dumps({"id": "x", "data": {"gpus": math.nan}})
    body = ("\n".join(events) if kind.endswith("ndjson") else f"[{','.join(events)}]").encode()
    del events
    assert 7 * MIB < len(body) * part < 8 * MIB
    found: list[services.Outcome] = []

    def take() -> None:
        kind_of_body = kind if "/" in kind else "application/json"
        found.append(services.ingest_body(actor=provisioner(), body=body, content_type=kind_of_body, now=NOW))

    # Beside the body itself, of one with NaN a second copy in parts.
    assert peak_mib(take) < (8 + 17 * ("NaN" in kind)) / part
    assert len(found[0].errors) == ("NaN" in kind)
    assert found[0].accepted == 10_000 // part - ("NaN" in kind)
