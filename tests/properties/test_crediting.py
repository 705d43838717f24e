"""Credit notes over lines: never more than a line has, exactly what was asked for, and whole at the end."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.invoices.crediting import Creditable, by_amount, by_line
from apps.invoices.models import TaxCategory
from apps.invoices.tax.terms import TaxTerms

RATES = [Decimal(0), Decimal(19), Decimal("25.5"), Decimal(100)]


@st.composite
def creditables(draw):
    rows = draw(
        st.lists(
            st.tuples(st.integers(1, 10**9) | st.integers(1, 5), st.sampled_from(RATES), st.integers(0, 50)),
            min_size=1,
            max_size=12,
        )
    )
    return [
        Creditable(
            line_id=UUID(int=place + 1),
            terms=TaxTerms(category=TaxCategory.STANDARD, percent=percent),
            net_minor=net,
            tax_minor=int(net * percent / 100),
            discount_minor=discount,
        )
        for place, (net, percent, discount) in enumerate(rows)
    ]


def rest(lines, shares):
    """Return what is left of lines; no share may have taken more than its line had."""
    taken = {share.line_id: share for share in shares}
    left = []
    for line in lines:
        share = taken.get(line.line_id)
        if share is None:
            left.append(line)
            continue
        parts = {}
        for name in ("net_minor", "tax_minor", "discount_minor"):
            assert 0 <= getattr(share, name) <= getattr(line, name)
            parts[name] = getattr(line, name) - getattr(share, name)
        left.append(replace(line, **parts))
    return left


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(creditables(), st.lists(st.floats(0, 1).map(lambda part: Decimal(str(part))), max_size=5))
def test_amounts_are_met_to_the_unit_and_the_rest_is_everything(lines, parts):
    for part in parts:
        whole = sum(line.gross_minor for line in lines)
        amount = int(whole * part)
        if not 0 < amount < whole:
            continue
        shares = by_amount(lines, amount)
        assert sum(share.net_minor + share.tax_minor for share in shares) == amount
        lines = rest(lines, shares)
    lines = [line for line in lines if line.gross_minor]
    left = rest(lines, by_amount(lines, sum(line.gross_minor for line in lines)))
    assert all(line.gross_minor == 0 for line in left)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(creditables(), st.data())
def test_nets_of_lines_are_met_and_a_whole_line_takes_its_whole_tax(lines, data):
    nets = {
        line.line_id: data.draw(st.integers(1, line.net_minor))
        for line in lines
        if data.draw(st.booleans()) or line is lines[0]
    }

    shares = by_line(lines, nets)

    assert {share.line_id: share.net_minor for share in shares} == nets
    for line in rest(lines, shares):
        assert line.net_minor or not line.tax_minor
