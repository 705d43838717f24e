"""Laws of rating, against a model that knows nothing but fractions."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from apps.core.money import EXACT
from apps.pricing.rating import (
    PriceTerms,
    Tier,
    amount_micros,
    breakdown,
    change_by_percent,
    rate,
    round_half_up,
)

ID = UUID(int=1)
MILLIONTH = Decimal("0.000001")
prices = st.decimals(min_value=0, max_value=1000, places=10)
quantities = st.decimals(min_value=0, max_value=10**9, places=6)
# Bounds that quantities also hit exactly.
bounds = st.one_of(
    st.integers(1, 1000).map(Decimal), st.decimals(min_value="0.000001", max_value=10**6, places=6)
)
unit_seconds = st.sampled_from([1, 3600])


@st.composite
def tier_lists(draw: st.DrawFn, *, fees: bool = True) -> tuple[Tier, ...]:
    ends: list[Decimal | None] = [*sorted(draw(st.sets(bounds, max_size=4))), None]
    fee = prices if fees else st.just(Decimal(0))
    return tuple(Tier(up_to=end, unit_price=draw(prices), flat_fee=draw(fee)) for end in ends)


@st.composite
def terms(draw: st.DrawFn, *models: str) -> PriceTerms:
    model = draw(st.sampled_from(models or ("per_unit", "graduated", "volume", "package")))
    return PriceTerms(
        key_id=ID,
        price_id=ID,
        meter="gpu_hours",
        sku="*",
        region="*",
        model=model,
        unit_price=draw(prices) if model == "per_unit" else None,
        tiers=draw(tier_lists()) if model in ("graduated", "volume") else (),
        package_size=draw(bounds) if model == "package" else None,
        package_price=draw(prices) if model == "package" else None,
        free_units=draw(st.just(Decimal(0)) | bounds) if model == "package" else None,
        unit_seconds=draw(unit_seconds),
    )


@st.composite
def terms_and_quantity(draw: st.DrawFn) -> tuple[PriceTerms, Decimal]:
    """Draw a quantity that often lies on a bound, or a millionth beside it."""
    price = draw(terms())
    edges = [tier.up_to for tier in price.tiers if tier.up_to] + [price.free_units or Decimal(0)]
    edge = draw(st.sampled_from(edges)) * price.unit_seconds
    beside = st.sampled_from([Decimal(0), Decimal("0.000001"), Decimal("-0.000001")])
    near = max(edge + draw(beside), Decimal(0))
    return price, draw(st.one_of(quantities, st.just(near)))


def naive_rate(price: PriceTerms, quantity: Decimal) -> Fraction:
    """Walk every bound with plain fractions, in units."""
    units = Fraction(quantity) / price.unit_seconds
    if units == 0:
        return Fraction(0)
    if price.model == "per_unit":
        return units * Fraction(str(price.unit_price))
    if price.model == "package":
        billable = units - Fraction(str(price.free_units))
        packages = 0
        if billable > 0:
            quotient = billable / Fraction(str(price.package_size))
            packages = quotient.numerator // quotient.denominator + (quotient.denominator > 1)
        return packages * Fraction(str(price.package_price))
    starts = [Fraction(0), *(Fraction(str(tier.up_to)) for tier in price.tiers if tier.up_to is not None)]
    entered = [tier for start, tier in zip(starts, price.tiers, strict=True) if start < units]
    if price.model == "volume":
        return units * Fraction(str(entered[-1].unit_price)) + Fraction(str(entered[-1].flat_fee))
    ends = [*starts[1 : len(entered)], units]
    return sum(
        (
            (end - start) * Fraction(str(tier.unit_price)) + Fraction(str(tier.flat_fee))
            for start, end, tier in zip(starts, ends, entered, strict=False)
        ),
        Fraction(0),
    )


@given(terms_and_quantity())
def test_agrees_with_the_naive_model(case: tuple[PriceTerms, Decimal]) -> None:
    price, quantity = case
    exact = naive_rate(price, quantity)

    assert rate(price, quantity) == exact
    assert amount_micros(price, quantity) == int(exact * 10**6 + Fraction(1, 2))
    assert sum((share.amount for share in breakdown(price, quantity)), Fraction(0)) == exact


@given(terms_and_quantity())
def test_a_breakdown_adds_up_to_the_quantity(case: tuple[PriceTerms, Decimal]) -> None:
    price, quantity = case
    shares = breakdown(price, quantity)

    assert sum((share.quantity for share in shares), Fraction(0)) == Fraction(quantity) / price.unit_seconds


@given(terms("per_unit", "graduated", "package"), quantities, quantities)
def test_more_usage_never_costs_less(price: PriceTerms, one: Decimal, other: Decimal) -> None:
    fewer, more = sorted((one, other))

    assert rate(price, fewer) <= rate(price, more)
    assert amount_micros(price, fewer) <= amount_micros(price, more)


@given(terms(), st.lists(st.decimals(min_value=0, max_value=10**6, places=6), max_size=20))
def test_the_hours_of_a_period_add_up_to_its_total(price: PriceTerms, hours: list[Decimal]) -> None:
    """However the usage is split into hours, the posted differences telescope to one rounding of the whole."""
    cumulative = posted = Decimal(0)
    for quantity in hours:
        before = amount_micros(price, cumulative)
        cumulative += quantity
        posted += amount_micros(price, cumulative) - before

    assert posted == amount_micros(price, sum(hours, Decimal(0)))


@given(tier_lists(fees=False), quantities)
def test_graduated_without_fees_is_continuous(listed: tuple[Tier, ...], quantity: Decimal) -> None:
    price = PriceTerms(
        key_id=ID,
        price_id=ID,
        meter="requests",
        sku="*",
        region="*",
        model="graduated",
        tiers=listed,
    )
    step = Decimal("0.000001")
    dearest = max(tier.unit_price for tier in listed)

    assert rate(price, quantity + step) - rate(price, quantity) <= Fraction(step) * Fraction(dearest)


@given(st.fractions(max_denominator=10**12), st.integers(0, 12))
def test_rounding_is_to_the_nearest_and_away_from_zero_on_ties(amount: Fraction, exponent: int) -> None:
    rounded = round_half_up(amount, exponent)
    error = Fraction(rounded) - amount

    assert rounded.as_tuple().exponent == -exponent
    assert abs(error) <= Fraction(1, 2 * 10**exponent)
    if abs(error) == Fraction(1, 2 * 10**exponent):
        assert abs(Fraction(rounded)) > abs(amount)


@given(listed=tier_lists(), one=quantities, other=quantities)
def test_graduated_is_additive(listed: tuple[Tier, ...], one: Decimal, other: Decimal) -> None:
    """What usage adds is the tiers that it runs through, whatever came before: no quantity is priced twice."""
    price = make("graduated", tiers=listed)
    low, high = sorted((one, other))

    added = rate(price, high) - rate(price, low)

    below, expected = Decimal(0), Fraction(0)
    for tier in listed:
        top = high if tier.up_to is None else min(high, tier.up_to)
        inside = Fraction(top) - Fraction(max(low, below))
        expected += max(inside, Fraction(0)) * Fraction(tier.unit_price)
        if low <= below < high and (below > 0 or low == 0):
            expected += Fraction(tier.flat_fee)
        below = top if tier.up_to is None else tier.up_to
    assert added == expected


@given(listed=tier_lists(), quantity=quantities)
def test_volume_steps_only_at_a_bound(listed: tuple[Tier, ...], quantity: Decimal) -> None:
    """A millionth more costs a millionth of the price, except when it leaves a tier."""
    price = make("volume", tiers=listed)
    more = EXACT.add(quantity, MILLIONTH)
    tier = next(tier for tier in listed if tier.up_to is None or quantity <= tier.up_to)
    if quantity == 0 or (tier.up_to is not None and more > tier.up_to):
        return

    assert rate(price, more) - rate(price, quantity) == Fraction(MILLIONTH) * Fraction(tier.unit_price)


@given(size=bounds, price_of_one=prices, free=st.just(Decimal(0)) | bounds, count=st.integers(0, 1000))
def test_a_package_counts_whole_from_its_first_millionth(
    size: Decimal, price_of_one: Decimal, free: Decimal, count: int
) -> None:
    price = make("package", package_size=size, package_price=price_of_one, free_units=free)
    full = EXACT.add(free, EXACT.multiply(size, Decimal(count)))

    assert rate(price, full) == count * Fraction(price_of_one)
    assert rate(price, EXACT.add(full, MILLIONTH)) == (count + 1) * Fraction(price_of_one)


@given(price=terms(), percent=st.decimals(-100, 100, places=4), quantity=quantities)
def test_a_percentage_is_off_by_less_than_its_rounding(
    price: PriceTerms, percent: Decimal, quantity: Decimal
) -> None:
    changed = change_by_percent(price, percent, key_id=ID, override_id=ID)
    exact = rate(price, quantity) * (1 + Fraction(percent) / 100)
    priced = Fraction(quantity) / price.unit_seconds
    count = len(price.tiers) + (-(-priced // Fraction(price.package_size)) if price.package_size else 0)

    assert abs(rate(changed, quantity) - exact) <= (priced + count) / (2 * Fraction(10) ** 10)
    assert [tier.up_to for tier in changed.tiers] == [tier.up_to for tier in price.tiers]
    assert (changed.package_size, changed.free_units) == (price.package_size, price.free_units)


def make(model: Any, **fields: Any) -> PriceTerms:
    return PriceTerms(key_id=ID, price_id=ID, meter="egress_gb", sku="*", region="*", model=model, **fields)
