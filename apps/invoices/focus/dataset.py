"""Final documents as rows of FOCUS 1.2: what each line bills, by resource and tier, then credit and tax.

The billed costs of a document add up to its total to the micro. Unit price times quantity is list and contracted cost
as they are written, exactly; the billed cost differs from these by its share of the rounding of its line.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import batched, chain
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Prefetch

from apps.core import money
from apps.core.spreadsheets import csv_lines, neutral
from apps.invoices.focus.measures import Measure, measure_of
from apps.invoices.focus.usage import Part, parts_of
from apps.invoices.models import Invoice, InvoiceLine, LineKind
from apps.invoices.parties import Seller
from apps.organizations.models import BillingPeriod
from apps.pricing import rating
from apps.pricing import selectors as pricing
from apps.pricing.models import Region, Sku
from apps.pricing.rating import PriceTerms, TierShare

COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency",
    "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost",
    "ContractedUnitPrice", "EffectiveCost", "InvoiceId", "InvoiceIssuerName", "ListCost", "ListUnitPrice",
    "PricingCategory", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "RegionId", "RegionName",
    "ResourceId", "ResourceName", "ResourceType", "ServiceCategory", "ServiceName", "ServiceSubcategory", "SkuId",
    "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId", "SubAccountName", "Tags",
)  # fmt: skip
QUANTITY_DECIMALS = 6
DOCUMENTS_AT_ONCE = 50
CORRECTION = "Correction"
NO_COST = Decimal(0)

Row = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A share of a line with one unit price: a tier, the packages, or the fee for entering a tier.

    consumed: in the meter's own unit, None for a fee. quantity: what is multiplied by the prices.
    cost: exact, in major units; it weighs the billed amount.
    """

    price_id: str
    consumed: Fraction | None
    quantity: Fraction
    unit: str
    unit_price: Decimal
    list_price: Decimal
    cost: Fraction


def month_rows(label: str, organization_id: UUID | None = None) -> Iterator[Row]:
    """Yield the rows of the final documents of a month, of one organization or of all, by organization and number."""
    lines = InvoiceLine.objects.select_related("key__period", "corrects__invoice")
    documents = (
        Invoice.objects.final()
        .filter(period__label=label)
        .select_related("organization", "period")
        .prefetch_related(Prefetch("lines", lines), "taxes")
        .order_by("organization__slug", "number")
    )
    if organization_id:
        documents = documents.filter(organization_id=organization_id)
    for some in batched(documents.iterator(chunk_size=DOCUMENTS_AT_ONCE), DOCUMENTS_AT_ONCE):
        yield from _rows_of(some)


def _rows_of(documents: Sequence[Invoice]) -> Iterator[Row]:
    lines = [line for document in documents for line in document.lines.all()]
    keys = {(line.key.price_id, line.key.override_id) for line in lines}
    terms = pricing.terms_of_keys(keys | {(price_id, None) for price_id, _override in keys if price_id})
    details = _details({line.sku for line in lines})
    regions = dict(Region.objects.values_list("code", "name"))
    parts = parts_of(lines)
    for document in documents:
        costs: dict[tuple[Any, ...], list[Decimal]] = defaultdict(lambda: [NO_COST, NO_COST])
        for line in sorted(document.lines.all(), key=lambda row: row.position):
            own = terms[line.key.price_id, line.key.override_id]
            listed = terms[line.key.price_id, None] if line.key.price_id else own
            for row in _rows_of_line(document, line, own, listed, parts[line.id]):
                sums = costs[_group(line)]
                sums[0] += Decimal(row["ListCost"])
                sums[1] += Decimal(row["ContractedCost"])
                if row["SkuId"]:
                    row["SkuPriceDetails"] = details.get(line.sku, "")
                    row["RegionName"] = regions.get(line.region, "")
                yield row
        yield from _tax_rows(document, costs)


def as_csv(rows: Iterable[Row]) -> Iterator[str]:
    """Yield rows as CSV; a cell without a value is null, and no text can be read as a formula."""
    return csv_lines(chain([COLUMNS], ([neutral(row[name]) for name in COLUMNS] for row in rows)))


