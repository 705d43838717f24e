"""What /metrics tells: counters that each process keeps, and what apps read from the database when asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
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
    return generate_latest(_asked(now)) + generate_latest(_kept_by_processes())


def figures(now: datetime) -> dict[str, str]:
    """Return what apps read from the database now as decimals, by name; labels in braces, as Prometheus writes them."""
    return {
        sample.name + _labels(sample.labels): f"{Decimal(str(sample.value)).normalize():f}"
        for family in _asked(now).collect()
        for sample in family.samples
    }


def _asked(now: datetime) -> CollectorRegistry:
    asked = CollectorRegistry(auto_describe=False)
    for name in settings.METRICS_COLLECTORS:
        collector = cast("Callable[[datetime], Collector]", import_string(name))
        asked.register(collector(now))
    return asked


def _labels(labels: dict[str, str]) -> str:
    parts = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{{{parts}}}" if parts else ""


def _kept_by_processes() -> CollectorRegistry:
    if SHARED_FOLDER not in os.environ:
        return REGISTRY
    registry = CollectorRegistry(auto_describe=False)
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus-client types it not.
    return registry
