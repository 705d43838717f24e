"""The Celery tasks of invoices."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task
from django.utils import timezone

from apps.invoices import services as invoices


@shared_task(name="invoices.queue_due_periods")
def queue_due_periods(**_newer: object) -> None:
    """Queue the organizations with periods to draft or to make final; the beat calls this every ten minutes."""
    invoices.queue_due_periods(now=timezone.now())


@shared_task(name="invoices.close_due_periods")
def close_due_periods(*, organization_id: str, **_newer: object) -> None:
    """Draft or make final the periods of one organization that are due."""
    invoices.close_due_periods(organization_id=UUID(organization_id), now=timezone.now())
