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


@shared_task(name="invoices.queue_vat_checks")
def queue_vat_checks(**_newer: object) -> None:
    """Queue the VAT ids that the registry has not answered for lately; the beat calls this every hour."""
    invoices.queue_vat_checks(now=timezone.now())


@shared_task(name="invoices.check_vat_id")
def check_vat_id(*, organization_id: str, **_newer: object) -> None:
    """Ask the registry about one organization's VAT id."""
    invoices.check_vat_id(organization_id=UUID(organization_id), now=timezone.now())


@shared_task(name="invoices.make_files")
def make_files(*, invoice_id: str, **_newer: object) -> None:
    """Make the files of one final document."""
    invoices.make_files(invoice_id=UUID(invoice_id), now=timezone.now())


@shared_task(name="invoices.queue_files")
def queue_files(**_newer: object) -> None:
    """Queue the documents whose files were never made; the beat calls this every five minutes."""
    invoices.queue_files(now=timezone.now())
