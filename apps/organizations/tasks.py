"""Mails of invites."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task
from django.utils import timezone

from apps.core import jobs
from apps.organizations import services as organizations


@shared_task(name="organizations.mail_invite")
def mail_invite(*, invite_id: str, **_newer: object) -> None:
    """Send the mail of one invite."""
    organizations.mail_invite(invite_id=UUID(invite_id), now=timezone.now())


@shared_task(name="organizations.sweep_invites")
def sweep_invites(**_newer: object) -> None:
    """Queue the mails that were never sent."""
    for invite_id in organizations.unmailed(now=timezone.now()):
        jobs.enqueue("organizations.mail_invite", invite_id=invite_id)
