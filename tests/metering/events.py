"""Events as a provisioner sends them, and the tick, for the tests of metering."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from apps.core.actor import Actor, ActorKind
from apps.core.ids import uuid7
from apps.metering import services as metering
from apps.metering.models import UsageHour
from apps.metering.services import Outcome

NOW = datetime(2026, 5, 15, 12, tzinfo=UTC)
EARLIER = datetime(2026, 5, 15, 9, tzinfo=UTC)
INTEGRATION = uuid7()


def event(
    kind: str,
    subject: str | None,
    at: datetime | None,
    /,
    *,
    id: str = "",  # noqa: A002  The envelope's own word.
    source: str = "prov",
    **data: Any,
):
    """Return one CloudEvent; `kind` may leave the prefix `allocation.` out."""
    kind = kind if "." in kind else f"allocation.{kind}"
    name = id or f"{subject}/{kind}/{at.isoformat() if at else ''}"
    found = {"specversion": "1.0", "id": name, "source": source, "type": kind, "data": data}
    if subject is not None:
        found["subject"] = subject
    if at is not None:
        found["time"] = at.isoformat()
    return found


def started(subject: str, at: datetime, /, *, organization: str = "lab", **more: Any):
    return event(
        "started",
        subject,
        at,
        **{"organization": organization, "sku": "h100", "region": "eu", "gpus": 8, **more},
    )


def stopped(subject: str, at: datetime, /, *, organization: str = "lab", **more: Any):
    return event("stopped", subject, at, organization=organization, **more)


def heartbeat(subject: str, at: datetime, /, *, organization: str = "lab", **more: Any):
    return event("heartbeat", subject, at, organization=organization, **more)


def resized(subject: str, at: datetime, gpus: Any, /, *, organization: str = "lab", **more: Any):
    return event("resized", subject, at, organization=organization, gpus=gpus, **more)


def recorded(
    subject: str | None, start: datetime, end: datetime, /, *, organization: str = "lab", **more: Any
):
    fields = {
        "organization": organization,
        "sku": "h100",
        "region": "eu",
        "gpus": 8,
        "started_at": start.isoformat(),
        "ended_at": end.isoformat(),
        "id": f"{subject}/{start.isoformat()}/{end.isoformat()}",
    }
    return event("usage.recorded", subject, None, **{**fields, **more})


def reading(
    at: datetime,
    meter: str,
    quantity: Any,
    /,
    *,
    subject: str | None = None,
    organization: str = "lab",
    **more: Any,
):
    fields = {
        "organization": organization,
        "meter": meter,
        "quantity": quantity,
        "id": f"{meter}/{at.isoformat()}",
    }
    return event("usage.recorded", subject, at, **{**fields, **more})


def provisioner(*scopes: str) -> Actor:
    return Actor(
        kind=ActorKind.INTEGRATION,
        id=INTEGRATION,
        label="provisioner",
        permissions=frozenset({"usage:write", *scopes}),
    )


def send(*events: Any, now: datetime = NOW, backfill: bool = False) -> Outcome:
    """Take events in as the API would."""
    return metering.ingest_body(
        actor=provisioner(*(["usage:backfill"] if backfill else [])),
        body=json.dumps(list(events)).encode(),
        content_type="application/json",
        now=now,
    )


def tick(organization_id: UUID, until: datetime = NOW, *, limit: int = 500) -> int:
    """Count everything up to a moment; return the number of steps."""
    steps = 1
    while metering.meter_organization(
        organization_id=organization_id, until=until, now=until, limit=limit
    ).more:
        steps += 1
    return steps


def usage(organization_id: UUID) -> dict[tuple[str, str, str, str], str]:
    """Return the counted quantities by (meter, SKU, subject, hour) as plain strings."""
    rows = UsageHour.objects.filter(organization_id=organization_id).counted().select_related("resource")
    return {
        (row.meter, row.sku, row.resource.subject, f"{row.hour:%m-%d %H:%M}"): f"{row.quantity.normalize():f}"
        for row in rows.order_by("pk")
    }


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)
