"""Numbers and moments as people read them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from apps.portal.templatetags import figures
from tests.build import NOW


@pytest.mark.parametrize(
    ("value", "currency", "shown"),
    [
        (19_920_000, "USD", "19.92"),
        (1_234_567_894_999, "USD", "1,234,567.89"),
        (1_234_567_895_000, "USD", "1,234,567.90"),
        (-5_000_000, "USD", "−5.00"),
        (-4_999, "USD", "0.00"),
        (1_500_000, "JPY", "2"),
        (1_234_567, "KWD", "1.235"),
        (Decimal("2.5"), "EUR", "2.50"),
        (0, "USD", "0.00"),
        (None, "USD", "–"),
    ],
)
def test_amounts_show_the_minor_units_of_their_currency(value, currency, shown):
    assert figures.amount(value, currency) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (19_920_001, "19.920001"),
        (-1_500_000, "−1.50"),
        (3_000_000, "3.00"),
        (-1_234_567_000_001, "−1,234,567.000001"),
    ],
)
def test_exact_amounts_keep_every_digit(value, shown):
    assert figures.amount_exact(value, "USD") == shown


def test_fine_amounts_align_at_six_decimals():
    assert [figures.amount_fine(value) for value in ("1234.5", "-0.000001", 2_490_000)] == [
        "1,234.500000",
        "−0.000001",
        "2.490000",
    ]


@pytest.mark.parametrize(
    ("value", "decimals_min", "shown"),
    [
        ("295704000", 0, "295,704,000"),
        ("-10800", 0, "−10,800"),
        ("7.660000000000", 2, "7.66"),
        ("12345.5", 2, "12,345.50"),
        (Decimal("1E+3"), 0, "1,000"),
        (None, 0, "–"),
    ],
)
def test_exact_quantities_keep_every_digit_in_groups(value, decimals_min, shown):
    assert figures.exactly(value, decimals_min) == shown


@pytest.mark.parametrize(
    ("value", "decimals", "shown"),
    [(Decimal("1234.5"), 2, "1,234.50"), (Decimal("0.125"), 2, "0.13"), (8, 0, "8"), (None, 2, "–")],
)
def test_quantities_have_a_fixed_number_of_decimals(value, decimals, shown):
    assert figures.quantity(value, decimals) == shown


@pytest.mark.parametrize(
    ("ago", "shown"),
    [
        (timedelta(0), "now"),
        (timedelta(seconds=1), "1 second ago"),
        (timedelta(minutes=59, seconds=59), "59 minutes ago"),
        (timedelta(hours=23), "23 hours ago"),
        (timedelta(days=1), "14 May 2026, 12:00"),
        (timedelta(hours=-1), "15 May 2026, 13:00"),
    ],
)
def test_moments_are_relative_under_a_day_and_exact_in_the_title(ago, shown):
    html = figures.moment(NOW - ago, NOW)

    assert f">{shown}</time>" in html
    assert f'title="{NOW - ago:%Y-%m-%d %H:%M:%S} UTC"' in html
