"""Tax over lines: groups rounded once, shares that add up, whatever the rates, signs and sizes."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from fractions import Fraction

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.invoices.models import TaxCategory
from apps.invoices.tax.terms import TaxTerms, assess

percents = st.sampled_from([Decimal(0), Decimal(7), Decimal(19), Decimal("25.5")]) | st.decimals(
    min_value=0, max_value=100, places=4
)
terms = st.builds(
    TaxTerms,
    category=st.just(TaxCategory.STANDARD),
    percent=percents,
    country=st.sampled_from(["DE", "FI"]),
)
nets = st.one_of(st.integers(-(10**12), 10**12), st.integers(-20, 20))


def half_away(exact: Fraction) -> int:
    whole = (abs(exact) + Fraction(1, 2)).__floor__()
    return whole if exact >= 0 else -whole


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(terms, nets), max_size=30))
def test_line_taxes_add_up_to_their_group_and_stay_within_one_unit_of_exact(lines):
    groups, taxes = assess(lines)

    sums: dict = defaultdict(int)
    bases: dict = defaultdict(int)
    for (of_line, net), tax in zip(lines, taxes, strict=True):
        sums[of_line] += tax
        bases[of_line] += net
        exact = Fraction(net) * Fraction(of_line.percent) / 100
        assert abs(tax - exact) < 1
        assert net or not tax
    assert {group.terms: (group.base_minor, group.tax_minor) for group in groups} == {
        of_group: (bases[of_group], sums[of_group]) for of_group in bases
    }
    for group in groups:
        assert group.tax_minor == half_away(Fraction(group.base_minor) * Fraction(group.terms.percent) / 100)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(terms, nets), max_size=8))
def test_the_order_of_lines_changes_no_group(lines):
    assert {group.terms: group for group in assess(lines)[0]} == {
        group.terms: group for group in assess(lines[::-1])[0]
    }
