"""Recompute a closed period from its raw events and hold it against the invoices: the proof that trusts nothing stored.

Usage comes from the events, prices from the published rows, the arithmetic from `rating`. What final invoices say of
the period's keys, adjustments on later invoices included, must be the same to the minor unit and to the millionth.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from django.db.models import Sum

from apps.billing import charging
from apps.billing.models import ChargeHour
from apps.core import money
from apps.core.periods import HOUR
from apps.invoices.composing import line_total_minor
from apps.invoices.models import BILLED_KINDS, FINAL_STATES, InvoiceLine
from apps.metering import selectors as metering
from apps.organizations.models import BillingPeriod, Organization
from apps.pricing import selectors as pricing
from apps.pricing.rating import PriceTerms

type _Key = tuple[str, str, str, UUID | None]  # Meter, SKU, region and price line.


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One charge key on which the recomputation and the invoices disagree.

    is_charged: the quantity charged by now is the one recomputed and not the one invoiced, so that the adjustment of
    the next invoice settles it.
    """

    meter: str
    sku: str
    region: str
    computed_quantity: Decimal
    invoiced_quantity: Decimal
    computed_minor: int
    invoiced_minor: int
    is_charged: bool

    def describe(self, currency: str) -> str:
        """Return the difference as a line for people."""
        text = (
            f"{self.meter} {self.sku} {self.region}: computed "
            f"{money.from_minor(self.computed_minor, currency):f} for {money.plain(self.computed_quantity)}, invoiced "
            f"{money.from_minor(self.invoiced_minor, currency):f} for {money.plain(self.invoiced_quantity)}"
        )
        return f"{text}; charged since, the next invoice corrects it" if self.is_charged else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a replay found: how many keys and hours it recomputed, and where it differs."""

    keys: int
    hours: int
    total_minor: int
    differences: tuple[Difference, ...]


def replay(organization: Organization, period: BillingPeriod) -> Replay:
    """Return how a period looks computed anew from events, beside what its final invoices say."""
    counted_until = metering.metered_until(organization.id)
    assert counted_until is not None, "a closed period was metered"
    # The first period takes what is older than itself.
    is_first = not BillingPeriod.objects.of(organization.id).filter(starts_at__lt=period.starts_at).exists()
    start = None if is_first else period.starts_at
    slots = metering.recount(organization.id, start, period.ends_at, counted_until)
    schedule = pricing.schedule(
        organization_id=organization.id,
        currency=organization.currency,
        start=min((period.starts_at, *(slot.hour for slot in slots))),
        end=period.ends_at + HOUR,
    )
    quantities: dict[_Key, Decimal] = defaultdict(Decimal)
    terms_of: dict[_Key, PriceTerms] = {}
    for slot, quantity in slots.items():
        terms = charging.terms_of_hour(schedule, slot, quantity, period_start=period.starts_at)
        if terms is None:
            continue
        key = (slot.meter, slot.sku, slot.region, terms.key_id)
        terms_of[key] = terms
        quantities[key] = money.EXACT.add(quantities[key], quantity)
    computed = {
        key: (quantity, line_total_minor(terms_of[key], quantity, organization.currency))
        for key, quantity in quantities.items()
    }
    invoiced = _invoiced(period)
    nothing = (Decimal(0), 0)
    differing = sorted(
        (
            key
            for key in computed.keys() | invoiced.keys()
            if computed.get(key, nothing) != invoiced.get(key, nothing)
        ),
        key=str,
    )
    charged = _charged(period) if differing else {}
    differences = [
        Difference(
            meter=key[0],
            sku=key[1],
            region=key[2],
            computed_quantity=computed.get(key, nothing)[0],
            invoiced_quantity=invoiced.get(key, nothing)[0],
            computed_minor=computed.get(key, nothing)[1],
            invoiced_minor=invoiced.get(key, nothing)[1],
            is_charged=computed.get(key, nothing)[0]
            == charged.get(key, Decimal(0))
            != invoiced.get(key, nothing)[0],
        )
        for key in differing
    ]
    return Replay(
        keys=len(computed),
        hours=len(slots),
        total_minor=sum(minor for _quantity, minor in computed.values()),
        differences=tuple(differences),
    )


def _charged(period: BillingPeriod) -> dict[_Key, Decimal]:
    rows = (
        ChargeHour.objects.filter(key__period=period, key__price_key_id__isnull=False)
        .values("key__meter", "key__sku", "key__region", "key__price_key_id")
        .annotate(quantity_sum=Sum("quantity"))
    )
    return {
        (row["key__meter"], row["key__sku"], row["key__region"], row["key__price_key_id"]): row[
            "quantity_sum"
        ]
        for row in rows
    }


def _invoiced(period: BillingPeriod) -> dict[_Key, tuple[Decimal, int]]:
    rows = (
        InvoiceLine.objects.filter(key__period=period, invoice__state__in=FINAL_STATES, kind__in=BILLED_KINDS)
        .values("meter", "sku", "region", "key__price_key_id")
        .annotate(quantity_sum=Sum("quantity"), amount_sum=Sum("amount_minor"))
    )
    return {
        (row["meter"], row["sku"], row["region"], row["key__price_key_id"]): (
            row["quantity_sum"],
            int(row["amount_sum"]),
        )
        for row in rows
    }
