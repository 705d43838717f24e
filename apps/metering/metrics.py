"""What /metrics tells about usage, read from the database: it is the same whichever process answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from apps.metering import selectors


class UsageCollector(Collector):
    """The state of ingestion, metering and charging at one moment."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def collect(self) -> Iterator[Metric]:
        health = selectors.health(self.now)
        yield GaugeMetricFamily(
            "countinghouse_metering_lag_seconds",
            "How far the organization that is counted least is behind; 0 before the first tick.",
            health.lag_seconds,
        )
        yield GaugeMetricFamily(
            "countinghouse_metering_backlog",
            "Changed resources that wait for a tick; one may wait several times.",
            health.backlog,
        )
        yield GaugeMetricFamily(
            "countinghouse_charging_backlog", "Changed hours that wait to be charged.", health.uncharged
        )
        yield GaugeMetricFamily(
            "countinghouse_usage_events_stored",
            "Accepted usage events, as estimated by the database's last ANALYZE.",
            health.events_stored,
        )
