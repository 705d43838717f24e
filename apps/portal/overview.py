"""What the first page of an organization shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import Sum

from apps.billing import selectors as billing
from apps.billing.models import ChargeHour
from apps.billing.selectors import Balance
from apps.metering import selectors as metering
from apps.metering.selectors import ResourceUsage
from apps.organizations.models import BillingPeriod, Organization


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How an organization stands. spent: of the running period in micros, the open hour included."""

    balance: Balance
    period: BillingPeriod | None
    spent_micros: int
    running: Sequence[ResourceUsage]
    gpus: Decimal


def standing(organization: Organization, *, now: datetime) -> Standing:
    """Return how an organization stands at a moment."""
    balance = billing.balance(organization, now=now)
    running = metering.running_resources(organization.id, now)
    period = BillingPeriod.objects.of(organization.id).containing(now).first()
    posted = ChargeHour.objects.filter(organization=organization, key__period=period).aggregate(
        total=Sum("amount_micros")
    )["total"]
    return Standing(
        balance=balance,
        period=period,
        spent_micros=(posted or 0) + balance.accrued_micros,
        running=running,
        gpus=sum((resource.gpus or Decimal(0) for resource in running), Decimal(0)),
    )
