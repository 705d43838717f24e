"""`python -m bench.chart`: draw bench/latest.json as docs/images/bench.svg."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path

LATEST = Path(__file__).parent / "latest.json"
CHART = Path(__file__).parents[1] / "docs" / "images" / "bench.svg"
WIDTH, LABEL_WIDTH, ROW, GAP = 760, 290, 26, 34
# Each group has one unit, and so one scale.
GROUPS: Mapping[str, Mapping[str, str]] = {
    "Rows a second, in turns on one machine": {
        "copy_rows_per_s": "raw COPY, one stream",
        "ingest_duplicates_per_s": "events over HTTP, all duplicates",
        "ingest_events_per_s": "events over HTTP, all new",
        "metered_events_per_s": "events counted into hours",
        "backlog_events_per_s_at_1000000": "counted, of 1 million that waited",
        "backlog_events_per_s_at_10000000": "counted, of 10 million that waited",
    },
    "Processor time for 1,000 events, ms": {
        "copy_cpu_ms_per_1000": "raw COPY, PostgreSQL",
        "ingest_postgres_cpu_ms_per_1000": "over HTTP, PostgreSQL",
        "ingest_web_cpu_ms_per_1000": "over HTTP, web workers",
        "ingest_postgres_cpu_ms_per_1000_at_1000000": "PostgreSQL, 1 million stored before",
        "ingest_web_cpu_ms_per_1000_at_1000000": "web workers, 1 million stored before",
        "ingest_postgres_cpu_ms_per_1000_at_10000000": "PostgreSQL, 10 million stored before",
        "ingest_web_cpu_ms_per_1000_at_10000000": "web workers, 10 million stored before",
    },
    "Most memory a process held, MiB (limit 300)": {
        "peak_rss_mb_web": "web worker",
        "peak_rss_mb_worker": "metering",
        "peak_rss_mb_backlog_at_1000000": "metering 1 million that waited",
        "peak_rss_mb_backlog_at_10000000": "metering 10 million that waited",
        "peak_rss_mb_closer": "closing periods",
    },
}


def draw(figures: Mapping[str, float]) -> str:
    """Return the groups of which there are figures as horizontal bars."""
    parts: list[str] = []
    top = 0
    for title, names in GROUPS.items():
        known = {label: figures[name] for name, label in names.items() if name in figures}
        if not known:
            continue
        parts.append(f'<text class="title" x="0" y="{top + 18}">{escape(title)}</text>')
        top += GAP
        most = max(known.values()) or 1
        for label, value in known.items():
            width = max(1, round((WIDTH - LABEL_WIDTH - 80) * value / most))
            parts.append(
                f'<text x="{LABEL_WIDTH - 10}" y="{top + 14}" text-anchor="end">{escape(label)}</text>'
                f'<rect x="{LABEL_WIDTH}" y="{top}" width="{width}" height="{ROW - 8}" rx="2"/>'
                f'<text x="{LABEL_WIDTH + width + 8}" y="{top + 14}">{value:,}</text>'
            )
            top += ROW
        top += 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img" aria-label="Benchmarks">'
        "<style>text{font:13px system-ui,sans-serif;fill:#57606a}.title{font-weight:600}rect{fill:#3b6fd4}"
        "@media (prefers-color-scheme:dark){text{fill:#a5adba}rect{fill:#7aa2f7}}</style>"
        + "".join(parts)
        + "</svg>\n"
    )


if __name__ == "__main__":
    CHART.write_text(draw(json.loads(LATEST.read_text(encoding="utf-8"))), encoding="utf-8")
    print(f"Drawn in {CHART}")
