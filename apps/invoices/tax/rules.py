"""The rules of taxation that ship with Countinghouse; `TAX_ENGINE` names another function of the same kind.

Compute capacity is an electronically supplied service. In the European Union it is taxed at home for customers at home,
by the customer under reverse charge where a business abroad gives a VAT id, else at the rate of the consumer's country.
Elsewhere tax is charged where the seller is at home or registered and a rate is configured. Everything else is outside
the scope of the seller's tax.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from django.utils.translation import gettext as _

from apps.core.countries import EU_MEMBERS, country_name
from apps.core.errors import Conflict
from apps.invoices.models import TaxCategory
from apps.invoices.tax.terms import TaxTerms

EU = "EU"


class TaxRateMissing(Conflict):
    """No rate is configured for a country in which the seller charges tax."""

    code = "tax_rate_missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A valid exemption from one country's tax."""

    country: str
    number: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """All that the taxation of a sale depends on.

    seller_country, buyer_country: ISO codes, empty while unknown. registrations: where else the seller charges tax, EU
    for the One-Stop Shop. has_vat_id: the buyer has one of its own country, which the registry has not refused.
    on: the tax point, the day of the invoice in the seller's zone. rate_of: percent by country and region, or None.
    """

    seller_country: str
    registrations: frozenset[str]
    buyer_country: str
    buyer_region: str
    has_vat_id: bool
    certificates: tuple[Certificate, ...]
    on: date
    rate_of: Callable[[str, str], Decimal | None]


def decide(sale: Sale) -> TaxTerms:
    """Return how a sale is taxed, or raise TaxRateMissing."""
    country = _taxing_country(sale)
    if country is None:
        return TaxTerms(note=_("Outside the scope of tax.") if sale.seller_country else "")
    for certificate in sale.certificates:
        if certificate.country == country:
            note = _("Exempt from tax: %(reason)s, certificate %(number)s.")
            return TaxTerms(
                category=TaxCategory.EXEMPT,
                country=country,
                note=note % {"reason": certificate.reason, "number": certificate.number},
            )
    abroad = country in EU_MEMBERS and country != sale.seller_country and country not in sale.registrations
    if sale.has_vat_id and abroad:
        return TaxTerms(
            category=TaxCategory.REVERSE_CHARGE,
            country=country,
            note=_("Reverse charge: VAT is due from the recipient (Article 196, Directive 2006/112/EC)."),
        )
    region = sale.buyer_region if country == sale.buyer_country else ""
    percent = sale.rate_of(country, region)
    if percent is None:
        raise TaxRateMissing(
            _("There is no tax rate for %(country)s on %(day)s; add one before closing.")
            % {"country": country_name(country), "day": sale.on.isoformat()},
            country=country,
        )
    return TaxTerms(
        category=TaxCategory.STANDARD if percent else TaxCategory.ZERO, percent=percent, country=country
    )


def _taxing_country(sale: Sale) -> str | None:
    """Return the country whose tax the seller charges or the buyer owes, or None."""
    # Who does not say where they are is taken for a customer at home.
    buyer = sale.buyer_country or sale.seller_country
    if not sale.seller_country:
        return None
    if buyer == sale.seller_country:
        # Outside the Union a country without a configured rate has none that concerns us.
        charges = buyer in EU_MEMBERS or sale.rate_of(buyer, sale.buyer_region) is not None
        return buyer if charges else None
    if buyer in sale.registrations:
        return buyer
    if buyer in EU_MEMBERS and (sale.seller_country in EU_MEMBERS or EU in sale.registrations):
        return buyer
    return None
