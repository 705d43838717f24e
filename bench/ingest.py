"""Ingestion: events a second over HTTP beside COPY, and how fast they are metered."""

from __future__ import annotations

import argparse
import io
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import batched
from typing import Any

from django.db import connection
from django.utils import timezone

from apps.metering import services as metering
from bench import load, processes, stack, world

URL = "/api/v1/usage/events"
# Batches posted before COPY has its turn.
SLICE = 10


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Events a second over HTTP, beside raw COPY of the same rows into a table with the same key and size.

    Both take turns on slices of the same events, so that whatever else the machine does slows both.
    """
    events, stored = options.events, options.stored
    organizations = world.make_organizations(10, "ingest")
    world.price_book()
    key = {"Authorization": f"Bearer {world.integration_key()}"}
    headers = key | {"Content-Type": "application/cloudevents-batch+json"}
    owner = world.store_events(stored) if stored else None
    bodies = world.heartbeat_bodies(organizations, events)
    warm = bodies[: max(1, min(2, len(bodies) - 1))]
    spent: Counter[str] = Counter()
    seconds = copy_seconds = 0.0
    with stack.web("config.wsgi", "/healthz") as (port, master):
        load.post_all(port, URL, warm, headers)
        with _copy_table() as copy_slice:
            for slice_ in batched(bodies[len(warm) :], SLICE):
                web, server = stack.cpu_ms(stack.children(master)), stack.postgres_cpu_ms()
                took, answers = load.post_all(port, URL, slice_, headers)
                seconds += took
                spent["web_cpu_ms"] += stack.cpu_ms(stack.children(master)) - web
                spent["postgres_cpu_ms"] += stack.postgres_cpu_ms() - server
                spent["sent"] += sum(answer["accepted"] for answer in answers)
                server = stack.postgres_cpu_ms()
                took, rows = copy_slice()
                copy_seconds += took
                spent["copy_cpu_ms"] += stack.postgres_cpu_ms() - server
                spent["copied"] += rows
        again, repeated = load.post_all(port, URL, bodies[len(warm) :], headers)
        assert spent["sent"] == spent["copied"], "every event is stored once"
        assert sum(answer["duplicates"] for answer in repeated) == spent["sent"], (
            "and told as a duplicate then"
        )
        metered, meter_rss = _metered_events_per_s(organizations, events)
        # The largest body that is taken, on every connection at once.
        large = world.large_lines(organizations, load.CONNECTIONS, events=min(10_000, events))
        load.post_all(port, URL, large, key | {"Content-Type": "application/x-ndjson"})
        web_rss = max(stack.peak_rss_mb(pid) for pid in stack.children(master))
    drained: dict[str, float] = {}
    if owner:
        world.queue_stored(owner, stored)
        per_s, drain_rss = _metered_events_per_s([owner], stored)
        drained = {"backlog_events_per_s": round(per_s), "peak_rss_mb_backlog": drain_rss}
    thousands = spent["sent"] / 1000
    cpu_ms = (spent["web_cpu_ms"] + spent["postgres_cpu_ms"]) / thousands
    copy_ms = spent["copy_cpu_ms"] / thousands
    return {
        "ingest_events_per_s": round(spent["sent"] / seconds),
        "ingest_duplicates_per_s": round(spent["sent"] / again),
        "copy_rows_per_s": round(spent["copied"] / copy_seconds),
        "ingest_ratio": round(copy_seconds / seconds, 3),
        "ingest_web_cpu_ms_per_1000": round(spent["web_cpu_ms"] / thousands, 1),
        "ingest_postgres_cpu_ms_per_1000": round(spent["postgres_cpu_ms"] / thousands, 1),
        "copy_cpu_ms_per_1000": round(copy_ms, 1),
        "ingest_ratio_by_cpu": round(copy_ms / (cpu_ms / stack.WEB_WORKERS), 3),
        "metered_events_per_s": round(metered),
        "peak_rss_mb_web": web_rss,
        "peak_rss_mb_worker": meter_rss,
        **drained,
    }


@contextmanager
def _copy_table() -> Iterator[Callable[[], tuple[float, int]]]:
    """Yield what copies the events that are new since its last call into a table of its own: (seconds, rows)."""
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
        cursor.execute(
            "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute "
            "WHERE attrelid = 'metering_usageevent'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'id'"
        )
        (columns,) = cursor.fetchone()
        cursor.execute("CREATE TABLE bench_copy AS TABLE metering_usageevent WITH DATA")
        cursor.execute("ALTER TABLE bench_copy ADD CONSTRAINT bench_copy_key UNIQUE (source, event_id)")
        cursor.execute("SELECT coalesce(max(id), 0) FROM metering_usageevent")
        (last,) = cursor.fetchone()

        def copy_slice() -> tuple[float, int]:
            nonlocal last
            rows = io.BytesIO()
            with cursor.copy(
                f"COPY (SELECT {columns} FROM metering_usageevent WHERE id > {last:d}) TO STDOUT"
            ) as copy:
                for block in copy:
                    rows.write(block)
            cursor.execute("SELECT coalesce(max(id), 0) FROM metering_usageevent")
            (last,) = cursor.fetchone()
            text = rows.getvalue()
            started = time.perf_counter()
            with cursor.copy(f"COPY bench_copy ({columns}) FROM STDIN") as copy:
                for at in range(0, len(text), 1 << 18):
                    copy.write(text[at : at + (1 << 18)])
            return time.perf_counter() - started, text.count(b"\n")

        yield copy_slice
        cursor.execute("DROP TABLE bench_copy")


def _metered_events_per_s(organizations: list[Any], events: int) -> tuple[float, int]:
    seconds, rss = processes.run(_meter, [organization.id for organization in organizations])
    return events / seconds, rss


def _meter(organization_id: Any) -> None:
    now = timezone.now()
    while metering.meter_organization(organization_id=organization_id, until=now, now=now).more:
        pass
