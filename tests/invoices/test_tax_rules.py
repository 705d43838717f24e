"""Which tax a sale bears: by where the two sides are, what they gave and what is configured."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import eu_vat_rates_data
import pytest

from apps.core.countries import EU_MEMBERS
from apps.invoices.models import TaxRate
from apps.invoices.tax.rules import Certificate, Sale, TaxRateMissing, decide

RATES = {
    ("DE", ""): Decimal(19),
    ("FI", ""): Decimal("25.5"),
    ("FR", ""): Decimal(20),
    ("CA", ""): Decimal(5),
    ("CA", "Ontario"): Decimal(13),
    ("GB", ""): Decimal(20),
    ("AE", ""): Decimal(0),
}


def sale(seller, buyer, *, business=False, region="", registrations=(), certificates=()):
    return Sale(
        seller_country=seller,
        registrations=frozenset(registrations),
        buyer_country=buyer,
        buyer_region=region,
        has_vat_id=business,
        certificates=tuple(certificates),
        on=date(2026, 5, 1),
        rate_of=lambda country, place: RATES.get((country, place), RATES.get((country, ""))),
    )


@pytest.mark.parametrize(
    ("seller", "buyer", "how", "expected"),
    [
        ("DE", "DE", {}, ("S", "19", "DE")),
        ("DE", "DE", {"business": True}, ("S", "19", "DE")),
        ("DE", "", {}, ("S", "19", "DE")),
        ("DE", "FI", {}, ("S", "25.5", "FI")),
        ("DE", "FI", {"business": True}, ("AE", "0", "FI")),
        ("DE", "US", {}, ("O", "0", "")),
        ("DE", "US", {"business": True}, ("O", "0", "")),
        ("DE", "GB", {}, ("O", "0", "")),
        ("DE", "GB", {"registrations": ["GB"]}, ("S", "20", "GB")),
        ("DE", "FR", {"business": True, "registrations": ["FR"]}, ("S", "20", "FR")),
        ("US", "US", {}, ("O", "0", "")),
        ("US", "FI", {}, ("O", "0", "")),
        ("US", "FI", {"registrations": ["EU"]}, ("S", "25.5", "FI")),
        ("US", "FI", {"registrations": ["EU"], "business": True}, ("AE", "0", "FI")),
        ("CA", "CA", {"region": "Ontario"}, ("S", "13", "CA")),
        ("CA", "CA", {"region": "Alberta"}, ("S", "5", "CA")),
        ("AE", "AE", {}, ("Z", "0", "AE")),
        ("", "DE", {}, ("O", "0", "")),
    ],
)
def test_the_place_of_both_sides_decides(seller, buyer, how, expected):
    terms = decide(sale(seller, buyer, **how))

    assert (terms.category, f"{terms.percent:f}", terms.country) == expected


def test_reverse_charge_says_so_with_its_article():
    note = decide(sale("DE", "FI", business=True)).note

    assert note == "Reverse charge: VAT is due from the recipient (Article 196, Directive 2006/112/EC)."


def test_a_certificate_frees_from_the_tax_of_its_country_alone():
    certificate = Certificate(country="DE", number="NATO-7", reason="armed forces")

    exempt = decide(sale("DE", "DE", certificates=[certificate]))
    taxed = decide(sale("DE", "FR", certificates=[certificate]))

    assert (exempt.category, exempt.percent) == ("E", 0)
    assert exempt.note == "Exempt from tax: armed forces, certificate NATO-7."
    assert (taxed.category, taxed.percent) == ("S", 20)


def test_a_missing_rate_is_refused_and_never_zero():
    with pytest.raises(TaxRateMissing) as refused:
        decide(sale("DE", "IT"))

    assert refused.value.details == {"country": "IT"}
    assert "Italy on 2026-05-01" in str(refused.value)


def test_the_seeded_rates_are_those_of_the_commission(db):
    rates = {row.country: row.percent for row in TaxRate.objects.in_force(date(2026, 10, 1))}

    assert rates.keys() == EU_MEMBERS
    assert rates == {
        country: Decimal(str(row["standard"]))
        for country, row in eu_vat_rates_data.get_all_rates().items()
        if row["eu_member"]
    }
