"""`python -m bench [--events N] [--organizations N] [--stored N]`: run everything once, print and keep the figures."""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import load, stack

LATEST = Path(__file__).parent / "latest.json"
PROCESSES = 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--events", type=int, default=100_000, help="Events sent over HTTP.")
    parser.add_argument("--stored", type=int, default=0, help="Events stored before the measurement starts.")
    parser.add_argument("--organizations", type=int, default=1_000, help="Organizations to invoice.")
    parser.add_argument("--resources", type=int, default=200, help="Resources of each.")
    options = parser.parse_args()
    folder = stack.prepare()
    figures: dict[str, float] = {"cores": os.cpu_count() or 1, "stored_events": options.stored}
    try:
        for measure in (measure_ingest, measure_requests, measure_invoices):
            figures |= measure(options)
            _show(figures)
    finally:
        stack.remove(folder)
    kept = json.loads(LATEST.read_text()) if LATEST.exists() and options.stored else {}
    suffix = f"_at_{options.stored}" if options.stored else ""
    kept |= {f"{name}{suffix}": value for name, value in figures.items()}
    LATEST.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")
    print(f"Kept in {LATEST}")


def measure_ingest(options: argparse.Namespace) -> dict[str, float]:
    """Events a second over HTTP, beside raw COPY of the same rows into a table with the same key and size."""
    from bench import world

    organizations = world.make_organizations(10, "ingest")
    world.price_book()
    headers = {
        "Authorization": f"Bearer {world.integration_key()}",
        "Content-Type": "application/cloudevents-batch+json",
    }
    if options.stored:
        _store(options.stored)
    bodies = world.heartbeat_bodies(organizations, options.events)
    with stack.web("config.wsgi", "/healthz") as (port, master):
        load.post_all(port, "/api/v1/usage/events", bodies[:2], headers)
        seconds, answers = load.post_all(port, "/api/v1/usage/events", bodies[2:], headers)
        again, repeated = load.post_all(port, "/api/v1/usage/events", bodies[2:], headers)
        rss = max(stack.peak_rss_mb(pid) for pid in stack.children(master))
    sent = sum(answer["accepted"] for answer in answers)
    assert sent == options.events - 2 * world.BATCH, "every event is accepted once"
    assert sum(answer["duplicates"] for answer in repeated) == sent, "and told as a duplicate then"
    copied = _copy_rows_per_s(sent)
    metered, meter_rss = _metered_events_per_s(organizations, options.events)
    return {
        "ingest_events_per_s": round(sent / seconds),
        "ingest_duplicates_per_s": round(sent / again),
        "copy_rows_per_s": round(copied),
        "ingest_ratio": round(sent / seconds / copied, 3),
        "metered_events_per_s": round(metered),
        "peak_rss_mb_web": rss,
        "peak_rss_mb_worker": meter_rss,
    }


def _store(count: int) -> None:
    """Fill the event table, as if that many events had arrived before."""
    from django.db import connection

    from bench import world

    (organization,) = world.make_organizations(1, "stored")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO metering_resource (id, organization_id, source, subject, is_single_event) "
            "VALUES (gen_random_uuid(), %s, 'stored', 'stored', false) RETURNING id",
            [organization.id],
        )
        (resource,) = cursor.fetchone()
        for at in range(0, count, 100_000):
            cursor.execute(
                "INSERT INTO metering_usageevent (source, event_id, payload_hash, organization_id, resource_id, type, "
                "time, sku, region, meter, labels, received_at, correlation_id) "
                "SELECT 'stored', gen_random_uuid()::text, sha256(i::text::bytea), %s, %s, 'allocation.heartbeat', "
                "now() - i * interval '1 millisecond', '', '', '', '{}', now(), '' "
                "FROM generate_series(%s, %s) AS i",
                [organization.id, resource, at, min(at + 100_000, count) - 1],
            )
        cursor.execute("ANALYZE metering_usageevent")


