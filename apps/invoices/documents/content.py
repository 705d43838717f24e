"""What a final invoice or credit note says, as plain data: the one source of its PDF, XML, CSV and JSON.

Amounts are decimal strings in major units. A credit note says what it gives, so its amounts are above zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from apps.core import money
from apps.invoices.models import DocumentKind, Invoice, InvoiceLine, InvoiceTax, LineKind
from apps.invoices.parties import Buyer, Seller, due_on
from apps.pricing import rating
from apps.pricing import selectors as pricing
from apps.pricing.rating import PriceTerms, TierShare

MICROSECOND = timedelta(microseconds=1)
VERSION = 3  # Of this shape; a change that moves a printed word counts it up.


def content_of(invoice: Invoice) -> dict[str, Any]:
    """Return what a document says. The same final document says the same, whenever it is asked."""
    assert invoice.finalized_at is not None, "only final documents are printed"
    seller = Seller.from_json(invoice.seller)
    buyer = Buyer.from_json(invoice.buyer, name=invoice.organization.name)
    is_note = invoice.kind != DocumentKind.INVOICE
    sign = -1 if is_note else 1
    lines = list(
        InvoiceLine.objects.filter(invoice=invoice)
        .select_related("key", "corrects__invoice")
        .order_by("position")
    )
    terms = pricing.terms_of_keys({(line.key.price_id, line.key.override_id) for line in lines})
    units = pricing.unit_seconds()
    zone = ZoneInfo(buyer.timezone)

    def major(minor: int) -> str:
        return f"{money.from_minor(sign * minor, invoice.currency):f}"

    return {
        "version": VERSION,
        "type": "credit_note" if is_note else "invoice",
        "kind": invoice.kind,
        "number": invoice.number,
        "currency": invoice.currency,
        "issued_on": str(seller.day_of(invoice.finalized_at)),
        "due_on": str(due_on(invoice)) if invoice.due_minor else None,
        # A process of the release before, which keeps no slug, may have numbered it.
        "organization": invoice.organization_slug or invoice.organization.slug,
        "period": {
            "label": invoice.period.label,
            "start": invoice.period.starts_at.astimezone(zone).isoformat(),
            "end": invoice.period.ends_at.astimezone(zone).isoformat(),
            "first_day": invoice.period.starts_at.astimezone(zone).date().isoformat(),
            # Half-open: what ends at midnight has its last day before it.
            "last_day": (invoice.period.ends_at - MICROSECOND).astimezone(zone).date().isoformat(),
            "timezone": buyer.timezone,
        },
        "corrects": invoice.corrects.number if invoice.corrects else None,
        "reason": invoice.reason,
        "seller": seller.as_json(),
        "buyer": buyer.as_json(),
        "lines": [
            _line(
                line,
                terms[line.key.price_id, line.key.override_id],
                units.get(line.meter, 1),
                invoice.currency,
                sign,
            )
            for line in lines
        ],
        "projects": _projects(lines, invoice.currency, sign),
        "taxes": [
            {
                "category": row.category,
                "percent": money.plain(row.percent),
                "country": row.country,
                "note": row.note,
                "base": major(row.base_minor),
                "tax": major(row.tax_minor),
            }
            for row in InvoiceTax.objects.filter(invoice=invoice).order_by("position")
        ],
        "totals": {
            "subtotal": major(invoice.subtotal_minor),
            "discount": major(invoice.discount_minor),
            "net": major(invoice.subtotal_minor - invoice.discount_minor),
            "tax": major(invoice.tax_minor),
            "total": major(invoice.total_minor),
            "prepaid": "0" if is_note else major(invoice.total_minor - invoice.due_minor),
            "due": "0" if is_note else major(invoice.due_minor),
        },
    }


def _line(
    line: InvoiceLine, terms: PriceTerms, unit_seconds: int, currency: str, sign: int
) -> dict[str, Any]:
    def major(minor: int) -> str:
        return f"{money.from_minor(sign * minor, currency):f}"

    corrected = line.corrects
    return {
        "position": line.position,
        "kind": line.kind,
        "usage_period": line.usage_period,
        "corrects": f"{corrected.invoice.number}/{corrected.position}" if corrected else None,
        "meter": line.meter,
        "sku": line.sku,
        "region": line.region,
        "unit": "h" if unit_seconds != 1 else "",
        "quantity": money.in_unit(sign * line.quantity, unit_seconds),
        "unit_price": money.plain(line.unit_price, decimals_min=2) if line.unit_price is not None else None,
        "tiers": _tiers(line, terms),
        "amount": major(line.amount_minor),
        "discount": major(line.discount_minor),
        "net": major(line.amount_minor - line.discount_minor),
        "tax": major(line.tax_minor),
        "tax_category": line.tax_category,
        "tax_percent": money.plain(line.tax_percent),
    }


def _tiers(line: InvoiceLine, terms: PriceTerms) -> list[dict[str, Any]]:
    """Return what each tier contributes to a line that bills its key whole; corrections have no tiers of their own."""
    if line.kind != LineKind.USAGE or not terms.is_tiered:
        return []
    return [
        {
            "quantity": f"{rating.round_half_up(share.quantity, 6):f}",
            "unit_price": None if share.unit_price is None else money.plain(share.unit_price, decimals_min=2),
            "flat_fee": money.plain(share.flat_fee, decimals_min=2) if share.flat_fee else None,
            "amount": f"{rating.round_half_up(share.amount, 6):f}",
            "packages": _packages(share, terms) if share.unit_price is None else None,
        }
        for share in rating.breakdown(terms, line.quantity)
    ]


def _packages(share: TierShare, terms: PriceTerms) -> dict[str, str]:
    """Return how many packages a share needs, their size and their price; each counts whole from its first unit."""
    assert terms.package_size is not None, "packages have a size"
    assert terms.package_price is not None, "and a price"
    return {
        "count": str(-(-share.quantity // Fraction(terms.package_size))),
        "size": money.plain(terms.package_size),
        "price": money.plain(terms.package_price, decimals_min=2),
    }


def _projects(lines: Sequence[InvoiceLine], currency: str, sign: int) -> list[dict[str, str]]:
    """Return the subtotal by project, by share of quantity and adding up to it; none where no project was named."""
    sums: dict[str, int] = defaultdict(int)
    for line in lines:
        if not line.splits:
            sums[""] += line.amount_minor
            continue
        for split, share in zip(line.splits, _shares(line, currency), strict=True):
            sums[split["project"] or ""] += share
    if not any(sums):
        return []
    rows = sorted(sums.items(), key=lambda row: (not row[0], row[0]))
    return [
        {"project": project, "amount": f"{money.from_minor(sign * minor, currency):f}"}
        for project, minor in rows
    ]


def _shares(line: InvoiceLine, currency: str) -> list[int]:
    """Return what each split of a line has of its amount, in minor units: by quantity, where all have one sign.

    A correction can move usage from one project to another; then each has its own difference, and the first the rest.
    """
    quantities = [Fraction(split["quantity"]) for split in line.splits]
    if min(quantities) >= 0 or max(quantities) <= 0:
        return money.apportion(line.amount_minor, quantities)
    scale = 10 ** money.exponent(currency)
    shares = [int(rating.round_half_up(Fraction(split["amount"]) * scale, 0)) for split in line.splits]
    shares[0] += line.amount_minor - sum(shares)
    return shares
