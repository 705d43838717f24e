"""A day of May in hours, and running allocations, for the tests of billing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from apps.billing.models import ChargeHour
from apps.organizations.models import Organization
from tests import build
from tests.metering.events import heartbeat, started, stopped

HOUR = timedelta(hours=1)


def at(hour: float) -> datetime:
    """Return a time of the day on which these tests play; now is 12 o'clock."""
    return datetime(2026, 5, 15, tzinfo=UTC) + hour * HOUR


def run(organization: Organization, subject: str, start: datetime, end: datetime, **data: Any) -> None:
    """Send an allocation of one GPU that is last heard of a minute before `end`, and never stopped."""
    data = {"organization": organization.slug, "gpus": 1, **data}
    build.events(
        started(subject, start, **data),
        heartbeat(subject, end - timedelta(minutes=1), organization=organization.slug),
    )


def stop(organization: Organization, subject: str, end: datetime) -> None:
    """Send the stop of an allocation, which may lie before usage that was counted already."""
    build.events(stopped(subject, end, organization=organization.slug))


def charged(organization: Organization) -> dict[str, tuple[str, int]]:
    """Return the quantity and micros of every charged hour of an organization with one key an hour."""
    rows = ChargeHour.objects.filter(organization=organization, quantity__gt=0)
    return {f"{row.hour:%d %H:%M}": (plain(row.quantity), row.amount_micros) for row in rows.order_by("hour")}


def plain(quantity: Decimal) -> str:
    return f"{quantity.normalize():f}"
