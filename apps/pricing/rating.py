"""Rating: the exact amount of a cumulative quantity under one price. Pure: no database, no clock, no floats.

`gpu_hours` and `instance_hours` have quantities in seconds (GPUs times seconds, or seconds), but prices and
tier bounds per hour; the division by 3600 comes last. Every other meter's unit is its quantity's own.
Usage of zero costs nothing, flat fees included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Literal
from uuid import UUID

Model = Literal["per_unit", "graduated", "volume", "package"]

MICROS_PER_UNIT = 1_000_000
PRICE_DECIMALS = 10
ZERO = Fraction(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One step of a tiered price; up_to is inclusive, in the meter's own unit, None for the last tier."""

    up_to: Decimal | None
    unit_price: Decimal
    flat_fee: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTerms:
    """One row of a price book, or of an organization's own prices, as rating needs it.

    key_id: the row's identity across the versions of its book; an unchanged row keeps it.
    price_id: the row of the book; None for a price of the organization's own where the book has none.
    override_id: what the organization has instead of the row or off it, if anything.
    sku, region: as the row has them, `*` for any.
    unit_seconds: 3600 where quantities are seconds and prices per hour, else 1.
    """

    key_id: UUID
    price_id: UUID | None
    override_id: UUID | None = None
    meter: str
    sku: str
    region: str
    model: Model
    unit_price: Decimal | None = None
    tiers: tuple[Tier, ...] = ()
    package_size: Decimal | None = None
    package_price: Decimal | None = None
    free_units: Decimal | None = None
    unit_seconds: int = 1
    # Micros per unit of quantity as (numerator, denominator), so that the common case is two multiplications.
    _micros_ratio: tuple[int, int] = field(init=False, repr=False, compare=False, default=(0, 1))

    def __post_init__(self) -> None:
        if self.model == "per_unit":
            numerator, denominator = _given(self.unit_price).as_integer_ratio()
            ratio = (numerator * MICROS_PER_UNIT, denominator * self.unit_seconds)
            object.__setattr__(self, "_micros_ratio", ratio)

    @property
    def is_tiered(self) -> bool:
        """Return whether the amount depends on more than the quantity times one price."""
        return self.model != "per_unit"

    @property
    def is_free(self) -> bool:
        """Return whether no quantity costs anything."""
        fees = [price for tier in self.tiers for price in (tier.unit_price, tier.flat_fee)]
        return not any((self.unit_price, self.package_price, *fees))


@dataclass(frozen=True, slots=True, kw_only=True)
class TierShare:
    """What one tier contributes; quantity is in the meter's own unit.

    unit_price: None for packages, which are sold whole.
    """

    up_to: Decimal | None
    quantity: Fraction
    unit_price: Decimal | None
    flat_fee: Decimal
    amount: Fraction


def rate(terms: PriceTerms, quantity: Decimal | Fraction) -> Fraction:
    """Return the exact amount, in major units, of a period's quantity up to some moment.

    quantity: ≥ 0, counted from the period's start; in seconds where `unit_seconds` is 3600.
    """
    if terms.model == "per_unit":
        assert quantity >= 0, "cumulative quantities never fall below zero"
        return Fraction(quantity) * Fraction(_given(terms.unit_price)) / terms.unit_seconds
    return sum((share.amount for share in _shares(terms, quantity)), ZERO)


def amount_micros(terms: PriceTerms, quantity: Decimal) -> int:
    """Return `rate` in integer micros, rounded half up once."""
    if terms.model == "per_unit":
        assert quantity >= 0, "cumulative quantities never fall below zero"
        numerator, denominator = quantity.as_integer_ratio()
        numerator *= terms._micros_ratio[0]
        denominator *= terms._micros_ratio[1]
        return (2 * numerator + denominator) // (2 * denominator)
    exact = rate(terms, quantity) * MICROS_PER_UNIT
    return _round_half_up(exact.numerator, exact.denominator)


