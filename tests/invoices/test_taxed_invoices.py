"""Tax on whole invoices, from usage to the books; worked examples by hand, each total with its sum."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import call_command

from apps.billing.models import Pot
from apps.core.permissions import Role
from apps.invoices import services as invoices
from apps.invoices.models import Invoice, InvoiceLine, InvoiceTax
from apps.invoices.tax.rules import TaxRateMissing
from apps.notifications.models import Mail
from apps.notifications.rendering import render
from apps.organizations import services as organizations
from apps.organizations.models import BillingPeriod
from tests import build
from tests.billing.runs import HOUR, run, stop
from tests.invoices.conftest import APRIL
from tests.money import books, failing, lines, lots, transfers

JUNE = datetime(2026, 6, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 3, tzinfo=UTC)


@pytest.fixture
def lab(db):
    return build.organization("lab", currency="EUR", now=APRIL)


def prices(*rows):
    return build.price_book(*rows, currency="EUR")


def taxes(invoice):
    rows = InvoiceTax.objects.filter(invoice=invoice).order_by("position")
    return [
        (row.category, f"{row.percent.normalize():f}", row.country, row.base_minor, row.tax_minor)
        for row in rows
    ]


def line_taxes(invoice):
    return list(
        InvoiceLine.objects.filter(invoice=invoice).order_by("position").values_list("tax_minor", flat=True)
    )


def amounts(invoice):
    invoice = Invoice.objects.get(pk=invoice.pk)
    return tuple(
        getattr(invoice, f"{name}_minor") for name in ("subtotal", "discount", "tax", "total", "due")
    )


# --- prepaid credit after tax


def test_prepaid_credit_pays_usage_and_its_tax(lab):
    """39.00 of credit; 14.29 and 14.27 at 24 % take 17.72 and 17.69; 21.28 and 3.59 are left.

    The scenario `with limitations` of
    https://github.com/getlago/lago-api/blob/main/spec/scenarios/invoices/invoicing_with_prepaid_credits_spec.rb
    (AGPL-3.0; its figures only). There each charge is an invoice at once, by our rules each is one of its month.
    """
    build.seller(country="GR", vat_id="EL094259216", timezone="Europe/Athens")
    build.billing_profile(lab, legal_name="Lab", country="GR")
    prices({"unit_price": "14.29"}, {"sku": "second", "unit_price": "14.27"})
    build.credit(lab, "39.00", now=APRIL)
    build.usage(lab, APRIL, APRIL + HOUR)

    first = build.closed(lab, "2026-04").invoice
    # 14.29 × 24 % = 3.4296; 14.29 + 3.43 = 17.72; 39.00 − 17.72 = 21.28.
    assert (amounts(first), first.state) == ((1429, 0, 343, 1772, 0), "paid")
    assert lots(lab) == [("paid", 21_280_000)]

    build.usage(lab, MAY, MAY + HOUR, sku="second")
    second = build.closed(lab, "2026-05", now=JUNE).invoice
    # 14.27 × 24 % = 3.4248; 14.27 + 3.42 = 17.69; 21.28 − 17.69 = 3.59.
    assert (amounts(second), second.state) == ((1427, 0, 342, 1769, 0), "paid")
    assert lots(lab) == [("paid", 3_590_000)]
    assert books(lab) == {
        "bank": -39_000_000,
        "paid_lot": 3_590_000,
        "revenue": 28_560_000,
        "tax_payable": 6_850_000,
    }
    assert failing() == []


def test_what_credit_does_not_cover_of_the_tax_is_due(lab):
    build.seller()
    prices({"unit_price": "100"})
    build.credit(lab, "110.005", now=APRIL)
    build.usage(lab, APRIL, APRIL + HOUR)

    invoice = build.closed(lab, "2026-04").invoice

    # 19.00 of tax: 10.00 from credit in whole cents, 9.00 is owed; half a cent of credit is left.
    assert (amounts(invoice), invoice.tax_credit_minor) == ((10000, 0, 1900, 11900, 900), 1000)
    assert transfers(lab)[-2:] == [
        ("tax", "receivable", "tax_payable", 9_000_000),
        ("tax", "paid_lot", "tax_payable", 10_000_000),
    ]
    assert lots(lab) == [("paid", 5_000)]
    assert failing() == []


@pytest.mark.parametrize("named", [["bills@lab.example"], []])
def test_a_deleted_organization_gets_its_last_invoice(lab, named):
    owner = build.member(lab, Role.OWNER)
    prices({"unit_price": "100"})
    build.credit(lab, "100", now=APRIL)
    build.usage(lab, APRIL, APRIL + HOUR, now=APRIL + HOUR)
    build.metered(lab, APRIL + 2 * HOUR)
    build.billing_profile(lab, legal_name="Lab", country="US", billing_emails=named)
    organizations.delete_organization(actor=build.actor(lab), organization=lab, now=APRIL + 2 * HOUR)

    call_command("close_period", period="2026-04", finalize=True, stdout=StringIO())

    last = Invoice.objects.get()
    assert (amounts(last), last.state) == ((10000, 0, 0, 10000, 0), "paid")
    mail = Mail.objects.get(template="invoices/mail/document")
    assert [mail.recipient] == (named or [owner.email])
    text = render(mail.template, mail.context).text
    assert "Support sends you the document." in text
    assert "/app/" not in text
    assert failing() == []


def test_promotional_credit_is_a_discount_before_tax_and_pays_none_of_it(lab):
    build.seller()
    prices({"unit_price": "100"})
    build.credit(lab, "150", pot=Pot.PROMO, now=APRIL)
    build.usage(lab, APRIL, APRIL + 2 * HOUR)

    invoice = build.closed(lab, "2026-04").invoice

    # 200 − 150 = 50; 50 × 19 % = 9.50.
    assert amounts(invoice) == (20000, 15000, 950, 5950, 5950)
    assert failing() == []


# --- several tax groups with a discount; the second rate comes of a correction, which keeps that of its line


def test_two_rates_and_a_discount_on_one_invoice(lab):
    build.seller()
    build.billing_profile(lab, country="DE")
    prices({"unit_price": "10"}, {"sku": "a100", "unit_price": "3.33"})
    build.usage(lab, APRIL, APRIL + HOUR)
    build.closed(lab, "2026-04")
    build.billing_profile(lab, country="FI")
    build.credit(lab, "1.00", pot=Pot.PROMO, now=MAY)
    build.usage(lab, APRIL, APRIL + 3 * HOUR)
    build.usage(lab, MAY, MAY + HOUR, sku="a100")

    invoice = build.closed(lab, "2026-05", now=JUNE).invoice

    assert lines(invoice) == [
        ("usage", "2026-05", "a100", "3600", 333, 100),
        ("adjustment", "2026-04", "h100", "10800", 3000, 0),
    ]
    # Finland: 3.33 − 1.00 = 2.33; 2.33 × 25.5 % = 0.59415. Germany, as on the line corrected: 30.00 × 19 % = 5.70.
    assert taxes(invoice) == [("S", "25.5", "FI", 233, 59), ("S", "19", "DE", 3000, 570)]
    assert line_taxes(invoice) == [59, 570]
    # 33.33 − 1.00 + 6.29 = 38.62.
    assert amounts(invoice) == (3333, 100, 629, 3862, 3862)
    assert failing() == []


def test_line_taxes_sum_to_the_groups_by_largest_remainder(lab):
    build.seller()
    prices(*({"sku": sku, "unit_price": "0.03"} for sku in ("a", "b", "c")))
    for sku in ("a", "b", "c"):
        build.usage(lab, APRIL, APRIL + HOUR, sku=sku)

    invoice = build.closed(lab, "2026-04").invoice

    # 0.09 × 19 % = 0.0171, which is 0.02; each line alone would be 0.01.
    assert (amounts(invoice), line_taxes(invoice)) == ((9, 0, 2, 11, 11), [1, 1, 0])
    assert failing() == []


def test_reverse_charge_names_both_vat_ids_and_no_tax(lab):
    """The German service for a French company of https://euvatkit.com/reverse-charge-examples/: no tax, but words."""
    build.seller()
    build.billing_profile(lab, legal_name="Laboratoire", country="FR", vat_id="FR 40 303265045")
    prices({"unit_price": "10"})
    build.usage(lab, APRIL, APRIL + HOUR)

    invoice = build.closed(lab, "2026-04").invoice

    assert taxes(invoice) == [("AE", "0", "FR", 1000, 0)]
    assert invoice.taxes.get().note.startswith("Reverse charge: VAT is due from the recipient")
    assert (invoice.seller["vat_id"], invoice.buyer["vat_id"]) == ("DE136695976", "FR40303265045")
    assert amounts(invoice) == (1000, 0, 0, 1000, 1000)