def _details(skus: set[str]) -> dict[str, str]:
    """Return the properties of SKUs as SkuPriceDetails has them."""
    names = {"gpus": "GpuCount", "vcpus": "CoreCount", "memory_gib": "MemorySize"}
    found = {}
    for sku in Sku.objects.filter(code__in=skus):
        facts: dict[str, object] = {"InstanceType": sku.code}
        facts |= {
            name: money.plain(Decimal(str(sku.attributes[ours])))
            for ours, name in names.items()
            if sku.attributes.get(ours)
        }
        if sku.attributes.get("accelerator"):
            facts["x_Accelerator"] = sku.attributes["accelerator"]
        found[sku.code] = json.dumps(facts, ensure_ascii=False)
    return found


def _rows_of_line(
    document: Invoice, line: InvoiceLine, terms: PriceTerms, listed: PriceTerms, parts: Sequence[Part]
) -> Iterator[Row]:
    if line.kind == LineKind.CREDIT:
        yield _credit(document, line, line.amount_minor - line.discount_minor)
        return
    if line.kind == LineKind.USAGE:
        yield from _usage_rows(document, line, _pieces(line, terms, listed), parts)
    else:
        yield _correction(document, line, terms)
    if line.discount_minor:
        yield _credit(document, line, -line.discount_minor)


def _usage_rows(
    document: Invoice, line: InvoiceLine, pieces: Sequence[Piece], parts: Sequence[Part]
) -> Iterator[Row]:
    """Yield a row for each piece and part; quantities and billed cost are spread by largest remainder."""
    measure = measure_of(line.meter)
    whole = Fraction(line.quantity)
    seconds = 3600 if measure.consumed_unit != measure.pricing_unit else 1
    cells: list[tuple[Piece, Part | None, int, int]] = []
    for piece in pieces:
        if piece.consumed is None:
            cells.append((piece, None, int(piece.quantity) * 10**QUANTITY_DECIMALS, 0))
            continue
        weights = [Fraction(part.quantity) / whole for part in parts]
        quantities = money.apportion(_millionths(piece.quantity), weights)
        consumed = money.apportion(_millionths(piece.consumed * seconds), weights)
        cells += [(piece, *cell) for cell in zip(parts, quantities, consumed, strict=True)]
    shares = [
        piece.cost * (Fraction(part.quantity) / whole if part else 1) for piece, part, *_quantities in cells
    ]
    billed = money.apportion(money.minor_to_micros(line.amount_minor, document.currency), shares)
    for (piece, part, quantity_millionths, consumed_millionths), micros in zip(cells, billed, strict=True):
        quantity = _from_millionths(quantity_millionths)
        is_fee = piece.consumed is None
        cost = _text(money.from_micros(micros))
        yield _row(document, line) | {
            **_of_sku(line, piece.price_id, measure),
            **(_of_part(part, measure) if part else {}),
            "BilledCost": cost,
            "EffectiveCost": cost,
            "ChargeCategory": "Purchase" if is_fee else "Usage",
            "ChargeFrequency": "Recurring" if is_fee else "Usage-Based",
            "ChargeDescription": _described(line, piece.unit_price, piece.unit),
            "ConsumedQuantity": "" if is_fee else _text(_from_millionths(consumed_millionths)),
            "ConsumedUnit": "" if is_fee else measure.consumed_unit,
            "PricingCategory": "Standard",
            "PricingQuantity": _text(quantity),
            "PricingUnit": piece.unit,
            "ContractedUnitPrice": _text(piece.unit_price),
            "ContractedCost": _text(money.EXACT.multiply(quantity, piece.unit_price)),
            "ListUnitPrice": _text(piece.list_price),
            "ListCost": _text(money.EXACT.multiply(quantity, piece.list_price)),
        }


