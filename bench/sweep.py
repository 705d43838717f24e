"""The sweep: what organizations cost each minute in which they use nothing, beside a tick for each."""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import timedelta

from django.utils import timezone

from apps.billing import services as billing
from apps.billing.models import BillingProgress
from apps.core.ids import uuid7
from apps.core.periods import floor_hour
from apps.metering.models import MeteringState
from apps.organizations.models import Organization, OrganizationStatus
from bench import world

SWEEPS = 5
TICKED = 100
BATCH = 2_000


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return how long a sweep takes over ten times as many idle customers as are invoiced, and a tick of one."""
    # In the middle of an hour, so that none ends between the sweeps.
    now = floor_hour(timezone.now()) + timedelta(minutes=10)
    Organization.objects.update(
        status=OrganizationStatus.DELETED
    )  # What other measures left is none of this one.
    (model,) = world.make_organizations(1, "idle", created_at=now - timedelta(days=60))
    idle = _copies(model, 10 * options.organizations)
    states = MeteringState.objects.bulk_create(
        [MeteringState(organization=each, metered_until=now) for each in idle], batch_size=BATCH
    )
    BillingProgress.objects.bulk_create(
        [BillingProgress(organization=each, charged_until=floor_hour(now)) for each in idle], batch_size=BATCH
    )
    billing.meter_and_charge(organization_id=model.pk, until=now, now=now)
    sweeps = []
    for _sweep in range(SWEEPS):
        now += timedelta(minutes=1)
        started = time.perf_counter()
        billing.queue_metering(now=now)
        sweeps.append(time.perf_counter() - started)
        assert MeteringState.objects.filter(metered_until=now).count() > len(states), "all are counted"
    now += timedelta(minutes=1)
    started = time.perf_counter()
    for organization in idle[:TICKED]:
        billing.meter_and_charge(organization_id=organization.pk, until=now, now=now)
    ticking = time.perf_counter() - started
    return {
        "sweep_idle_organizations": len(idle),
        "sweep_ms_per_1000_idle": round(statistics.median(sweeps) / len(idle) * 1_000_000, 1),
        "tick_ms_per_1000_idle": round(ticking / len(idle[:TICKED]) * 1_000_000, 1),
    }


def _copies(model: Organization, count: int) -> list[Organization]:
    """Make organizations like one, with nothing that belongs to them."""
    fields = {
        field.attname: getattr(model, field.attname)
        for field in model._meta.concrete_fields
        if field.name not in {"id", "slug"}
    }
    rows = [Organization(id=uuid7(), slug=f"idle-copy-{number}", **fields) for number in range(count)]
    return Organization.objects.bulk_create(rows, batch_size=BATCH)
