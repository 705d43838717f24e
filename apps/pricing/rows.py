"""A row of a price book as values: what files and forms are read into, and what versions are compared by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.core.errors import FieldError
from apps.core.money import EXACT, is_plain, plain
from apps.pricing.models import (
    ANY,
    CODE_LENGTH_MAX,
    CODE_PATTERN,
    PRICE_DECIMALS_MAX,
    PRICE_LIMIT,
    QUANTITY_DECIMALS_MAX,
    QUANTITY_LIMIT,
    SHORT_CODE_LENGTH_MAX,
    Price,
    PriceModel,
    PriceOverride,
)
from apps.pricing.rating import Tier
from apps.pricing.selectors import tiers_of

_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_DECIMAL_LENGTH_MAX = 64
_CODE = re.compile(CODE_PATTERN)
_PLACE = ("meter", "sku", "region", "model")
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    PriceModel.PER_UNIT: ("unit_price",),
    PriceModel.GRADUATED: ("tiers",),
    PriceModel.VOLUME: ("tiers",),
    PriceModel.PACKAGE: ("package_size", "package_price", "free_units"),
}
_TIER_FIELDS = ("up_to", "unit_price", "flat_fee")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """The terms of one price; two rows are equal when they charge the same for the same."""

    meter: str
    sku: str = ANY
    region: str = ANY
    model: str = PriceModel.PER_UNIT
    unit_price: Decimal | None = None
    tiers: tuple[Tier, ...] = ()
    package_size: Decimal | None = None
    package_price: Decimal | None = None
    free_units: Decimal | None = None

    @property
    def place(self) -> tuple[str, str, str]:
        """Return what the row prices; a version has one row for it."""
        return self.meter, self.sku, self.region

    def as_columns(self) -> dict[str, Any]:
        """Return the row as keyword arguments of the model."""
        return {
            "meter_id": self.meter,
            "sku": self.sku,
            "region": self.region,
            "model": self.model,
            "unit_price": self.unit_price,
            "tiers": [tier_as_json(tier) for tier in self.tiers] or None,
            "package_size": self.package_size,
            "package_price": self.package_price,
            "free_units": self.free_units,
        }

    def as_json(self) -> dict[str, Any]:
        """Return the row as a price book file has it, with every decimal in its shortest form."""
        row: dict[str, Any] = {name: str(getattr(self, name)) for name in _PLACE}
        for column in _COLUMNS[self.model]:
            row[column] = (
                [tier_as_json(tier) for tier in self.tiers]
                if column == "tiers"
                else plain(getattr(self, column) or Decimal(0))
            )
        return row


def tier_as_json(tier: Tier) -> dict[str, str | None]:
    """Return a tier as it is stored and shown, with decimals as strings."""
    return {
        "up_to": None if tier.up_to is None else plain(tier.up_to),
        "unit_price": plain(tier.unit_price),
        "flat_fee": plain(tier.flat_fee),
    }


def row_of(price: Price | PriceOverride) -> PriceRow:
    """Return a stored price as values."""
    assert price.meter_id is not None, "a percentage is no row"
    return PriceRow(
        meter=price.meter_id,
        sku=price.sku,
        region=price.region,
        model=price.model,
        unit_price=price.unit_price,
        tiers=tiers_of(price.tiers),
        package_size=price.package_size,
        package_price=price.package_price,
        free_units=price.free_units,
    )


def read_row(fields: Any, *, path: str) -> tuple[PriceRow | None, list[FieldError]]:
    """Return the row that untrusted fields describe, or None and everything that is wrong with them.

    path: where the fields stand, such as `prices.3`; the errors' paths begin with it.
    """
    if not isinstance(fields, Mapping):
        return None, [FieldError(path=path, code="invalid", message=str(_("A price is an object.")))]
    reader = _Reader(path)
    model = fields.get("model", PriceModel.PER_UNIT)
    if model not in PriceModel.values:
        known = ", ".join(PriceModel.values)
        message = _("There is no such model; the models are {known}.").format(known=known)
        reader.refuse("model", "unknown_model", message)
        return None, reader.errors
    columns = _COLUMNS[model]
    for name in fields:
        if name not in (*_PLACE, *columns):
            message = _("A {model} price has no such field.").format(model=model)
            reader.refuse(str(name), "unknown_field", message)
    place: dict[str, Any] = {name: reader.code(fields, name) for name in ("meter", "sku", "region")}
    terms: dict[str, Any] = {}
    if "unit_price" in columns:
        terms["unit_price"] = reader.price(fields, "unit_price")
    elif "tiers" in columns:
        terms["tiers"] = reader.tiers(fields)
    else:
        terms["package_size"] = reader.quantity(fields, "package_size", above_zero=True)
        terms["package_price"] = reader.price(fields, "package_price")
        terms["free_units"] = reader.quantity({"free_units": 0, **fields}, "free_units")
    row = PriceRow(model=model, **place, **terms)
    return (None if reader.errors else row), reader.errors


def is_code(value: object, name: str) -> bool:
    """Return whether a value can be the code of a `meter`, `sku` or `region`."""
    length_max = CODE_LENGTH_MAX if name == "sku" else SHORT_CODE_LENGTH_MAX
    return isinstance(value, str) and len(value) <= length_max and bool(_CODE.fullmatch(value))


def read_decimal(value: object) -> Decimal | None:
    """Return a finite decimal from a text of plain digits, an integer or a decimal, or None; never from a float."""
    if isinstance(value, str) and not is_plain(value.strip()):
        return None
    return read_number(value)


def read_number(value: object) -> Decimal | None:
    """Return a finite decimal like `read_decimal`, and also from a text such as 1e-05, as programs write floats."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        return None
    text = str(value).strip()
    if len(text) > _DECIMAL_LENGTH_MAX or not _DECIMAL.fullmatch(text):
        return None
    return Decimal(text)


