"""What /metrics tells about the outbox."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import connection
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from apps.outbox.models import OutboxEvent

RECENT = timedelta(hours=1)
# Beyond it PostgreSQL's own estimate is good enough, and counting would read the whole table at every scrape.
COUNTED_MAX = 10_000


class OutboxCollector(Collector):
    """The events that wait to be told, at one moment."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def collect(self) -> Iterator[Metric]:
        oldest = OutboxEvent.objects.order_by("created_at").values_list("created_at", flat=True).first()
        recent = OutboxEvent.objects.filter(created_at__gte=self.now - RECENT).count()
        yield GaugeMetricFamily(
            "countinghouse_outbox_waiting", "Events in the outbox; above 10,000 an estimate.", waiting()
        )
        yield GaugeMetricFamily("countinghouse_outbox_recent", "Those of them of the last hour.", recent)
        yield GaugeMetricFamily(
            "countinghouse_outbox_oldest_seconds",
            "How long the oldest of them has waited.",
            max(0, (self.now - oldest).total_seconds()) if oldest else 0,
        )


def waiting() -> int:
    """Return how many events there are; of many, PostgreSQL's estimate."""
    counted = OutboxEvent.objects.values("pk")[: COUNTED_MAX + 1].count()
    if counted <= COUNTED_MAX:
        return counted
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass", [OutboxEvent._meta.db_table]
        )
        (estimate,) = cursor.fetchone()
    return max(int(estimate), counted)