def test_an_id_that_the_registry_refused_is_a_consumers(lab):
    from apps.organizations import services as organizations

    build.seller()
    build.billing_profile(lab, country="FR", vat_id="FR40303265045")
    organizations.record_vat_check(organization_id=lab.id, vat_id="FR40303265045", valid=False, now=build.NOW)
    prices({"unit_price": "10"})
    build.usage(lab, APRIL, APRIL + HOUR)

    assert taxes(build.closed(lab, "2026-04").invoice) == [("S", "20", "FR", 1000, 200)]


def test_an_exemption_counts_while_it_is_valid(lab):
    build.seller()
    invoices.add_tax_exemption(
        actor=build.actor(),
        organization=lab,
        country="DE",
        certificate="7/2026",
        reason="research institute",
        valid_from=date(2026, 5, 1),
        valid_until=date(2026, 6, 1),
        now=APRIL,
    )
    prices({"unit_price": "10"})
    build.usage(lab, APRIL, APRIL + HOUR)
    build.usage(lab, MAY, MAY + HOUR)

    april = build.closed(lab, "2026-04", now=datetime(2026, 5, 31, 21, 59, tzinfo=UTC)).invoice
    # One minute later it is June in Berlin.
    may = build.closed(lab, "2026-05", now=JUNE).invoice

    assert taxes(april) == [("E", "0", "DE", 1000, 0)]
    assert april.taxes.get().note == "Exempt from tax: research institute, certificate 7/2026."
    assert taxes(may) == [("S", "19", "DE", 1000, 190)]


