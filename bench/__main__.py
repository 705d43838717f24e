"""`python -m bench [--only MEASURE] [--events N] …`: run everything once, print and keep the figures."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from pathlib import Path

from bench import stack

LATEST = Path(__file__).parent / "latest.json"
# Modules of this package with a function `measure(options)`, in the order they run.
MEASURES = ("ingest", "requests", "invoices", "documents", "webhooks", "pages", "sweep")
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
        choices=MEASURES,
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
        for name in wanted or MEASURES:
            # They import the application, which can be done only now.
            figures |= importlib.import_module(f"bench.{name}").measure(options)
            figures["stolen_share"] = stack.stolen_share(before)
            _show(figures)
    finally:
        stack.remove(folder)
    # A run of a part adds its figures to those of the last whole run, which leaves those of other sizes alone.
    last = json.loads(options.output.read_text()) if options.output.exists() else {}
    kept = {name: value for name, value in last.items() if wanted or "_at_" in name}
    suffix = f"_at_{options.stored}" if options.stored else ""
    kept |= {f"{name}{suffix}": value for name, value in figures.items()}
    options.output.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")
    print(f"Kept in {options.output}")


def _show(figures: dict[str, float]) -> None:
    width = max(map(len, figures))
    sys.stdout.write("\n".join(f"{name:<{width}}  {value:>12,}" for name, value in figures.items()) + "\n\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
