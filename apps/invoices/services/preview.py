"""What closing the running month would make at this moment: the close itself, taken back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction

from apps.billing import services as billing
from apps.core.errors import NotFound
from apps.invoices.composing import Composition, Settlement
from apps.invoices.parties import Buyer, Seller
from apps.invoices.services.close import compose_document
from apps.ledger import services as ledger
from apps.metering import services as metering
from apps.organizations import services as organizations
from apps.organizations.models import Organization


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The document of a period as it would be now; `until` is the moment up to which usage counts."""

    label: str
    until: datetime
    currency: str
    seller: Seller
    buyer: Buyer
    composition: Composition
    settlement: Settlement


def preview_period(*, organization_id: UUID, now: datetime) -> Preview:
    """Return what the running period's document would be if the period ended now; nothing is kept.

    The period is ended, counted and charged as closing does it, under the same locks, and all of it is rolled back.
    Raises NotFound for an organization without a running period.
    """
    with transaction.atomic():
        preview = _close_now(organization_id, now)
        transaction.set_rollback(True)
    return preview


def _close_now(organization_id: UUID, now: datetime) -> Preview:
    metering.lock_metering(organization_id=organization_id)
    organization = Organization.objects.get(pk=organization_id)
    ledger.open_book(organization_id=organization_id, currency=organization.currency, now=now)
    organizations.ensure_periods(organization_id=organization_id, covering=now)
    period = organizations.period_containing(organization_id, now)
    if period is None or period.starts_at == now:
        raise NotFound
    organizations.end_period(period=period, at=now)
    billing.meter_and_charge(organization_id=organization_id, until=now, now=now)
    document = compose_document(organization, period, now=now)
    return Preview(
        label=period.label,
        until=now,
        currency=organization.currency,
        seller=document.seller,
        buyer=document.buyer,
        composition=document.composition,
        settlement=document.settlement,
    )
