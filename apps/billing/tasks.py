"""The Celery tasks of metering and charging."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task
from django.utils import timezone

from apps.billing import services as billing


@shared_task(name="billing.meter_all")
def meter_all(**_newer: object) -> None:
    """Queue the organizations that need metering; the beat calls this every METERING_TICK_SECONDS."""
    billing.queue_metering(now=timezone.now())


@shared_task(name="billing.meter_organization")
def meter_organization(*, organization_id: str, **_newer: object) -> None:
    """Meter and charge one organization up to now, unless somebody is at it: no worker waits for another."""
    now = timezone.now()
    billing.meter_and_charge(organization_id=UUID(organization_id), until=now, now=now, wait=False)


@shared_task(name="billing.settle_state")
def settle_state(*, organization_id: str, **_newer: object) -> None:
    """Bring the billing state to what credit and plan say; queued when the plan is another, and every tick does it."""
    billing.settle_state(organization_id=UUID(organization_id), now=timezone.now())


@shared_task(name="billing.tell_expiring_credit")
def tell_expiring_credit(**_newer: object) -> None:
    """Tell customers of credit that ends soon; the beat calls this every hour, and a mail is queued once."""
    billing.tell_expiring_credit(now=timezone.now())
