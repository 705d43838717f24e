"""Invoices that others published, made whole by our own rules: from usage to the same lines, taxes and amounts due.

An invoice of ours has one rate of its own; further rates come of corrections, which bear the tax of the line that they
correct. So what a published invoice taxes at another rate is usage that a month before billed at that rate, and that
came in twice as long since; what it takes back is a run that ended earlier than was thought. Its allowances, of lines
and of the whole, are promotional credit; charges on the whole are lines of their own; what it says is prepaid is paid
credit. Only figures are taken from the sources, no text; each total is computed by hand beside it.

That of prepaid credit after tax is in `test_taxed_invoices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from lxml import etree

from apps.billing.models import Pot
from apps.invoices import services as invoices
from apps.invoices.documents import einvoice
from apps.invoices.documents.content import content_of
from apps.invoices.models import Invoice, InvoiceLine, InvoiceTax
from tests import build
from tests.billing.runs import HOUR, run, stop
from tests.money import failing

# Licensed under the European Union Public Licence 1.2.
EN_16931 = "https://github.com/ConnectingEurope/eInvoicing-EN16931/blob/master/ubl/examples"
# The repository states no licence.
PEPPOL = "https://github.com/OpenPEPPOL/peppol-bis-invoice-3/blob/master/rules/examples"
# Licensed under the Apache License 2.0.
XRECHNUNG = "https://github.com/itplr-kosit/xrechnung-testsuite/blob/master/src/test/business-cases/standard"

# Usage is of the first of these months with a rate of its own and so on, the invoice is that of April.
MONTHS = [datetime(2026, month, 1, tzinfo=UTC) for month in (2, 3, 4)]
# In the zone of the seller these are the days on which the months are closed.
CLOSES = [datetime(2026, 3, 2, 12, tzinfo=UTC), datetime(2026, 4, 2, 12, tzinfo=UTC), build.NOW]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What an invoice says; amounts are minor units of its currency.

    lines: (rate, net before allowances); a rate is a percent, E for exempt or AE for reverse charge. rate: the one that
    new usage has. allowances: all of them, at that rate. groups: base and tax by rate.
    """

    currency: str = "EUR"
    rate: str
    lines: list[tuple[str, int]]
    allowances: int = 0
    groups: dict[str, tuple[int, int]]
    total: int
    prepaid: int = 0
    due: int


PUBLISHED = {
    # Books at 6 % and goods at 21 %, with returned goods as a negative line:
    # 183.23 × 6 % = 10.9938, 46.37 × 21 % = 9.7377; 229.60 + 10.99 + 9.74 = 250.33.
    f"{EN_16931}/ubl-tc434-example1.xml": Published(
        rate="21",
        lines=[
            *(("6", net) for net in (
                1990, 985, 829, 1446, 3500, 3500, 1065, 155, 1437, 829, 1658, 995, 330, 390, 10212, -10998,
            )),
            *(("21", net) for net in (1080, 760, 934, 1863)),
        ],
        groups={"6": (18323, 1099), "21": (4637, 974)},
        total=25033,
        due=25033,
    ),
    # Three rates, an allowance of 12.00 on a line and one of 100.00 on the whole, returned goods, a deposit:
    # 1460.50 × 25 % = 365.125, half up; 1.00 × 15 % = 0.15; 1436.50 + 365.13 + 0.15 = 1801.78.
    f"{EN_16931}/ubl-tc434-example2.xml": Published(
        currency="NOK",
        rate="25",
        lines=[("25", 128500), ("15", -396), ("15", 496), ("E", -2500), ("25", 18750), ("25", 10000)],
        allowances=1200 + 10000,
        groups={"25": (146050, 36513), "15": (100, 15), "E": (-2500, 0)},
        total=180178,
        prepaid=100000,
        due=80178,
    ),
    # An allowance of 10 % and half of it prepaid: 1500.00 × 25 % = 375.00, 2500.00 × 12 % = 300.00.
    f"{EN_16931}/ubl-tc434-example5.xml": Published(
        currency="DKK",
        rate="25",
        lines=[("25", 100000), ("25", 10000), ("25", 50000), ("12", 250000), ("25", 15000)],
        allowances=10000 + 15000,
        groups={"25": (150000, 37500), "12": (250000, 30000)},
        total=467500,
        prepaid=233750,
        due=233750,
    ),
    # 4000.00 + 900.00 + 200.00 − 100.00 at 25 %, 2000.00 at 15 %.
    f"{PEPPOL}/Vat-category-S.xml": Published(
        rate="25",
        lines=[("25", 400000), ("15", 200000), ("25", 90000), ("25", 20000)],
        allowances=10000,
        groups={"25": (500000, 125000), "15": (200000, 30000)},
        total=855000,
        due=855000,
    ),
    # Allowances and charges on lines and on the whole, a part exempt, 1000.00 prepaid:
    # 4100 + 1 − 101 + 1000 + 1 − 101 + 200 − 200 = 4900.00; × 25 % = 1225.00; + 1000.00 exempt = 7125.00.
    f"{PEPPOL}/Allowance-example.xml": Published(
        rate="25",
        lines=[("25", 410000), ("25", 100), ("E", 100000), ("25", 100000), ("25", 100), ("25", 20000)],
        allowances=10100 + 10100 + 20000,
        groups={"25": (490000, 122500), "E": (100000, 0)},
        total=712500,
        prepaid=100000,
        due=612500,
    ),
    # A correction: seven days at 400.00, three days at 500.00 taken back, 25.00 of freight.
    f"{PEPPOL}/base-example.xml": Published(
        rate="25",
        lines=[("25", 280000), ("25", -150000), ("25", 2500)],
        groups={"25": (132500, 33125)},
        total=165625,
        due=165625,
    ),
    # Four hours at 52.00 and 25.00 for the way, the tax of which the customer owes. (There both are in Germany and in
    # the building trade; by our rules it is a business of another member state.)
    f"{XRECHNUNG}/01.21a-INVOICE_uncefact.xml": Published(
        rate="AE",
        lines=[("AE", 20800), ("AE", 2500)],
        groups={"AE": (23300, 0)},
        total=23300,
        due=23300,
    ),
}  # fmt: skip


