"""Sealing."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from apps.audit import services as audit


@shared_task(name="audit.seal")
def seal(**_newer: object) -> None:
    """Put what was written since into the chains."""
    audit.seal_waiting(now=timezone.now())
