"""Amounts: exact both ways, rounded half up away from zero, in each currency's own minor unit."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from django.core.exceptions import ValidationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.core import money
from apps.core.forms import PlainDecimalField


@pytest.mark.parametrize(
    ("currency", "exponent", "micros_per_minor"),
    [("USD", 2, 10_000), ("JPY", 0, 1_000_000), ("KWD", 3, 1_000)],
)
def test_iso_4217_says_how_many_decimals_a_currency_has(currency, exponent, micros_per_minor):
    assert (money.exponent(currency), money.micros_per_minor(currency)) == (exponent, micros_per_minor)
    assert money.minor_to_micros(-7, currency) == -7 * micros_per_minor


@pytest.mark.parametrize("code", ["XXX", "XAU", "usd", ""])
def test_what_cannot_be_billed_in_is_no_currency(code):
    assert not money.is_currency(code)


@pytest.mark.parametrize(
    ("micros", "minor"),
    [(0, 0), (4_999, 0), (5_000, 1), (14_999, 1), (15_000, 2), (-4_999, 0), (-5_000, -1), (-15_000, -2)],
)
def test_micros_round_half_up_away_from_zero(micros, minor):
    assert money.round_micros_to_minor(micros, "USD") == minor


def test_major_units_become_micros_exactly_or_not_at_all():
    assert money.to_micros(Decimal("-12.345678")) == -12_345_678
    assert money.to_micros(Decimal("9007199254740993.000001")) == 9_007_199_254_740_993_000_001
    for wrong in ("0.0000001", "NaN", "Infinity"):
        with pytest.raises(ValueError, match="an amount"):
            money.to_micros(Decimal(wrong))


def test_decimals_are_written_plainly():
    assert money.plain(Decimal("1E+3")) == "1000"
    assert money.plain(Decimal("2.4900000000"), decimals_min=2) == "2.49"
    assert money.plain(Decimal("2.5"), decimals_min=2) == "2.50"
    assert money.plain(Decimal("1E-7")) == "0.0000001"
    assert [money.plain_micros(micros) for micros in (5_000_000, -1, 12_345_600)] == [
        "5.00",
        "-0.000001",
        "12.3456",
    ]
    assert f"{money.from_minor(5, 'KWD'):f} {money.from_minor(-105, 'USD'):f}" == "0.005 -1.05"


@pytest.mark.parametrize(
    ("amount", "decimals_min", "shown"),
    [
        ("295704000", 0, "295,704,000"),
        ("-1234.5", 2, "−1,234.50"),
        ("0", 2, "0.00"),
        ("0.0000000004", 2, "0.0000000004"),
    ],
)
def test_people_read_thousands_apart_and_a_true_minus(amount, decimals_min, shown):
    assert money.grouped(Decimal(amount), decimals_min=decimals_min) == shown


def test_minor_units_are_read_with_their_currencys_decimals():
    assert money.grouped_minor(-123_450, "USD") == "−1,234.50"
    assert money.grouped_minor(1_234, "JPY") == "1,234"
    assert money.grouped_minor(1_234_500, "KWD") == "1,234.500"


def test_counted_seconds_are_shown_in_hours_with_six_decimals():
    assert money.in_unit(Decimal(6582), 3600) == "1.828333"
    assert money.in_unit(Decimal("0.0018"), 3600) == "0.000001"
    assert money.in_unit(Decimal("12.5"), 1) == "12.500000"
    assert money.in_unit(-Decimal(0), 3600) == "0.000000"
    assert money.in_unit(Decimal("-0.001"), 3600) == "0.000000"


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(-(10**15), 10**15),
    st.lists(st.builds(Fraction, st.integers(0, 10**6), st.integers(1, 997)), min_size=1, max_size=12),
)
def test_shares_add_up_and_stay_within_one_of_exact(total, weights):
    shares = money.apportion(total, weights)

    assert sum(shares) == total
    whole = sum(weights)
    for share, weight in zip(shares, weights, strict=True):
        assert not whole or abs(share - total * weight / whole) < 1


def test_the_largest_remainders_are_rounded_up_the_earlier_one_first():
    assert money.apportion(100, [Fraction(1)] * 3) == [34, 33, 33]
    assert money.apportion(-100, [Fraction(1)] * 3) == [-33, -33, -34]
    assert money.apportion(7, [Fraction(0), Fraction(0)]) == [7, 0]
    # 2.6 + 1.7 + 0.7 rounded down as a whole: one place is left for the largest remainders.
    assert money.spread(5, [Fraction("2.6"), Fraction("1.7"), Fraction("0.7")]) == [2, 2, 1]
    with pytest.raises(AssertionError):
        money.spread(8, [Fraction("2.6"), Fraction("1.7"), Fraction("0.7")])


@pytest.mark.parametrize("text", ["1e5", "1_000", "Infinity", "NaN", "١٢", "+-1", "12,50", "0x10"])
def test_a_form_takes_an_amount_in_plain_digits_only(text):
    with pytest.raises(ValidationError):
        PlainDecimalField().clean(text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("12.50", "12.50"), (" 7 ", "7"), (".5", "0.5"), ("5.", "5"), ("+1", "1"), ("-0.25", "-0.25")],
)
def test_a_form_takes_an_amount_as_people_write_it(text, amount):
    assert PlainDecimalField().clean(text) == Decimal(amount)
    assert PlainDecimalField(required=False).clean("") is None
