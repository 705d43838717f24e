"""Mails about tokens."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from apps.credentials import services


@shared_task(name="credentials.mail_reuse")
def mail_reuse(*, family_id: str, **_newer: object) -> None:
    """Tell a person that one of their refresh tokens came twice."""
    services.mail_reuse(family_id=UUID(family_id))
