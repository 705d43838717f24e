"""What the benchmarks run on: organizations, a price book, keys, events."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.utils import timezone

from apps.core.actor import system_actor
from apps.core.permissions import IntegrationScope, Permission
from apps.credentials import services as credentials
from apps.metering.models import DIRTY_RESOURCES_MAX
from apps.organizations import services as organizations
from apps.organizations.models import Organization
from apps.pricing import files
from apps.pricing import services as pricing
from apps.pricing.models import Meter, PriceBook

SOURCE = "bench"
BATCH = 1_000
RESOURCES = 1_000
SKU, REGION = "h100", "eu-north1"
ACTOR = system_actor("bench")


def price_book() -> None:
    """Publish a book that prices what the benchmarks use."""
    price_skus([SKU], region=REGION, name="Bench")


def price_skus(skus: list[str], *, name: str, region: str = "*") -> PriceBook:
    """Publish a book of that name in which every GPU-hour costs the same, and return it."""
    book = {
        "name": name,
        "currency": "USD",
        "effective_from": "1970-01-01T00:00:00Z",
        "prices": [
            {"meter": "gpu_hours", "sku": sku, "region": region, "model": "per_unit", "unit_price": "2.49"}
            for sku in skus
        ],
    }
    content = files.read_json(json.dumps(book), meters=Meter.objects.values_list("code", flat=True))
    return pricing.import_price_book(actor=ACTOR, content=content, publish=True, now=timezone.now()).book


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
    numbers = random.Random(1)  # noqa: S311  To be repeated, not to be secret.
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


def large_lines(organizations: list[Organization], count: int, *, events: int) -> list[bytes]:
    """Return bodies of one event a line, each nearly the 8 MiB that are taken if it has 10,000 events."""
    labels = {f"label-{number:02d}": "x" * 20 for number in range(14)}
    moment = (timezone.now() - timedelta(hours=4)).isoformat(timespec="milliseconds")
    bodies = []
    for body in range(count):
        lines = (
            json.dumps(
                {
                    "specversion": "1.0",
                    "id": str(uuid.uuid4()),
                    "source": SOURCE,
                    "type": "allocation.started",
                    "subject": f"large-{body}-{number % RESOURCES:04d}",
                    "time": moment,
                    "data": {
                        "organization": organizations[number % len(organizations)].slug,
                        "sku": SKU,
                        "region": REGION,
                        "gpus": "1",
                        "labels": labels,
                    },
                }
            )
            for number in range(events)
        )
        bodies.append("\n".join(lines).encode())
    return bodies


def store_events(count: int) -> Organization:
    """Fill the event table as if that many events of 1,000 resources had arrived and been counted before.

    Returns the organization whose resources they are: each started once and reported every second since.
    """
    (organization,) = make_organizations(1, "stored")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO metering_resource (id, organization_id, source, subject, is_single_event) "
            "SELECT gen_random_uuid(), %s, 'stored', 'stored-' || i, false FROM generate_series(1, %s) AS i",
            [organization.pk, RESOURCES],
        )
        for at in range(0, count, 100_000):
            until = min(at + 100_000, count)
            # The events are numbered in the order of their time; each resource's first one is its start.
            cursor.execute(
                "INSERT INTO metering_usageevent (source, event_id, payload_hash, organization_id, resource_id, type, "
                "time, sku, region, meter, gpus, labels, received_at, correlation_id) "
                "SELECT 'bench', gen_random_uuid()::text, sha256(i::text::bytea), %(organization)s, resource.id, "
                "CASE WHEN i < %(resources)s THEN 'allocation.started' ELSE 'allocation.heartbeat' END, "
                "now() - (%(count)s - i) * interval '1 millisecond', "
                "CASE WHEN i < %(resources)s THEN %(sku)s ELSE '' END, "
                "CASE WHEN i < %(resources)s THEN %(region)s ELSE '' END, '', "
                "CASE WHEN i < %(resources)s THEN 8 END, '{}', now(), '' "
                "FROM generate_series(%(first)s, %(last)s) AS i "
                "JOIN (SELECT id, row_number() OVER () - 1 AS number "
                "FROM metering_resource WHERE source = 'stored') resource ON resource.number = i %% %(resources)s",
                {
                    "organization": organization.pk,
                    "resources": RESOURCES,
                    "count": count,
                    "sku": SKU,
                    "region": REGION,
                    "first": at,
                    "last": until - 1,
                },
            )
        cursor.execute("ANALYZE metering_usageevent")
        cursor.execute("ANALYZE metering_resource")
    return organization


def queue_stored(organization: Organization, count: int) -> None:
    """Make the stored events wait to be counted, as batches of 1,000 that arrived while no tick ran."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO metering_dirtybatch (organization_id, resource_ids, since) "
            "SELECT %(organization)s, part.ids, "
            "array_fill(now() - (%(count)s - i) * interval '1 millisecond', ARRAY[cardinality(part.ids)]) "
            "FROM generate_series(0, %(count)s - 1, %(batch)s) AS i, "
            "(SELECT array_agg(id) AS ids FROM (SELECT id, row_number() OVER () AS number FROM metering_resource "
            "WHERE source = 'stored') resource GROUP BY number / %(part)s) part",
            {
                "organization": organization.pk,
                "count": count,
                "batch": BATCH,
                "part": DIRTY_RESOURCES_MAX,
            },
        )


def running_bodies(
    organization: Organization, count: int, *, sku: str, region: str, since: datetime, until: datetime
) -> Iterator[bytes]:
    """Yield one batch that starts machines, and one in which each proves that it still runs."""
    for what, moment in (("started", since), ("heartbeat", until)):
        data = {"sku": sku, "region": region, "gpus": "8"} if what == "started" else {}
        yield json.dumps(
            [
                {
                    "specversion": "1.0",
                    "id": str(uuid.uuid4()),
                    "source": SOURCE,
                    "type": f"allocation.{what}",
                    "subject": f"running-{number:03d}",
                    "time": moment.isoformat(timespec="milliseconds"),
                    "data": {"organization": organization.slug, **data},
                }
                for number in range(count)
            ]
        ).encode()


def month_bodies(organizations: list[Organization], resources: int, *, hours: int = 10) -> Iterator[bytes]:
    """Yield batches in which every resource of every organization ran for some hours of January 2026."""
    month = datetime(2026, 1, 1, tzinfo=UTC)
    events: list[dict[str, object]] = []
    for organization in organizations:
        for number in range(resources):
            started = month + timedelta(hours=3 * number % 700, seconds=number)
            ended = started + timedelta(hours=hours)
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
