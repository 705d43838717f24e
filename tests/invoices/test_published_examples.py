"""Worked examples of EN 16931 and Peppol: the same rate groups and totals to the cent, each by hand.

Those of prepaid credit and of the reverse charge are whole invoices in `test_taxed_invoices`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest

from apps.invoices.models import TaxCategory
from apps.invoices.tax.terms import TaxTerms, assess

# Each line as (rate, net in minor units); allowances and charges of a whole document are lines of their rate, as our
# promotional credit is. Then base and tax of each rate group; the total with tax, what is prepaid, what is left to pay.
EN_16931 = "https://github.com/ConnectingEurope/eInvoicing-EN16931/blob/master/ubl/examples"
PEPPOL = "https://github.com/OpenPEPPOL/peppol-bis-invoice-3/blob/master/rules/examples"
PUBLISHED = {
    # Books at 6 % and goods at 21 %, with returned goods as a negative line:
    # 183.23 × 6 % = 10.9938, 46.37 × 21 % = 9.7377; 229.60 + 10.99 + 9.74 = 250.33.
    f"{EN_16931}/ubl-tc434-example1.xml": (
        [
            *(("6", net) for net in (
                1990, 985, 829, 1446, 3500, 3500, 1065, 155, 1437, 829, 1658, 995, 330, 390, 10212, -10998,
            )),
            *(("21", net) for net in (1080, 760, 934, 1863)),
        ],
        {"6": (18323, 1099), "21": (4637, 974)},
        (25033, 0, 25033),
    ),
    # Three rates, a discount of 12.00 on a line and one of 100.00 on the whole, returned goods, a deposit:
    # 1460.50 × 25 % = 365.125, half up; 1.00 × 15 % = 0.15; 1436.50 + 365.13 + 0.15 = 1801.78.
    f"{EN_16931}/ubl-tc434-example2.xml": (
        [("25", 128500 - 1200), ("15", -396), ("15", 496), ("0", -2500), ("25", 18750), ("25", -10000), ("25", 10000)],
        {"25": (146050, 36513), "15": (100, 15), "0": (-2500, 0)},
        (180178, 100000, 80178),
    ),
    # A discount of 10 % and half of it prepaid: 1500.00 × 25 % = 375.00, 2500.00 × 12 % = 300.00.
    f"{EN_16931}/ubl-tc434-example5.xml": (
        [("25", 110000 - 10000), ("25", 50000), ("12", 250000), ("25", -15000), ("25", 15000)],
        {"25": (150000, 37500), "12": (250000, 30000)},
        (467500, 233750, 233750),
    ),
    # 4000.00 + 900.00 + 200.00 − 100.00 at 25 %, 2000.00 at 15 %.
    f"{PEPPOL}/Vat-category-S.xml": (
        [("25", 400000), ("15", 200000), ("25", 90000), ("25", 20000), ("25", -10000)],
        {"25": (500000, 125000), "15": (200000, 30000)},
        (855000, 0, 855000),
    ),
    # A correction: seven days at 400.00, three days at 500.00 taken back, 25.00 of freight.
    f"{PEPPOL}/base-example.xml": (
        [("25", 280000), ("25", -150000), ("25", 2500)],
        {"25": (132500, 33125)},
        (165625, 0, 165625),
    ),
}  # fmt: skip


def terms(percent: str) -> TaxTerms:
    category = TaxCategory.STANDARD if percent != "0" else TaxCategory.EXEMPT
    return TaxTerms(category=category, percent=Decimal(percent), country="DE")


@pytest.mark.parametrize(("lines", "groups", "totals"), PUBLISHED.values(), ids=PUBLISHED)
def test_rate_groups_and_totals_are_the_published_ones(
    lines: Sequence[tuple[str, int]], groups: dict[str, tuple[int, int]], totals: tuple[int, int, int]
) -> None:
    found, taxes = assess([(terms(percent), net) for percent, net in lines])

    assert {f"{group.terms.percent}": (group.base_minor, group.tax_minor) for group in found} == groups
    total, prepaid, payable = totals
    assert sum(net for _percent, net in lines) + sum(taxes) == total
    assert total - prepaid == payable
    for percent, (_base, tax) in groups.items():
        assert (
            sum(share for (other, _net), share in zip(lines, taxes, strict=True) if other == percent) == tax
        )