def round_price(price: Decimal) -> Decimal:
    """Return a price with ten decimals, rounded half up."""
    return price.quantize(Decimal(1).scaleb(-PRICE_DECIMALS_MAX), ROUND_HALF_UP, EXACT)


class _Reader:
    """Reads fields one by one and collects what is wrong, so that one answer names everything."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.errors: list[FieldError] = []

    def refuse(self, name: str, code: str, message: str | Promise) -> None:
        path = f"{self.path}.{name}" if self.path else name
        self.errors.append(FieldError(path=path, code=code, message=str(message)))

    def code(self, fields: Mapping[str, Any], name: str) -> str:
        value = fields.get(name)
        if value is None or value == "":
            self.refuse(name, "required", _("This field is missing."))
        elif not (is_code(value, name) or (value == ANY and name != "meter")):
            self.refuse(name, "invalid", _("A code has letters, digits and . _ : , + - ( ) in between."))
        return str(value)

    def price(self, fields: Mapping[str, Any], name: str) -> Decimal:
        return self._decimal(fields, name, limit=PRICE_LIMIT, decimals=PRICE_DECIMALS_MAX)

    def quantity(self, fields: Mapping[str, Any], name: str, *, above_zero: bool = False) -> Decimal:
        value = self._decimal(fields, name, limit=QUANTITY_LIMIT, decimals=QUANTITY_DECIMALS_MAX)
        if above_zero and value == 0 and not self._refused(name):
            self.refuse(name, "not_positive", _("This must be more than zero."))
        return value

    def tiers(self, fields: Mapping[str, Any]) -> tuple[Tier, ...]:
        listed = fields.get("tiers")
        if not isinstance(listed, list) or not listed:
            self.refuse("tiers", "required", _("A tiered price lists at least one tier."))
            return ()
        tiers = [self._tier(tier, f"tiers.{index}") for index, tier in enumerate(listed)]
        below = Decimal(0)
        for index, tier in enumerate(tiers):
            name, is_last = f"tiers.{index}.up_to", index == len(tiers) - 1
            if self._refused(f"tiers.{index}"):
                continue
            if is_last and tier.up_to is not None:
                self.refuse(name, "tier_not_open", _("The last tier is open: its up_to is null."))
            elif not is_last and tier.up_to is None:
                self.refuse(name, "tier_open", _("Only the last tier is open."))
            elif tier.up_to is not None and tier.up_to <= below:
                self.refuse(name, "tiers_not_ascending", _("Tiers ascend, each up_to above the one before."))
            below = tier.up_to or below
        return tuple(tiers)

    def _tier(self, fields: Any, name: str) -> Tier:
        if not isinstance(fields, Mapping):
            self.refuse(name, "invalid", _("A tier is an object."))
            return Tier(up_to=None, unit_price=Decimal(0), flat_fee=Decimal(0))
        inner = _Reader(f"{self.path}.{name}" if self.path else name)
        for field in fields:
            if field not in _TIER_FIELDS:
                inner.refuse(str(field), "unknown_field", _("A tier has no such field."))
        if "up_to" not in fields:
            inner.refuse("up_to", "required", _("This field is missing."))
        tier = Tier(
            up_to=None if fields.get("up_to") is None else inner.quantity(fields, "up_to"),
            unit_price=inner.price(fields, "unit_price"),
            flat_fee=inner.price({"flat_fee": 0, **fields}, "flat_fee"),
        )
        self.errors += inner.errors
        return tier

    def _refused(self, name: str) -> bool:
        path = f"{self.path}.{name}" if self.path else name
        return any(error.path == path or error.path.startswith(f"{path}.") for error in self.errors)

    def _decimal(self, fields: Mapping[str, Any], name: str, *, limit: int, decimals: int) -> Decimal:
        given = fields.get(name)
        value = read_decimal(given)
        if given is None or given == "":
            self.refuse(name, "required", _("This field is missing."))
        elif value is None:
            self.refuse(name, "not_a_number", _("Write a decimal in plain digits, such as 12.50."))
        elif value < 0:
            self.refuse(name, "negative", _("This must not be negative."))
        elif value >= limit:
            self.refuse(name, "too_large", _("This is too large."))
        elif value != value.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP, EXACT):
            message = _("This has more than {decimals} decimals.").format(decimals=decimals)
            self.refuse(name, "too_many_decimals", message)
        else:
            return abs(value)  # Minus zero is zero.
        return Decimal(0)
