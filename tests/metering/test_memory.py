"""However many events wait, counting and taking them in hold a bounded part of them."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable

import pytest
from django.db import connection

from apps.metering import services
from apps.metering.models import Resource, UsageHour
from tests import build
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
# Held at once, each of the backlogs below takes more.
PEAK_MIB_MAX = 32


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
        100_000,
        "usage.recorded",
        "'2026-05-15T09:00Z'::timestamptz + i * interval '0.1 s'",
        meter="'requests'",
        quantity="2.5",
    )

    assert peak_mib(lambda: tick(lab.pk, NOW)) < PEAK_MIB_MAX

    hours = UsageHour.objects.order_by("hour").values_list("quantity", flat=True)
    # 35,999 in the first hour, beside the one that was sent; 36,000 in the second; the rest in the third.
    assert [f"{quantity:f}" for quantity in hours] == ["89998.500000", "90000.000000", "70002.500000"]


def test_a_backlog_of_intervals_of_one_subject_is_counted_in_little_memory(lab):
    send(recorded("endpoint", EARLIER, EARLIER + minutes(0.05), gpus=1))
    add_events(
        "endpoint",
        40_000,
        "usage.recorded",
        "'2026-05-13T00:00Z'::timestamptz + i * interval '2 s'",
        sku="'h100'",
        region="'eu'",
        gpus="2",
        started_at="'2026-05-13T00:00Z'::timestamptz + i * interval '2 s' - interval '1 s'",
        ended_at="'2026-05-13T00:00Z'::timestamptz + i * interval '2 s'",
    )

    assert peak_mib(lambda: tick(lab.pk, NOW)) < PEAK_MIB_MAX

    hours = list(UsageHour.objects.order_by("hour").values_list("quantity", flat=True))
    # One second of every two on two GPUs, for 80,000 seconds; and what was sent.
    assert [f"{quantity:f}" for quantity in hours] == ["3600.000000"] * 22 + ["800.000000", "3.000000"]


def test_a_backlog_of_heartbeats_of_one_resource_is_counted_in_little_memory(lab):
    send(heartbeat("a", EARLIER - minutes(1)))
    add_events(
        "a", 200_000, "allocation.heartbeat", "'2026-05-15T09:00Z'::timestamptz + i * interval '0.05 s'"
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


def test_a_backlog_of_many_subjects_is_counted_in_little_memory(lab):
    for start in range(0, 200, 100):
        send(
            *(reading(EARLIER, "requests", 1, subject=f"s{n}", id=f"s{n}") for n in range(start, start + 100))
        )
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO metering_usageevent (source, event_id, payload_hash, organization_id, resource_id, type, time,"
            " sku, region, meter, quantity, labels, received_at, correlation_id)"
            " SELECT 'prov', subject || '/' || i, sha256(''), organization_id, id, 'usage.recorded',"
            " '2026-05-01T00:00Z'::timestamptz + i * interval '1 hour', '', '', 'requests', 1, '{}', now(), ''"
            " FROM metering_resource, generate_series(1, 200) AS i"
        )

    assert peak_mib(lambda: tick(lab.pk, NOW)) < PEAK_MIB_MAX / 2

    assert UsageHour.objects.count() == 200 * 201


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
def test_a_body_of_8_mib_is_taken_in_little_memory(lab, content_type):
    labels = {f"label-{number:02d}": "x" * 20 for number in range(14)}
    events = [
        json.dumps(recorded("a", EARLIER, EARLIER + minutes(1), id=f"{number:05d}", labels=labels))
        for number in range(10_000)
    ]
    body = ("\n".join(events) if content_type.endswith("ndjson") else f"[{','.join(events)}]").encode()
    del events
    assert 7 * MIB < len(body) < 8 * MIB

    assert (
        peak_mib(
            lambda: services.ingest_body(actor=provisioner(), body=body, content_type=content_type, now=NOW)
        )
        < PEAK_MIB_MAX / 4
    )
