"""Seller and buyer as an invoice names them, copied into it when it becomes final."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.utils.module_loading import import_string

from apps.core.countries import EU_MEMBERS, vat_prefix
from apps.invoices.models import Invoice, SellerAssignment, SellerEntity, TaxExemption, TaxRate
from apps.invoices.models.sellers import DEFAULT_ENTITY
from apps.invoices.tax.rules import Certificate, Sale
from apps.invoices.tax.terms import TaxTerms
from apps.organizations.models import BillingProfile, Organization, VatState
from apps.organizations.selectors import billing_addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A postal address; country is its ISO code, empty while unknown."""

    line1: str = ""
    line2: str = ""
    postal_code: str = ""
    city: str = ""
    region: str = ""
    country: str = ""

    @classmethod
    def of(cls, row: SellerEntity | BillingProfile) -> Self:
        names = ("line1", "line2", "postal_code", "city", "region", "country")
        return cls(**{name: getattr(row, name) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seller:
    """The entity that issues an invoice. Before any seller is configured it is the operator's bare name."""

    code: str = DEFAULT_ENTITY
    name: str
    address: Address = Address()
    vat_id: str = ""
    tax_number: str = ""
    registration_number: str = ""
    email: str = ""
    website: str = ""
    bank_name: str = ""
    account_holder: str = ""
    iban: str = ""
    bic: str = ""
    logo: str = ""
    payment_days: int = 14
    terms: str = ""
    timezone: str = "UTC"
    invoice_series: str = "INV"
    credit_note_series: str = "CN"
    tax_registrations: tuple[str, ...] = ()

    def day_of(self, moment: datetime) -> date:
        """Return the day of a moment where the seller is."""
        return moment.astimezone(ZoneInfo(self.timezone)).date()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        facts = dict(data)
        if not facts:
            return cls(name=settings.BRAND_NAME)
        registrations = tuple(facts.pop("tax_registrations"))
        return cls(address=Address(**facts.pop("address")), tax_registrations=registrations, **facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Buyer:
    """Who an invoice is made out to. timezone: where the organization's months end."""

    name: str
    address: Address = Address()
    vat_id: str = ""
    vat_state: str = VatState.NONE
    billing_emails: tuple[str, ...] = ()
    po_number: str = ""
    timezone: str = "UTC"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any], *, name: str) -> Self:
        facts = dict(data)
        if not facts:
            return cls(name=name)
        emails = tuple(facts.pop("billing_emails"))
        return cls(address=Address(**facts.pop("address")), billing_emails=emails, **facts)


def seller_of(organization_id: UUID) -> Seller:
    """Return the entity that an organization buys from now."""
    assigned = (
        SellerAssignment.objects.filter(organization_id=organization_id).select_related("seller").first()
    )
    row = assigned.seller if assigned else SellerEntity.objects.filter(code=DEFAULT_ENTITY).first()
    if row is None:
        return Seller(name=settings.BRAND_NAME)
    same = (
        "vat_id", "tax_number", "registration_number", "email", "website", "bank_name", "account_holder", "iban",
        "bic", "logo", "payment_days", "terms", "timezone", "invoice_series", "credit_note_series",
    )  # fmt: skip
    return Seller(
        code=row.code,
        name=row.legal_name,
        address=Address.of(row),
        tax_registrations=tuple(row.tax_registrations),
        **{name: getattr(row, name) for name in same},
    )


def due_on(invoice: Invoice) -> date | None:
    """Return the day that a document says it is due, where its seller is; None before it is final, or for a note."""
    return Seller.from_json(invoice.seller).day_of(invoice.due_at) if invoice.due_at else None


def buyer_of(organization: Organization) -> Buyer:
    """Return who the invoices of an organization are made out to now."""
    profile = BillingProfile.objects.filter(organization=organization).first()
    addresses = tuple(billing_addresses(organization, profile))
    if profile is None:
        return Buyer(name=organization.name, billing_emails=addresses, timezone=organization.timezone)
    return Buyer(
        name=profile.legal_name or organization.name,
        address=Address.of(profile),
        vat_id=profile.vat_id,
        vat_state=profile.vat_state,
        billing_emails=addresses,
        po_number=profile.po_number,
        timezone=organization.timezone,
    )


def tax_terms(*, organization_id: UUID, seller: Seller, buyer: Buyer, now: datetime) -> TaxTerms:
    """Return how a sale of this moment is taxed, by the engine that TAX_ENGINE names."""
    on = seller.day_of(now)
    rates: dict[tuple[str, str], Decimal] = {}
    for row in TaxRate.objects.in_force(on).filter(
        country__in=[buyer.address.country, seller.address.country]
    ):
        rates.setdefault((row.country, row.region), row.percent)
    sale = Sale(
        seller_country=seller.address.country,
        registrations=frozenset(seller.tax_registrations),
        buyer_country=buyer.address.country,
        buyer_region=buyer.address.region,
        has_vat_id=_is_business(buyer),
        certificates=tuple(
            Certificate(country=row.country, number=row.certificate, reason=row.reason)
            for row in TaxExemption.objects.in_force(organization_id, on)
        ),
        on=on,
        rate_of=lambda country, region: rates.get((country, region), rates.get((country, ""))),
    )
    terms: TaxTerms = import_string(settings.TAX_ENGINE)(sale)
    return terms


def _is_business(buyer: Buyer) -> bool:
    """Return whether the buyer gave a VAT id of its own country; one that nobody could check yet counts."""
    country = buyer.address.country
    prefix = vat_prefix(country) if country in EU_MEMBERS else ""
    return bool(buyer.vat_id) and buyer.vat_state != VatState.REFUSED and buyer.vat_id.startswith(prefix)