def test_a_rate_counts_from_its_day_in_the_sellers_zone(lab):
    build.seller()
    invoices.add_tax_rate(
        actor=build.actor(),
        country="DE",
        percent=Decimal(16),
        effective_from=date(2026, 6, 1),
        source="law",
        now=APRIL,
    )
    prices({"unit_price": "10"})
    build.usage(lab, APRIL, APRIL + HOUR)
    build.usage(lab, MAY, MAY + HOUR)

    april = build.closed(lab, "2026-04", now=datetime(2026, 5, 31, 21, 59, tzinfo=UTC)).invoice
    may = build.closed(lab, "2026-05", now=JUNE).invoice

    assert [taxes(april)[0][1], taxes(may)[0][1]] == ["19", "16"]


def test_a_missing_rate_stops_the_close_and_writes_nothing(lab):
    build.seller(country="CH", vat_id="CHE107787577IVA", tax_registrations=["GB"])
    build.billing_profile(lab, country="GB")
    prices({"unit_price": "10"})
    build.usage(lab, APRIL, APRIL + HOUR)

    with pytest.raises(TaxRateMissing):
        build.closed(lab, "2026-04")

    assert not Invoice.objects.exists()
    assert BillingPeriod.objects.filter(state="final").count() == 0


# --- corrections


def test_a_correction_bears_the_tax_of_the_line_that_it_corrects(lab):
    build.seller()
    prices({"unit_price": "10"})
    run(lab, "a", APRIL, APRIL + 2 * HOUR)
    build.closed(lab, "2026-04")
    build.billing_profile(lab, country="US")
    stop(lab, "a", APRIL + HOUR)
    build.usage(lab, MAY, MAY + 5 * HOUR)

    invoice = build.closed(lab, "2026-05", now=JUNE).invoice

    assert taxes(invoice) == [("O", "0", "", 5000, 0), ("S", "19", "DE", -1000, -190)]
    # 50 − 10 − 1.90; the tax came back before the debt was made: the credit of the hour paid 10.00 of May.
    assert amounts(invoice) == (4000, 0, -190, 3810, 3810)
    assert failing() == []


