"""What /metrics tells about mails."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Count, Min, Q
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from apps.notifications.models import Mail, MailState

RECENT = timedelta(days=1)


class MailCollector(Collector):
    """The mails that wait and those that were given up, at one moment."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def collect(self) -> Iterator[Metric]:
        waiting = Mail.objects.filter(state=MailState.QUEUED).aggregate(
            count=Count("pk"), retried=Count("pk", filter=Q(attempts__gt=0)), oldest=Min("created_at")
        )
        given_up = Mail.objects.filter(state=MailState.FAILED, created_at__gte=self.now - RECENT).count()
        age = (self.now - waiting["oldest"]).total_seconds() if waiting["oldest"] else 0
        yield GaugeMetricFamily("countinghouse_mails_waiting", "Mails not sent yet.", waiting["count"])
        yield GaugeMetricFamily(
            "countinghouse_mails_retried", "Those of them that failed at least once.", waiting["retried"]
        )
        yield GaugeMetricFamily(
            "countinghouse_mails_oldest_waiting_seconds",
            "How long the oldest of them has waited.",
            max(0, age),
        )
        yield GaugeMetricFamily(
            "countinghouse_mails_given_up", "Mails of the last day that were given up.", given_up
        )
