"""`python -m bench [--only MEASURE] [--events N] …`: run everything once, print and keep the figures."""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import batched
from pathlib import Path
from typing import Any

from bench import documents, load, stack, webhooks

LATEST = Path(__file__).parent / "latest.json"
PROCESSES = 2
URL = "/api/v1/usage/events"
# Batches posted before COPY has its turn.
SLICE = 10
# What a stored event needs on disk, in both tables, with indexes and the log of writing it.
STORED_BYTES = 1_500


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--events", type=int, default=100_000, help="Events sent over HTTP.")
    parser.add_argument(
        "--stored", type=int, default=0, help="Events stored before; then ingestion alone is measured."
    )
    parser.add_argument("--organizations", type=int, default=1_000, help="Organizations to invoice.")
    parser.add_argument("--resources", type=int, default=200, help="Resources of each.")
    parser.add_argument("--webhooks", type=int, default=10_000, help="Webhooks that wait.")
    parser.add_argument(
        "--only",
        action="append",
        choices=[name for name, _measure in MEASURES],
        help="One measure, or several: the kept figures of the others stay.",
    )
    parser.add_argument(
        "--customers", type=int, default=500, help="Organizations, one of which opens its pages."
    )
    parser.add_argument("--machines", type=int, default=100, help="Machines that ran for its month.")
    parser.add_argument("--requests", type=int, default=2_000, help="Authenticated requests.")
    parser.add_argument("--output", type=Path, default=LATEST, help="The JSON file that keeps the figures.")
    options = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda number, _frame: sys.exit(128 + number)
    )  # So that `finally` stops all.
    stack.require_disk(options.stored * STORED_BYTES)
    folder = stack.prepare()
    figures: dict[str, float] = {
        "cores": os.cpu_count() or 1,
        "load_average_before": round(os.getloadavg()[0], 2),
    }
    wanted = ["ingest"] if options.stored else options.only
    before = stack.machine_ticks()
    try:
        for name, measure in MEASURES:
            if not wanted or name in wanted:
                figures |= measure(options)
                figures["stolen_share"] = stack.stolen_share(before)
                _show(figures)
    finally:
        stack.remove(folder)
    # A run of a part adds its figures to those of the last whole run.
    kept = json.loads(options.output.read_text()) if options.output.exists() and wanted else {}
    suffix = f"_at_{options.stored}" if options.stored else ""
    kept |= {f"{name}{suffix}": value for name, value in figures.items()}
    options.output.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")
    print(f"Kept in {options.output}")


def measure_ingest(options: argparse.Namespace) -> dict[str, float]:
    """Events a second over HTTP, beside raw COPY of the same rows into a table with the same key and size.

    Both take turns on slices of the same events, so that whatever else the machine does slows both.
    """
    from bench import world

    organizations = world.make_organizations(10, "ingest")
    world.price_book()
    key = {"Authorization": f"Bearer {world.integration_key()}"}
    headers = key | {"Content-Type": "application/cloudevents-batch+json"}
    stored = world.store_events(options.stored) if options.stored else None
    bodies = world.heartbeat_bodies(organizations, options.events)
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
        metered, meter_rss = _metered_events_per_s(organizations, options.events)
        # The largest body that is taken, on every connection at once.
        large = world.large_lines(organizations, load.CONNECTIONS, events=min(10_000, options.events))
        load.post_all(port, URL, large, key | {"Content-Type": "application/x-ndjson"})
        web_rss = max(stack.peak_rss_mb(pid) for pid in stack.children(master))
    drained: dict[str, float] = {}
    if stored:
        world.queue_stored(stored, options.stored)
        per_s, drain_rss = _metered_events_per_s([stored], options.stored)
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
    from django.db import connection

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


def measure_requests(options: argparse.Namespace) -> dict[str, float]:
    """One authenticated GET beside a view that does nothing at all."""
    from bench import world

    (organization,) = world.make_organizations(1, "requests")
    type(organization).objects.filter(pk=organization.pk).update(
        plan="enterprise"
    )  # Its rate is never reached.
    headers = {"X-API-Key": world.api_key(organization)}
    with stack.web("bench.bare", "/") as (port, _master):
        bare = load.get_per_s(port, "/", {}, requests=2 * options.requests)
    with stack.web("config.wsgi", "/healthz") as (port, _master):
        lists = load.get_per_s(port, "/api/v1/billing/credits", headers, requests=options.requests)
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

    world.price_book()
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


def measure_webhooks(options: argparse.Namespace) -> dict[str, float]:
    """Webhooks of Stripe acknowledged and processed a second while thousands wait."""
    return webhooks.measure(options.webhooks, _in_processes)


def measure_pages(options: argparse.Namespace) -> dict[str, float]:
    """How long the overview and the explorer take over a month of a hundred machines."""
    from bench import pages

    return pages.measure(options.customers, options.machines)


def measure_documents(options: argparse.Namespace) -> dict[str, float]:
    """Documents printed a second, and the growth of closing from a tenth of the organizations to all."""
    return documents.measure(options.organizations, options.resources, _in_processes)


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


MEASURES = (
    ("ingest", measure_ingest),
    ("requests", measure_requests),
    ("invoices", measure_invoices),
    ("documents", measure_documents),
    ("webhooks", measure_webhooks),
    ("pages", measure_pages),
)


def _show(figures: dict[str, float]) -> None:
    width = max(map(len, figures))
    sys.stdout.write("\n".join(f"{name:<{width}}  {value:>12,}" for name, value in figures.items()) + "\n\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