def breakdown(terms: PriceTerms, quantity: Decimal) -> list[TierShare]:
    """Return what each tier that the quantity enters contributes; the amounts add up to `rate` exactly.

    A per-unit price is one open tier. Zero usage has no tiers.
    """
    return list(_shares(terms, quantity))


def change_by_percent(terms: PriceTerms, percent: Decimal, *, key_id: UUID, override_id: UUID) -> PriceTerms:
    """Return the terms with every price changed by a percentage, -20 for a fifth less.

    Unit prices, flat fees and package prices change; bounds of tiers, package sizes and free units do not. Each
    price is computed exactly and rounded half up to ten decimals once, here and nowhere else; amounts follow from
    these prices.
    """
    factor = 1 + Fraction(percent) / 100

    def changed(price: Decimal) -> Decimal:
        return round_half_up(Fraction(price) * factor, PRICE_DECIMALS)

    return replace(
        terms,
        key_id=key_id,
        override_id=override_id,
        unit_price=None if terms.unit_price is None else changed(terms.unit_price),
        tiers=tuple(
            replace(tier, unit_price=changed(tier.unit_price), flat_fee=changed(tier.flat_fee))
            for tier in terms.tiers
        ),
        package_price=None if terms.package_price is None else changed(terms.package_price),
    )


def round_half_up(amount: Fraction, exponent: int) -> Decimal:
    """Return the amount with exactly `exponent` decimals; ties go away from zero."""
    scaled = amount * 10**exponent
    # Not scaleb: it rounds to the context's precision.
    rounded = _round_half_up(scaled.numerator, scaled.denominator)
    digits = tuple(int(digit) for digit in str(abs(rounded)))
    return Decimal((int(rounded < 0), digits, -exponent))


def _round_half_up(numerator: int, denominator: int) -> int:
    sign = -1 if numerator < 0 else 1
    return sign * ((2 * abs(numerator) + denominator) // (2 * denominator))


def _shares(terms: PriceTerms, quantity: Decimal | Fraction) -> Iterator[TierShare]:
    assert quantity >= 0, "cumulative quantities never fall below zero"
    if not quantity:
        return
    units = Fraction(quantity) / terms.unit_seconds
    match terms.model:
        case "per_unit":
            yield _share(None, units, _given(terms.unit_price), Decimal(0))
        case "graduated":
            yield from _graduated(terms.tiers, units)
        case "volume":
            tier = next(tier for tier in terms.tiers if tier.up_to is None or units <= Fraction(tier.up_to))
            yield _share(tier.up_to, units, tier.unit_price, tier.flat_fee)
        case "package":
            yield from _packages(terms, units)


def _graduated(tiers: tuple[Tier, ...], units: Fraction) -> Iterator[TierShare]:
    below = ZERO
    for tier in tiers:
        if units <= below:
            return
        top = units if tier.up_to is None else min(units, Fraction(tier.up_to))
        yield _share(tier.up_to, top - below, tier.unit_price, tier.flat_fee)
        below = top


def _packages(terms: PriceTerms, units: Fraction) -> Iterator[TierShare]:
    free = Fraction(terms.free_units or 0)
    if free:
        yield _share(terms.free_units, min(units, free), Decimal(0), Decimal(0))
    if units > free:
        # A package counts whole from its first unit; -(-x // y) rounds up.
        packages = -(-(units - free) // Fraction(_given(terms.package_size)))
        yield TierShare(
            up_to=None,
            quantity=units - free,
            unit_price=None,
            flat_fee=Decimal(0),
            amount=packages * Fraction(_given(terms.package_price)),
        )


def _share(up_to: Decimal | None, units: Fraction, unit_price: Decimal, flat_fee: Decimal) -> TierShare:
    amount = units * Fraction(unit_price) + Fraction(flat_fee)
    return TierShare(up_to=up_to, quantity=units, unit_price=unit_price, flat_fee=flat_fee, amount=amount)


def _given(value: Decimal | None) -> Decimal:
    assert value is not None, "the database refuses a price without its model's columns"
    return value