def _copy_rows_per_s(count: int) -> float:
    """Return how fast one COPY stream writes the same rows into a table with the same key, at the same size."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
        cursor.execute(
            "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute "
            "WHERE attrelid = 'metering_usageevent'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'id'"
        )
        (columns,) = cursor.fetchone()
        cursor.execute("CREATE TABLE bench_copy AS TABLE metering_usageevent WITH NO DATA")
        cursor.execute("ALTER TABLE bench_copy ADD CONSTRAINT bench_copy_key UNIQUE (source, event_id)")
        cursor.execute("INSERT INTO bench_copy SELECT * FROM metering_usageevent WHERE source = 'stored'")
        cursor.execute(
            f"CREATE TEMP VIEW bench_rows AS SELECT {columns} FROM metering_usageevent "
            f"WHERE source = 'bench' LIMIT {count:d}"
        )
        rows = io.BytesIO()
        with cursor.copy("COPY (SELECT * FROM bench_rows) TO STDOUT") as copy:
            for block in copy:
                rows.write(block)
        text = rows.getvalue()
        started = time.perf_counter()
        with cursor.copy(f"COPY bench_copy ({columns}) FROM STDIN") as copy:
            for at in range(0, len(text), 1 << 18):
                copy.write(text[at : at + (1 << 18)])
        seconds = time.perf_counter() - started
        cursor.execute("DROP VIEW bench_rows")
        cursor.execute("DROP TABLE bench_copy")
    return count / seconds


def _metered_events_per_s(organizations: list[Any], events: int) -> tuple[float, int]:
    started = time.perf_counter()
    rss = _in_processes(_meter, [organization.id for organization in organizations])
    return events / (time.perf_counter() - started), rss


def _meter(organization_id: Any) -> int:
    from django.utils import timezone

    from apps.metering import services as metering

    now = timezone.now()
    while metering.meter_organization(organization_id=organization_id, until=now, now=now).more:
        pass
    return stack.peak_rss_mb(os.getpid())


def measure_requests(options: argparse.Namespace) -> dict[str, float]:  # noqa: ARG001 (one of several)
    """One authenticated GET beside a view that does nothing at all."""
    from bench import world

    (organization,) = world.make_organizations(1, "requests")
    headers = {"X-API-Key": world.api_key(organization)}
    with stack.web("bench.bare", "/") as (port, _master):
        bare = load.get_per_s(port, "/", {}, requests=4_000)
    with stack.web("config.wsgi", "/healthz") as (port, _master):
        lists = load.get_per_s(port, "/api/v1/billing/credits", headers, requests=2_000)
    return {
        "bare_view_per_s": round(bare),
        "authenticated_get_per_s": round(lists),
        "authenticated_get_ratio": round(lists / bare, 3),
    }


def measure_invoices(options: argparse.Namespace) -> dict[str, float]:
    """Invoices an hour, from stored events to final invoices, in as many processes as there are cores."""
    from django.utils import timezone

    from apps.metering import services as metering
    from bench import world

    organizations = world.make_organizations(options.organizations, "month")
    actor = world.ACTOR
    backfill = type(actor)(kind=actor.kind, id=None, label="bench", permissions=frozenset({"usage:backfill"}))
    for body in world.month_bodies(organizations, options.resources):
        outcome = metering.ingest_body(
            actor=backfill, body=body, content_type="application/cloudevents-batch+json", now=timezone.now()
        )
        assert not outcome.errors, outcome.errors[:3]
    started = time.perf_counter()
    rss = _in_processes(_close, [organization.id for organization in organizations])
    seconds = time.perf_counter() - started
    return {
        "invoices_per_hour": round(options.organizations / seconds * 3600),
        "invoice_seconds": round(seconds, 1),
        "invoiced_organizations": options.organizations,
        "peak_rss_mb_closer": rss,
    }


def _close(organization_id: Any) -> int:
    from django.utils import timezone

    from apps.invoices import services as invoices
    from bench import world

    closed = invoices.close_period(
        actor=world.ACTOR, organization_id=organization_id, label="2026-01", finalize=True, now=timezone.now()
    )
    assert closed.invoice is not None, "there was usage"
    return stack.peak_rss_mb(os.getpid())


def _in_processes(work: Callable[[Any], int], items: list[Any]) -> int:
    """Run the work on each item in processes of their own and return the most memory that any of them held, in MiB."""
    from django.db import connections

    connections.close_all()
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        return max(pool.imap_unordered(work, items))


def _show(figures: dict[str, float]) -> None:
    width = max(map(len, figures))
    sys.stdout.write("\n".join(f"{name:<{width}}  {value:>12,}" for name, value in figures.items()) + "\n\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