def _pieces(line: InvoiceLine, terms: PriceTerms, listed: PriceTerms) -> list[Piece]:
    """Return what a line's amount consists of, a unit price each."""
    shares = rating.breakdown(terms, line.quantity)
    beside = _list_shares(shares, terms, listed, line.quantity)
    measure, found = measure_of(line.meter), []
    for number, (share, other) in enumerate(zip(shares, beside, strict=True), start=1):
        price_id = f"{_sku_id(line)}/{line.region or '*'}" + (f"/tier-{number}" if len(shares) > 1 else "")
        if share.unit_price is None:
            is_listed = other is not share
            size, price = terms.package_size, terms.package_price
            list_price = listed.package_price if is_listed else price
            assert size is not None, "packages are sold whole"
            assert price is not None, "at a price"
            assert list_price is not None, "which the list has too"
            found.append(
                Piece(
                    price_id=price_id,
                    consumed=share.quantity,
                    quantity=Fraction(-(-share.quantity // Fraction(size))),
                    unit=f"{money.plain(size)} {measure.pricing_unit}",
                    unit_price=price,
                    list_price=list_price,
                    cost=share.amount,
                )
            )
            continue
        assert other.unit_price is not None, "the list has the same model"
        fee = Fraction(share.flat_fee)
        found.append(
            Piece(
                price_id=price_id,
                consumed=share.quantity,
                quantity=share.quantity,
                unit=measure.pricing_unit,
                unit_price=share.unit_price,
                list_price=other.unit_price,
                cost=share.amount - fee,
            )
        )
        if fee:
            found.append(
                Piece(
                    price_id=f"{price_id}/fee",
                    consumed=None,
                    quantity=Fraction(1),
                    unit="Units",
                    unit_price=share.flat_fee,
                    list_price=other.flat_fee,
                    cost=fee,
                )
            )
    return found


def _list_shares(
    shares: Sequence[TierShare], terms: PriceTerms, listed: PriceTerms, quantity: Decimal
) -> Sequence[TierShare]:
    """Return what the price book asks for the same shares; where its tiers are others, what is asked here."""
    others = rating.breakdown(listed, quantity)
    if listed.model == "per_unit" and terms.model != "package":
        return [others[0]] * len(shares)
    same = (
        (terms.model, terms.package_size) == (listed.model, listed.package_size)
        and len(shares) == len(others)
        and all(share.quantity == other.quantity for share, other in zip(shares, others, strict=True))
    )
    return others if same else shares


def _correction(document: Invoice, line: InvoiceLine, terms: PriceTerms) -> Row:
    """Return the row of a line that corrects an earlier document; it has no resource, and one price at most."""
    measure = measure_of(line.meter)
    cost = _text(money.from_minor(line.amount_minor, document.currency))
    price = "" if line.unit_price is None else _text(line.unit_price)
    return _row(document, line) | {
        **_of_sku(line, f"{_sku_id(line)}/{line.region or '*'}", measure),
        "BilledCost": cost,
        "EffectiveCost": cost,
        "ContractedCost": cost,
        "ListCost": cost,
        "ChargeCategory": "Usage",
        "ChargeClass": CORRECTION,
        "ChargeFrequency": "Usage-Based",
        "ChargeDescription": _described(line, line.unit_price, measure.pricing_unit),
        "ConsumedQuantity": _text(line.quantity),
        "ConsumedUnit": measure.consumed_unit,
        "PricingCategory": "Standard",
        "PricingQuantity": money.in_unit(line.quantity, terms.unit_seconds),
        "PricingUnit": measure.pricing_unit,
        "ContractedUnitPrice": price,
        "ListUnitPrice": price,
    }


def _credit(document: Invoice, line: InvoiceLine, minor: int) -> Row:
    """Return the row of what is credited for a line: promotional credit, or a part that staff waived."""
    cost = _text(money.from_minor(minor, document.currency))
    waived = line.kind == LineKind.CREDIT
    what = document.reason if waived else "Promotional credit"
    return _row(document, line) | {
        **_of_sku(line, "", measure_of(line.meter)),
        **dict.fromkeys(("BilledCost", "EffectiveCost", "ContractedCost", "ListCost"), cost),
        "ChargeCategory": "Credit",
        "ChargeClass": "" if line.kind == LineKind.USAGE else CORRECTION,
        "ChargeFrequency": "One-Time",
        "ChargeDescription": f"{what}: {_named(line)}",
    }


def _tax_rows(document: Invoice, costs: dict[tuple[Any, ...], list[Decimal]]) -> Iterator[Row]:
    """Yield a row for each rate that taxes; its list and contracted cost are the tax on those of its lines."""
    for group in sorted(document.taxes.all(), key=lambda row: row.position):
        if not group.tax_minor and not group.percent:
            continue
        cost = _text(money.from_minor(group.tax_minor, document.currency))
        listed, contracted = costs[group.category, group.percent, group.country, group.note]
        rate = money.EXACT.divide(group.percent, Decimal(100))
        yield _row(document, None) | {
            "BilledCost": cost,
            "EffectiveCost": cost,
            "ListCost": _text(money.EXACT.multiply(listed, rate)),
            "ContractedCost": _text(money.EXACT.multiply(contracted, rate)),
            "ChargeCategory": "Tax",
            "ChargeClass": CORRECTION if document.corrects_id else "",
            "ChargeFrequency": "Recurring",
            "ChargeDescription": f"Tax {money.plain(group.percent)} % {group.country}".strip(),
            "ServiceCategory": "Other",
            "ServiceSubcategory": "Other (Other)",
            "ServiceName": "Tax",
        }


def _row(document: Invoice, line: InvoiceLine | None) -> Row:
    """Return a row with what the document says, and the time that the line is about."""
    organization, period = document.organization, document.period
    used: BillingPeriod = line.key.period if line else period
    return dict.fromkeys(COLUMNS, "") | {
        "BillingAccountId": str(organization.id),
        "BillingAccountName": organization.name,
        "BillingCurrency": document.currency,
        "BillingPeriodStart": _moment(period.starts_at),
        "BillingPeriodEnd": _moment(period.ends_at),
        "ChargePeriodStart": _moment(used.starts_at),
        "ChargePeriodEnd": _moment(used.ends_at),
        "InvoiceId": str(document.number),
        "InvoiceIssuerName": Seller.from_json(document.seller).name,
        "ProviderName": settings.BRAND_NAME,
        "PublisherName": settings.BRAND_NAME,
    }


def _of_sku(line: InvoiceLine, price_id: str, measure: Measure) -> Row:
    return {
        "ServiceCategory": measure.category,
        "ServiceSubcategory": measure.subcategory,
        "ServiceName": measure.service,
        "SkuId": _sku_id(line),
        "SkuMeter": measure.service,
        "SkuPriceId": price_id,
        "RegionId": line.region,
    }


def _of_part(part: Part, measure: Measure) -> Row:
    return {
        "ResourceId": part.resource,
        "ResourceType": measure.resource_type if part.resource else "",
        "SubAccountId": part.project_id,
        "SubAccountName": part.project_name,
        "Tags": json.dumps(part.labels, ensure_ascii=False, sort_keys=True) if part.labels else "",
    }


def _group(line: InvoiceLine) -> tuple[Any, ...]:
    return line.tax_category, line.tax_percent, line.tax_country, line.tax_note


def _sku_id(line: InvoiceLine) -> str:
    return f"{line.meter}/{line.sku}" if line.sku else line.meter


def _named(line: InvoiceLine) -> str:
    return " ".join(part for part in (line.sku or line.meter, line.region, line.usage_period) if part)


def _described(line: InvoiceLine, unit_price: Decimal | None, unit: str) -> str:
    price = "" if unit_price is None else f" at {money.plain(unit_price, decimals_min=2)} per {unit}"
    corrects = f", corrects {line.corrects.invoice.number}" if line.corrects else ""
    return f"{_named(line)}{price}{corrects}"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _text(value: Decimal) -> str:
    return money.plain(value)


def _millionths(exact: Fraction) -> int:
    return int(rating.round_half_up(exact, QUANTITY_DECIMALS).scaleb(QUANTITY_DECIMALS, money.EXACT))


def _from_millionths(whole: int) -> Decimal:
    return Decimal(whole).scaleb(-QUANTITY_DECIMALS, money.EXACT)
