"""The benchmarks run and give every figure; how large the figures are is for no test to say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from bench import chart, processes, stack

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 600
COMMAND = [
    sys.executable,
    "-m",
    "bench",
    "--events",
    "4000",
    "--organizations",
    "2",
    "--resources",
    "5",
    "--webhooks",
    "40",
    "--customers",
    "2",
    "--machines",
    "10",
    "--requests",
    "100",
]
NAMES = {
    "authenticated_get_per_s",
    "authenticated_get_ratio",
    "bare_view_per_s",
    "close_few_organizations",
    "close_few_per_s",
    "close_growth",
    "close_growth_limit",
    "close_many_organizations",
    "close_many_per_s",
    "close_resources",
    "copy_cpu_ms_per_1000",
    "copy_rows_per_s",
    "cores",
    "documents_per_s",
    "explorer_ms",
    "explorer_ms_limit",
    "ingest_duplicates_per_s",
    "ingest_events_per_s",
    "ingest_postgres_cpu_ms_per_1000",
    "ingest_ratio",
    "ingest_ratio_by_cpu",
    "ingest_web_cpu_ms_per_1000",
    "invoice_seconds",
    "invoiced_organizations",
    "invoices_per_hour",
    "load_average_before",
    "metered_events_per_s",
    "overview_ms",
    "overview_ms_limit",
    "pages_usage_rows",
    "peak_rss_mb_closer",
    "peak_rss_mb_web",
    "peak_rss_mb_worker",
    "stolen_share",
    "sweep_idle_organizations",
    "sweep_ms_per_1000_idle",
    "tick_ms_per_1000_idle",
    "webhook_ack_p99_ms",
    "webhook_ack_ratio",
    "webhook_process_ratio",
    "webhook_rows_per_s",
    "webhooks_acknowledged_per_s",
    "webhooks_asked_per_s",
    "webhooks_processed_per_s",
    "webhooks_waiting",
}


def test_a_small_run_gives_every_figure(tmp_path):
    output = tmp_path / "latest.json"

    with subprocess.Popen(
        [*COMMAND, "--output", str(output)], cwd=ROOT, stdout=subprocess.DEVNULL
    ) as process:
        try:
            code = process.wait(SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # It cleans up, and its traceback says where it stood.
            raise
    assert code == 0
    figures = json.loads(output.read_text())
    assert set(figures) == NAMES
    assert max(figures[name] for name in NAMES if name.startswith("peak_rss")) < 300


def test_a_process_that_was_killed_is_an_error_and_not_waited_for():
    with pytest.raises(BrokenProcessPool):
        processes.run(signal.raise_signal, [signal.SIGKILL])


def test_a_run_that_would_fill_the_disk_does_not_start():
    with pytest.raises(SystemExit, match="GB are free"):
        stack.require_disk(10**18)


def test_the_chart_shows_what_was_measured():
    drawn = chart.draw({"copy_rows_per_s": 90_000, "ingest_events_per_s": 30_000})

    assert "events over HTTP, all new" in drawn
    assert "30,000" in drawn
    assert "MiB" not in drawn
