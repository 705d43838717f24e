"""Mails with links, and forgetting what people asked for."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task
from django.utils import timezone

from apps.core import jobs
from apps.identity import services as identity


@shared_task(name="identity.mail_sign_up")
def mail_sign_up(*, sign_up_id: str, **_newer: object) -> None:
    """Mail what came of one sign-up."""
    identity.mail_sign_up(sign_up_id=UUID(sign_up_id), now=timezone.now())


@shared_task(name="identity.mail_password_reset")
def mail_password_reset(*, reset_id: str, **_newer: object) -> None:
    """Mail the link that one wish for a new password asks for."""
    identity.mail_password_reset(reset_id=UUID(reset_id), now=timezone.now())


@shared_task(name="identity.sweep_requests")
def sweep_requests(**_newer: object) -> None:
    """Queue the mails that were never sent, and forget old wishes."""
    now = timezone.now()
    for sign_up_id in identity.unmailed_sign_ups(now=now):
        jobs.enqueue("identity.mail_sign_up", sign_up_id=sign_up_id)
    for reset_id in identity.unmailed_resets(now=now):
        jobs.enqueue("identity.mail_password_reset", reset_id=reset_id)
    identity.forget_old_requests(now=now)
