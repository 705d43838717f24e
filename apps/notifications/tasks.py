"""Sending what was queued."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task
from django.utils import timezone

from apps.notifications import services as notifications


@shared_task(name="notifications.send_mail")
def send_mail(*, mail_id: str, **_newer: object) -> None:
    """Try to send one mail."""
    notifications.send_mail(mail_id=UUID(mail_id), now=timezone.now())


@shared_task(name="notifications.sweep_mails")
def sweep_mails(**_newer: object) -> None:
    """Queue the mails whose next attempt is due."""
    notifications.sweep_mails(now=timezone.now())
