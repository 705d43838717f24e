"""Cleaning up."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from apps.idempotency import services


@shared_task(name="idempotency.purge")
def purge(**_newer: object) -> None:
    """Delete the answers that nobody may ask for any more."""
    services.purge(now=timezone.now())
