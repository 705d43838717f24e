"""What /metrics tells about the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Count, Min
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from apps.audit.models import WaitingEvent


class AuditCollector(Collector):
    """The events that no chain holds yet, at one moment."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def collect(self) -> Iterator[Metric]:
        waiting = WaitingEvent.objects.aggregate(count=Count("pk"), oldest=Min("event__occurred_at"))
        age = (self.now - waiting["oldest"]).total_seconds() if waiting["oldest"] else 0
        yield GaugeMetricFamily(
            "countinghouse_audit_unsealed", "Audit events not sealed yet.", waiting["count"]
        )
        yield GaugeMetricFamily(
            "countinghouse_audit_oldest_unsealed_seconds",
            "How long the oldest of them has waited; more than some minutes: the sealer stands still.",
            max(0, age),
        )
