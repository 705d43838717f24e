"""The Celery tasks of payments; each can be lost, repeated or run twice at once."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from apps.core import jobs
from apps.payments import services as payments

RECONCILED_EVERY = timedelta(minutes=10)
OVERLAP = timedelta(hours=2)
DAYS_COMPARED = 7


@shared_task(name="payments.process_events")
def process_events(**_newer: object) -> None:
    """Work through the inbox of Stripe's events; every webhook queues this, and the beat every half minute."""
    payments.process_events(now=timezone.now(), clock=timezone.now, limit=200)


@shared_task(name="payments.charge")
def charge(*, payment_id: str, **_newer: object) -> None:
    """Charge the saved card of one attempt."""
    payments.charge_card(payment_id=UUID(payment_id), now=timezone.now())


@shared_task(name="payments.resume")
def resume(*, payment_id: str, **_newer: object) -> None:
    """Find out what became of one payment that nobody works on."""
    payments.resume(payment_id=UUID(payment_id), now=timezone.now())


@shared_task(name="payments.send_refund")
def send_refund(*, refund_id: str, **_newer: object) -> None:
    """Send one approved refund."""
    payments.send_refund(refund_id=UUID(refund_id), now=timezone.now())


@shared_task(name="payments.sweep")
def sweep(**_newer: object) -> None:
    """Queue what a lost job or a crash left behind; the beat calls this every minute."""
    if not settings.STRIPE_SECRET_KEY:
        return
    now = timezone.now()
    payments.queue_abandoned(now=now)
    payments.queue_abandoned_refunds(now=now)
    payments.queue_auto_top_ups(now=now)


@shared_task(name="payments.auto_top_up")
def auto_top_up(*, organization_id: str, **_newer: object) -> None:
    """Top one organization up if it is low."""
    payments.start_if_low(organization_id=UUID(organization_id), now=timezone.now())


@shared_task(name="payments.collect_due")
def collect_due(**_newer: object) -> None:
    """Queue the open invoices; the beat calls this every ten minutes."""
    payments.collect_due(now=timezone.now())


@shared_task(name="payments.collect")
def collect(*, collection_id: str, **_newer: object) -> None:
    """Do what one open invoice needs now."""
    payments.collect(collection_id=UUID(collection_id), now=timezone.now())


@shared_task(name="payments.reconcile")
def reconcile(**_newer: object) -> None:
    """Compare the last hours with Stripe; the beat calls this every ten minutes."""
    if settings.STRIPE_SECRET_KEY:
        now = timezone.now()
        payments.reconcile(since=now - RECONCILED_EVERY - OVERLAP, now=now)


@shared_task(name="payments.reconcile_day")
def reconcile_day(**_newer: object) -> None:
    """Queue the comparison of each day of the last week, and tell of cards that end soon; once a day."""
    now = timezone.now()
    payments.tell_expiring(now=now)
    if settings.STRIPE_SECRET_KEY:
        for days in range(1, DAYS_COMPARED + 1):
            since, until = now - timedelta(days=days), now - timedelta(days=days - 1)
            jobs.enqueue("payments.reconcile_span", since=since.isoformat(), until=until.isoformat())


@shared_task(name="payments.reconcile_span")
def reconcile_span(*, since: str, until: str, **_newer: object) -> None:
    """Compare a span of time with Stripe: what one task has the time for."""
    payments.reconcile(
        since=datetime.fromisoformat(since), until=datetime.fromisoformat(until), now=timezone.now()
    )


@shared_task(name="payments.report_day")
def report_day(**_newer: object) -> None:
    """Report to the operator what is open; once a day, an hour after the week was compared, whatever became of that."""
    if settings.STRIPE_SECRET_KEY:
        payments.tell_operator(now=timezone.now())