def test_a_credit_note_of_a_period_gives_its_tax_back(lab):
    build.seller()
    prices({"unit_price": "10"})
    run(lab, "a", APRIL, APRIL + 2 * HOUR)
    first = build.closed(lab, "2026-04").invoice
    stop(lab, "a", APRIL + HOUR)

    note = build.closed(lab, "2026-05", now=JUNE).invoice

    assert (note.number, amounts(note)) == ("CN-2026-000001", (-1000, 0, -190, -1190, 0))
    # The hour came back as credit; its tax reduces what is still owed for April: 23.80 − 1.90.
    assert books(lab) == {
        "paid_lot": 10_000_000,
        "receivable": -21_900_000,
        "revenue": 10_000_000,
        "tax_payable": 1_900_000,
    }
    assert [(row.kind, row.amount_micros) for row in first.payments.all()] == [("credit_note", 1_900_000)]
    assert failing() == []


def test_a_credit_note_of_a_paid_period_gives_its_tax_back_as_credit(lab):
    build.seller()
    prices({"unit_price": "10"})
    run(lab, "a", APRIL, APRIL + 2 * HOUR)
    build.closed(lab, "2026-04")
    build.credit(lab, "23.80")
    stop(lab, "a", APRIL + HOUR)

    build.closed(lab, "2026-05", now=JUNE)

    assert lots(lab) == [("paid", 10_000_000), ("paid", 1_900_000)]
    assert failing() == []


def test_money_paid_ahead_is_used_for_the_tax_too(lab):
    build.seller()
    prices({"unit_price": "10"})
    build.usage(lab, APRIL, APRIL + HOUR)
    build.usage(lab, MAY, MAY + HOUR)
    build.metered(lab)
    build.credit(lab, "15")

    april = build.closed(lab, "2026-04").invoice
    may = build.closed(lab, "2026-05", now=JUNE).invoice

    # 15.00 came ahead: April takes 11.90, May the other 3.10.
    assert (amounts(april), april.state) == ((1000, 0, 190, 1190, 0), "paid")
    assert amounts(may) == (1000, 0, 190, 1190, 880)
    assert failing() == []


@pytest.mark.parametrize(("currency", "tax", "total"), [("JPY", 190, 1190), ("KWD", 190_095, 1_190_595)])
def test_every_currency_rounds_tax_to_its_own_minor_unit(db, currency, tax, total):
    build.seller()
    lab = build.organization("lab", currency=currency, now=APRIL)
    build.price_book({"unit_price": "1000.5" if currency == "KWD" else "1000"}, currency=currency)
    build.usage(lab, APRIL, APRIL + HOUR)

    invoice = build.closed(lab, "2026-04").invoice

    assert (invoice.tax_minor, invoice.total_minor) == (tax, total)
    assert failing() == []


def test_the_draft_says_what_the_invoice_would(lab):
    build.seller()
    prices({"unit_price": "100"})
    build.credit(lab, "110", now=APRIL)
    build.usage(lab, APRIL, APRIL + HOUR)

    draft = build.closed(lab, "2026-04", finalize=False).invoice
    told = amounts(draft), taxes(draft), line_taxes(draft)
    final = build.closed(lab, "2026-04").invoice

    assert told == (amounts(final), taxes(final), line_taxes(final))
    assert told[0] == (10000, 0, 1900, 11900, 900)


def test_each_seller_numbers_its_own_series(lab):
    build.seller()
    build.seller("asia", country="SG", vat_id="", timezone="Asia/Singapore", invoice_series="SG")
    other = build.organization("other", currency="EUR", now=APRIL)
    asia = build.seller("asia")
    invoices.assign_seller(actor=build.actor(), organization=other, seller=asia, now=APRIL)
    prices({"unit_price": "10"})
    for organization in (lab, other):
        build.usage(organization, APRIL, APRIL + HOUR)

    # In Singapore it is 2027 already.
    at = datetime(2026, 12, 31, 17, tzinfo=UTC)
    numbers = [build.closed(organization, "2026-04", now=at).invoice.number for organization in (lab, other)]

    assert numbers == ["INV-2026-000001", "SG-2027-000001"]
    assert failing() == []
