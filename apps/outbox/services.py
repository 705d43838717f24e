"""Publishing to the outbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.utils import timezone

from apps.core import correlation
from apps.outbox.models import OutboxEvent


def publish(event_type: str, payload: Mapping[str, Any], *, organization_id: UUID | None = None) -> None:
    """Write an event in the current transaction, to be delivered after it.

    event_type: `<app>.<what happened>`, such as `invoices.invoice_finalized`.
    """
    OutboxEvent.objects.create(
        organization_id=organization_id,
        event_type=event_type,
        payload=dict(payload),
        correlation_id=correlation.current(),
        created_at=timezone.now(),
    )
