"""What /metrics tells: counters that each process keeps, and what apps read from the database when asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from typing import cast

from django.conf import settings
from django.utils.module_loading import import_string
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

# Set by gunicorn's configuration: the folder where its workers keep their counters, so that any of them tells of all.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

MACHINE, PERSON = "machine", "person"
_FAILED = Counter(
    "countinghouse_failed_authentications_total",
    "Credentials that did not hold, by what sent them and what was wrong.",
    ["who", "reason"],
)


def failed_authentication[E: Exception](who: str, reason: str, error: E) -> E:
    """Count a credential that did not hold and return the refusal to raise, which says less than the reason.

    who: MACHINE or PERSON. reason: one of few, lower snake case; nothing that a caller sent.
    """
    count_failed_authentication(who, reason)
    return error


def count_failed_authentication(who: str, reason: str) -> None:
    """Count a credential that did not hold, where somebody else refuses it."""
    _FAILED.labels(who=who, reason=reason).inc()


def render(now: datetime) -> bytes:
    """Return the metrics in Prometheus's text format."""
    asked = CollectorRegistry(auto_describe=False)
    for name in settings.METRICS_COLLECTORS:
        collector = cast("Callable[[datetime], Collector]", import_string(name))
        asked.register(collector(now))
    return generate_latest(asked) + generate_latest(_kept_by_processes())


def _kept_by_processes() -> CollectorRegistry:
    if SHARED_FOLDER not in os.environ:
        return REGISTRY
    registry = CollectorRegistry(auto_describe=False)
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
