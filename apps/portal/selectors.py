"""What the start page shows of the development run: its services, its logins, its demonstration."""

from __future__ import annotations

import json
from base64 import b32decode
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import connection
from django.db.models import Max
from django_otp.oath import totp

from apps.billing import selectors as billing
from apps.billing.charging import Plan
from apps.credentials import bootstrap
from apps.metering import selectors as metering
from apps.metering.models import EventType, MeteringState, UsageEvent
from apps.organizations.models import Organization
from apps.portal.overview import standing
from apps.pricing.models import Price

EVENTS_SHOWN = 8
BROKER_SECONDS_MAX = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One organization as it spends. Amounts are micros; spent: this period, the open hour included."""

    organization: Organization
    resources: int
    gpus: Decimal
    rate_micros: int
    spent_micros: int
    available_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """The tenants, what they add up to where they share a currency, and the newest events."""

    tenants: list[Tenant]
    currency: str
    gpus: Decimal
    rate_micros: int
    spent_micros: int
    events: list[UsageEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What answers.

    metered_until: the evidence that worker and beat do their work, None before the first tick.
    """

    database: str
    broker_answers: bool
    metered_until: datetime | None
    is_metering: bool
    backlog: int


def demonstration(*, now: datetime) -> Demonstration:
    """Return how the demonstration's organizations do at this moment."""
    organizations = list(Organization.objects.existing().filter(is_demonstration=True).order_by("name", "id"))
    tenants = [_tenant(organization, now) for organization in organizations]
    currencies = {tenant.organization.currency for tenant in tenants}
    names = {organization.id: organization for organization in organizations}
    # Heartbeats say only that nothing changed, and there are many.
    changes = UsageEvent.objects.filter(organization__in=names).exclude(type=EventType.HEARTBEAT)
    events = list(changes.select_related("resource").order_by("-id")[:EVENTS_SHOWN])
    for event in events:
        event.organization = names[event.organization_id]
    return Demonstration(
        tenants=tenants,
        currency=currencies.pop() if len(currencies) == 1 else "",
        gpus=sum((tenant.gpus for tenant in tenants), Decimal(0)),
        rate_micros=sum(tenant.rate_micros for tenant in tenants),
        spent_micros=sum(tenant.spent_micros for tenant in tenants),
        events=events,
    )


def services(*, now: datetime) -> Services:
    """Return what of the running services answers."""
    metered_until = MeteringState.objects.aggregate(latest=Max("metered_until"))["latest"]
    late_after = timedelta(seconds=3 * settings.METERING_TICK_SECONDS)
    version = connection.pg_version  # type: ignore[attr-defined]  # Of PostgreSQL alone.
    return Services(
        database=f"PostgreSQL {version // 10_000}.{version % 10_000}",
        broker_answers=_broker_answers(),
        metered_until=metered_until,
        is_metering=metered_until is not None and now - metered_until < late_after,
        backlog=metering.backlog(),
    )


def logins() -> dict[str, Any] | None:
    """Return what `bootstrap` wrote, or None outside the development run or before it ran."""
    if not settings.DEBUG:
        return None
    try:
        return dict(json.loads(bootstrap.kept_in().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def current_code(secret: str) -> str:
    """Return the six digits that an authenticator with this base32 secret shows now."""
    digits = f"{totp(b32decode(secret, casefold=True)):06d}"
    return f"{digits[:3]} {digits[3:]}"


def sample_sku() -> tuple[str, str]:
    """Return a SKU and region that have a price, to try things with."""
    priced = Price.objects.filter(meter_id="gpu_hours").exclude(sku="*")
    price = priced.order_by("version__book__created_at", "id").first()
    if price is None:
        return "h100", "eu-north"
    return price.sku, price.region if price.region != "*" else "eu-north"


def _tenant(organization: Organization, now: datetime) -> Tenant:
    found = standing(organization, now=now)
    return Tenant(
        organization=organization,
        resources=len(found.running),
        gpus=found.gpus,
        rate_micros=found.balance.burn_rate_micros,
        spent_micros=_spent_micros(organization, found.plan, now),
        available_micros=found.balance.available_micros,
    )


def _spent_micros(organization: Organization, plan: Plan, now: datetime) -> int:
    """Return what the running period cost; hours of an earlier one may wait as well."""
    posted = billing.charged_micros(organization.id, now=now)
    running = {period.id for period in plan.periods if period.starts_at <= now < period.ends_at}
    waiting = (delta.micros for delta in plan.deltas if delta.plan.key.period_id in running)
    return sum(posted.values()) + sum(waiting)


def _broker_answers() -> bool:
    try:
        with closing(current_app.connection_for_write()) as broker:
            broker.ensure_connection(max_retries=1, interval_start=0, timeout=BROKER_SECONDS_MAX)
    except Exception:  # noqa: BLE001 (each transport has its own exceptions; any of them means down)
        return False
    return True