def tax_from(lab, rate, day: date) -> None:
    """Let what is closed from a day on be taxed at a rate."""
    if rate == "E":
        invoices.add_tax_exemption(
            actor=build.actor(), organization=lab, country="DE", certificate="7", reason="published",
            valid_from=day, valid_until=date(day.year, day.month + 1, 1), now=MONTHS[0],
        )  # fmt: skip
    elif rate == "AE":
        build.billing_profile(lab, country="FR", vat_id="FR40303265045")
    else:
        invoices.add_tax_rate(
            actor=build.actor(), country="DE", percent=Decimal(rate), effective_from=day, source="published",
            now=MONTHS[0],
        )  # fmt: skip


def major(minor: int) -> str:
    return f"{Decimal(abs(minor)).scaleb(-2)}"


def issued(said: Published) -> Invoice:
    """Let an organization use what the published invoice bills, and return our invoice of it."""
    items = [(f"item-{number:02d}", rate, net) for number, (rate, net) in enumerate(said.lines)]
    corrected = [item for item in items if item[1] != said.rate or item[2] < 0]
    rates = list(dict.fromkeys(rate for _sku, rate, _net in corrected))
    past = list(zip(rates, MONTHS[2 - len(rates) :], CLOSES[2 - len(rates) :], strict=False))
    lab = build.organization("lab", currency=said.currency, now=MONTHS[2 - len(rates)])
    build.seller()
    build.billing_profile(lab, legal_name="Lab", country="DE")
    build.price_book(
        *({"sku": sku, "unit_price": major(net)} for sku, _rate, net in items), currency=said.currency
    )
    for rate, start, closing in past:
        tax_from(lab, rate, closing.date())
        for sku, net in ((sku, net) for sku, other, net in corrected if other == rate):
            if net > 0:
                build.usage(lab, start, start + HOUR, sku=sku)
            else:
                run(lab, sku, start, start + 2 * HOUR, sku=sku)
        build.credit(
            lab, major(build.closed(lab, f"{start:%Y-%m}", now=closing).invoice.due_minor), now=closing
        )
    tax_from(lab, said.rate, CLOSES[2].date())
    for pot, minor in ((Pot.PROMO, said.allowances), (Pot.PAID, said.prepaid)):
        if minor:
            build.credit(lab, major(minor), pot=pot, now=MONTHS[2])
    for rate, start, _closing in past:
        for sku, net in ((sku, net) for sku, other, net in corrected if other == rate):
            if net > 0:
                build.usage(lab, start + HOUR, start + 2 * HOUR, sku=sku)
            else:
                stop(lab, sku, start + HOUR)
    own = [sku for sku, rate, net in items if (sku, rate, net) not in corrected]
    for number, sku in enumerate(own):
        build.usage(lab, MONTHS[2] + number * HOUR, MONTHS[2] + (number + 1) * HOUR, sku=sku)
    return Invoice.objects.get(pk=build.closed(lab, "2026-04").invoice.pk)


def rate_of(category: str, percent: Decimal) -> str:
    return f"{percent.normalize():f}" if category == "S" else category


@pytest.mark.parametrize("said", PUBLISHED.values(), ids=PUBLISHED)
def test_our_invoice_is_the_published_one(db, said):
    invoice = issued(said)

    lines = InvoiceLine.objects.filter(invoice=invoice)
    assert sorted(
        (rate_of(line.tax_category, line.tax_percent), line.amount_minor) for line in lines
    ) == sorted(said.lines)
    groups = InvoiceTax.objects.filter(invoice=invoice)
    assert {
        rate_of(row.category, row.percent): (row.base_minor, row.tax_minor) for row in groups
    } == said.groups
    assert (invoice.discount_minor, invoice.total_minor, invoice.due_minor) == (
        said.allowances,
        said.total,
        said.due,
    )
    assert failing() == []
    net, tax = (sum(group[place] for group in said.groups.values()) for place in (0, 1))
    assert sums_of(invoice) == {
        "TaxBasisTotalAmount": net,
        "TaxTotalAmount": tax,
        "GrandTotalAmount": said.total,
        "TotalPrepaidAmount": said.prepaid,
        "DuePayableAmount": said.due,
    }


def sums_of(invoice: Invoice) -> dict[str, int]:
    """Return the sums of an invoice's e-invoice in minor units, by their names in the schema."""
    root = etree.fromstring(einvoice.xml_of(content_of(invoice)))
    (summation,) = root.iter(
        f"{{{einvoice.NAMESPACES['ram']}}}SpecifiedTradeSettlementHeaderMonetarySummation"
    )
    return {
        etree.QName(element).localname: int(Decimal(element.text).scaleb(2))
        for element in summation
        if etree.QName(element).localname != "LineTotalAmount"
    }
