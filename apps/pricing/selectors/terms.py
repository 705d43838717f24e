"""Terms: a stored price, or what an override makes of it, as rating and programs need it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast
from uuid import UUID, uuid5

from django.db.models import F, TextField
from django.db.models.functions import Cast, JSONObject

from apps.core.money import plain
from apps.pricing.models import (
    Price,
    PriceOverride,
    PriceOverrideQuerySet,
    Terms,
)
from apps.pricing.rating import PriceTerms, Tier, change_by_percent

TERMS = ("unit_price", "tiers", "package_size", "package_price", "free_units")


type StoredKey = tuple[UUID | None, UUID | None]

_DECIMALS = ("unit_price", "package_size", "package_price", "free_units")
# A row of a book as `terms_of_json` reads it. Decimals are text, so that no digit is lost on the way.
ROW_AS_JSON = JSONObject(
    id="pk",
    key_id="key_id",
    meter="meter_id",
    sku="sku",
    region="region",
    model="model",
    tiers="tiers",
    unit_seconds="meter__unit_seconds",
    **{name: Cast(name, TextField()) for name in _DECIMALS},
)


def terms_of_keys(
    keys: Collection[StoredKey],
    *,
    known: Mapping[UUID, PriceTerms] | None = None,
    known_overrides: Iterable[PriceOverride] = (),
) -> dict[StoredKey, PriceTerms]:
    """Return the terms of charges as they were made, by (price id, override id) of the charge, in at most two queries.

    Without an override they are the row's. With a percentage they are the row's, changed by it; with a price of the
    organization's own they are that, and the row is only what the book asked there, if anything.

    known: rows that are at hand, by their id. known_overrides: those that are, with their units.
    """
    prices = dict(known or {})
    missing = {price_id for price_id, _override_id in keys if price_id} - prices.keys()
    if missing:
        rows = Price.objects.filter(pk__in=missing).annotate(unit_seconds=F("meter__unit_seconds"))
        prices |= {price.pk: terms_of_row(price) for price in rows}
    overrides = {override.pk: override for override in known_overrides}
    unread = {override_id for _price_id, override_id in keys if override_id} - overrides.keys()
    if unread:
        found_overrides = with_unit(PriceOverride.objects.filter(pk__in=unread))
        overrides |= {override.pk: override for override in found_overrides}
    found: dict[StoredKey, PriceTerms] = {}
    for price_id, override_id in keys:
        if override_id is None:
            found[price_id, override_id] = prices[cast("UUID", price_id)]
        elif (override := overrides[override_id]).is_percentage:
            found[price_id, override_id] = changed_by(prices[cast("UUID", price_id)], override)
        else:
            found[price_id, override_id] = replace(terms_of_own(override), price_id=price_id)
    return found


def terms_of_row(price: Any) -> PriceTerms:
    """Return a row of a book, annotated with its meter's unit, as rating needs it."""
    return PriceTerms(
        key_id=price.key_id,
        price_id=price.pk,
        meter=price.meter_id,
        sku=price.sku,
        region=price.region,
        unit_seconds=price.unit_seconds,
        **_columns_of(price),
    )


def terms_of_json(row: Mapping[str, Any]) -> PriceTerms:
    """Return a row of a book that was read as `ROW_AS_JSON`, as rating needs it."""
    decimals: dict[str, Any] = {name: None if row[name] is None else Decimal(row[name]) for name in _DECIMALS}
    return PriceTerms(
        key_id=UUID(row["key_id"]),
        price_id=UUID(row["id"]),
        meter=row["meter"],
        sku=row["sku"],
        region=row["region"],
        unit_seconds=row["unit_seconds"],
        model=row["model"],
        tiers=tiers_of(row["tiers"]),
        **decimals,
    )


def terms_of_own(override: Any) -> PriceTerms:
    """Return a price of an organization's own, annotated with its meter's unit."""
    return PriceTerms(
        key_id=override.key_id,
        price_id=None,
        override_id=override.pk,
        meter=override.meter_id,
        sku=override.sku,
        region=override.region,
        unit_seconds=override.unit_seconds,
        **_columns_of(override),
    )


def changed_by(row: PriceTerms, override: PriceOverride) -> PriceTerms:
    """Return a row changed by a percentage, under an identity that follows from both and from nothing else."""
    assert override.percent is not None, "a price of its own is not derived"
    return change_by_percent(
        row,
        override.percent,
        key_id=uuid5(override.key_id, str(row.key_id)),
        override_id=override.pk,
    )


def _columns_of(terms: Terms) -> dict[str, Any]:
    return {
        "model": cast("Any", terms).model,
        "unit_price": terms.unit_price,
        "tiers": tiers_of(terms.tiers),
        "package_size": terms.package_size,
        "package_price": terms.package_price,
        "free_units": terms.free_units,
    }


def with_unit(overrides: PriceOverrideQuerySet) -> PriceOverrideQuerySet:
    return overrides.annotate(unit_seconds=F("meter__unit_seconds"))


def terms_as_json(terms: PriceTerms) -> dict[str, Any]:
    """Return terms as programs read them: decimals as strings, and only the columns of their model."""
    return _columns_as_json(terms.model, terms, terms.tiers)


def row_as_json(row: Price | PriceOverride) -> dict[str, Any]:
    """Return a stored price with its meter, SKU and region, as programs read it."""
    place = {"meter": row.meter_id, "sku": row.sku, "region": row.region}
    return place | _columns_as_json(row.model, row, tiers_of(row.tiers))


def _columns_as_json(model: str, columns: PriceTerms | Terms, tiers: Iterable[Tier]) -> dict[str, Any]:
    def text(price: Decimal | None) -> str | None:
        return None if price is None else plain(price, decimals_min=2)

    found: dict[str, Any] = {
        "model": model,
        "unit_price": text(columns.unit_price),
        "tiers": [
            {
                "up_to": None if tier.up_to is None else plain(tier.up_to),
                "unit_price": plain(tier.unit_price),
                "flat_fee": plain(tier.flat_fee),
            }
            for tier in tiers
        ]
        or None,
    }
    if columns.package_size is not None:
        found["package_size"] = plain(columns.package_size)
        found["package_price"] = text(columns.package_price)
        found["free_units"] = plain(columns.free_units or Decimal(0))
    return found


def tiers_of(stored: Iterable[Mapping[str, Any]] | None) -> tuple[Tier, ...]:
    """Return stored tiers with their decimal strings as decimals."""
    return tuple(
        Tier(
            up_to=None if tier["up_to"] is None else Decimal(tier["up_to"]),
            unit_price=Decimal(tier["unit_price"]),
            flat_fee=Decimal(tier["flat_fee"]),
        )
        for tier in stored or ()
    )
