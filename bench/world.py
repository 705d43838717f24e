"""What the benchmarks run on: organizations, a price book, keys, events."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.utils import timezone

from apps.core.actor import system_actor
from apps.core.permissions import IntegrationScope, Permission
from apps.credentials import services as credentials
from apps.organizations import services as organizations
from apps.organizations.models import Organization
from apps.pricing import files
from apps.pricing import services as pricing
from apps.pricing.models import Meter

SOURCE = "bench"
BATCH = 1_000
RESOURCES = 1_000
SKU, REGION = "h100", "eu-north1"
ACTOR = system_actor("bench")


def price_book() -> None:
    """Publish a book that prices what the benchmarks use."""
    book = {
        "name": "Bench",
        "currency": "USD",
        "effective_from": "1970-01-01T00:00:00Z",
        "prices": [
            {"meter": "gpu_hours", "sku": SKU, "region": REGION, "model": "per_unit", "unit_price": "2.49"}
        ],
    }
    content = files.read_json(json.dumps(book), meters=Meter.objects.values_list("code", flat=True))
    pricing.import_price_book(actor=ACTOR, content=content, publish=True, now=timezone.now())


def make_organizations(count: int, prefix: str, *, created_at: datetime | None = None) -> list[Organization]:
    """Make organizations named prefix-0000 and so on."""
    now = created_at or timezone.now()
    return [
        organizations.create_organization(
            actor=ACTOR, name=f"{prefix}-{number:04d}", slug=f"{prefix}-{number:04d}", now=now
        )
        for number in range(count)
    ]


def integration_key() -> str:
    """Return the secret of an integration that may send any usage."""
    _integration, secret = credentials.create_integration(
        actor=ACTOR, name="bench", scopes=[str(scope) for scope in IntegrationScope], now=timezone.now()
    )
    return secret


def api_key(organization: Organization) -> str:
    """Return the secret of an API key that may read everything."""
    _key, secret = credentials.create_api_key(
        actor=ACTOR,
        organization=organization,
        name="bench",
        scopes=[str(permission) for permission in Permission if permission.endswith(".read")],
        now=timezone.now(),
    )
    return secret


def heartbeat_bodies(organizations: list[Organization], count: int) -> list[bytes]:
    """Return batches of 1,000 events with random ids: starts of 1,000 resources, then heartbeats."""
    numbers = random.Random(1)  # noqa: S311
    start = timezone.now() - timedelta(hours=3)
    step = timedelta(hours=2) / max(count // RESOURCES, 1)
    events: list[bytes] = []
    for number in range(count):
        resource = number % RESOURCES
        first = number < RESOURCES
        organization = organizations[resource % len(organizations)]
        data: dict[str, str] = {"organization": organization.slug}
        if first:
            data |= {"sku": SKU, "region": REGION, "gpus": str(numbers.choice((1, 2, 4, 8)))}
        event = {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": SOURCE,
            "type": f"allocation.{'started' if first else 'heartbeat'}",
            "subject": f"resource-{resource:04d}",
            "time": (start + step * (number // RESOURCES)).isoformat(timespec="milliseconds"),
            "data": data,
        }
        events.append(json.dumps(event).encode())
    return [b"[" + b",".join(events[at : at + BATCH]) + b"]" for at in range(0, count, BATCH)]


def month_bodies(organizations: list[Organization], resources: int) -> Iterator[bytes]:
    """Yield batches in which every resource of every organization ran for ten hours of January 2026."""
    month = datetime(2026, 1, 1, tzinfo=UTC)
    events: list[dict[str, object]] = []
    for organization in organizations:
        for number in range(resources):
            started = month + timedelta(hours=3 * number % 700, seconds=number)
            ended = started + timedelta(hours=10)
            events.append(
                {
                    "specversion": "1.0",
                    "id": str(uuid.uuid4()),
                    "source": SOURCE,
                    "type": "usage.recorded",
                    "subject": f"job-{number:04d}",
                    "time": ended.isoformat(),
                    "data": {
                        "organization": organization.slug,
                        "sku": SKU,
                        "region": REGION,
                        "gpus": "8",
                        "started_at": started.isoformat(),
                        "ended_at": ended.isoformat(),
                    },
                }
            )
            if len(events) == BATCH:
                yield json.dumps(events).encode()
                events = []
    if events:
        yield json.dumps(events).encode()
