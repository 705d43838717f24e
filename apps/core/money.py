"""Money: the ledger counts integer micros, invoices count ISO 4217 minor units, prices are exact decimals.

A micro is 10⁻⁶ of a major unit in every currency. Rounding is half up (away from zero on a tie), and only at the
places that the architecture names; nothing here rounds silently.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from fractions import Fraction
from functools import cache

from iso4217 import Currency

MICROS_PER_UNIT = 1_000_000
# numeric(38,6) times numeric(20,10) needs 58 digits; with room for sums nothing is ever rounded by accident.
EXACT = Context(prec=120, rounding=ROUND_HALF_UP)
_PLAIN = re.compile(r"-?[0-9]+(\.[0-9]+)?")


@cache
def exponent(currency: str) -> int:
    """Return the number of minor-unit digits of an ISO 4217 currency; ValueError for an unknown code.

    ISO 4217 decides, not CLDR: the two differ for a dozen currencies.
    """
    digits = Currency(currency).exponent
    if digits is None:
        raise ValueError(f"{currency} has no minor unit")
    return int(digits)


def is_currency(code: str) -> bool:
    """Return whether the code is an ISO 4217 currency that can be billed in."""
    try:
        exponent(code)
    except ValueError:
        return False
    return True


def micros_per_minor(currency: str) -> int:
    """Return how many micros one minor unit has: 10 000 for USD, 1 000 000 for JPY, 1 000 for KWD."""
    return int(10 ** (6 - exponent(currency)))


def to_micros(amount: Decimal) -> int:
    """Return a major-unit amount in micros; ValueError when it is finer than a micro or not finite."""
    if not amount.is_finite():
        raise ValueError("an amount must be a finite number")
    with localcontext(EXACT):
        scaled = amount * MICROS_PER_UNIT
        if scaled != scaled.to_integral_value():
            raise ValueError("an amount cannot be finer than 0.000001")
        return int(scaled)


def from_micros(micros: int) -> Decimal:
    """Return micros as major units with six decimals, exactly."""
    return Decimal(micros).scaleb(-6, EXACT)


def from_minor(minor: int, currency: str) -> Decimal:
    """Return minor units as major units with the currency's own number of decimals, exactly."""
    return Decimal(minor).scaleb(-exponent(currency), EXACT)


def minor_to_micros(minor: int, currency: str) -> int:
    """Return minor units in micros, exactly."""
    return minor * micros_per_minor(currency)


def round_micros_to_minor(micros: int, currency: str) -> int:
    """Return micros in minor units, rounded half up (ties away from zero)."""
    unit = micros_per_minor(currency)
    sign = -1 if micros < 0 else 1
    return sign * ((abs(micros) * 2 + unit) // (2 * unit))


def is_plain(text: str) -> bool:
    """Return whether a text is a decimal in plain digits; Python would also take 1e3, 1_000, Arabic digits and NaN."""
    return _PLAIN.fullmatch(text) is not None


def plain(amount: Decimal, *, decimals_min: int = 0) -> str:
    """Return a decimal as a plain string: no exponent, no trailing zeros beyond `decimals_min`."""
    text = f"{amount:f}"
    whole, _point, fraction = text.partition(".")
    fraction = fraction.rstrip("0").ljust(decimals_min, "0")
    return f"{whole}.{fraction}" if fraction else whole


def grouped(amount: Decimal, *, decimals_min: int = 0) -> str:
    """Return a decimal as people read it, exactly: thousands apart, a true minus, at least so many decimals."""
    whole, point, fraction = plain(abs(amount), decimals_min=decimals_min).partition(".")
    return f"{'\N{MINUS SIGN}' if amount < 0 else ''}{int(whole):,}{point}{fraction}"


def grouped_minor(minor: int, currency: str) -> str:
    """Return minor units as people read them: major units with the currency's decimals, thousands apart."""
    return grouped(from_minor(minor, currency), decimals_min=exponent(currency))


def plain_micros(micros: int) -> str:
    """Return micros as a plain string of major units, exactly: at least two decimals, no zeros beyond them."""
    return plain(from_micros(micros), decimals_min=2)


def in_unit(quantity: Decimal, unit_seconds: int) -> str:
    """Return a counted quantity in its meter's unit with six decimals, rounded half up: for display only.

    unit_seconds: 3600 where seconds are counted and hours are sold, else 1.
    """
    value = EXACT.divide(quantity, Decimal(unit_seconds)).quantize(Decimal("0.000001"), context=EXACT)
    return f"{abs(value) if value.is_zero() else value:f}"  # Nobody is shown less than nothing of nothing.


def spread(total: int, exact: Sequence[Fraction]) -> list[int]:
    """Return whole shares that add up to `total` and differ from the exact ones by less than one each.

    total: the sum of the exact shares, rounded either way. The largest remainders are rounded up, the earlier one first
    on a tie.
    """
    shares = [share.numerator // share.denominator for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: (shares[place] - exact[place], place))
    missing = total - sum(shares)
    assert 0 <= missing <= sum(1 for share in exact if share.denominator != 1), "the total is the rounded sum"
    for place in by_remainder[:missing]:
        shares[place] += 1
    return shares


def apportion(total: int, weights: Sequence[Fraction]) -> list[int]:
    """Return whole shares by weight that add up to the total, the largest remainders rounded up.

    Weights without a sum share nothing but the first, which takes all.
    """
    whole = sum(weights, Fraction(0))
    if not whole:
        return [total, *([0] * (len(weights) - 1))]
    return spread(total, [total * weight / whole for weight in weights])
