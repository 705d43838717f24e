"""Who sells and how sales are taxed, as staff configure it. Final invoices keep what they say."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from lxml import etree
from stdnum import iban

from apps.audit import services as audit
from apps.core import countries, periods
from apps.core.actor import Actor
from apps.core.errors import FieldError, ValidationFailed
from apps.invoices.models import SellerAssignment, SellerEntity, TaxExemption, TaxRate
from apps.invoices.tax.rules import EU
from apps.organizations.models import Organization
from apps.outbox import services as outbox

LOGO_BYTES_MAX = 100_000
SELLER_FIELDS = (
    "legal_name", "line1", "line2", "postal_code", "city", "region", "country", "vat_id", "tax_number",
    "registration_number", "email", "website", "bank_name", "account_holder", "iban", "bic", "logo", "payment_days",
    "terms", "timezone", "invoice_series", "credit_note_series", "tax_registrations",
)  # fmt: skip
# Whatever in an SVG could reach outside of it, or run.
_ACTIVE = re.compile(r"^(script|foreignObject|iframe|image|use|style|a|animate.*|set)$", re.IGNORECASE)


@transaction.atomic
def save_seller(*, actor: Actor, code: str, now: datetime, **fields: Any) -> SellerEntity:
    """Make a seller or change the given fields of one; fields are SELLER_FIELDS.

    Raises ValidationFailed for a country, zone, VAT id, IBAN, logo or series that cannot be right. Numbers of a new
    series start at one.
    """
    assert fields.keys() <= set(SELLER_FIELDS), "interfaces pass the fields that there are"
    seller = SellerEntity.objects.select_for_update(no_key=True).filter(code=code).first()
    before = {name: getattr(seller, name) for name in SELLER_FIELDS} if seller else {}
    seller = seller or SellerEntity(code=code)
    for name, value in fields.items():
        setattr(seller, name, value)
    seller.country = seller.country.upper()
    seller.tax_registrations = sorted({place.upper() for place in seller.tax_registrations})
    _check_seller(seller)
    after = {name: getattr(seller, name) for name in SELLER_FIELDS}
    if before == after:
        return seller
    seller.updated_at = now
    seller.save()
    diff = {name: [before.get(name), after[name]] for name in after if before.get(name) != after[name]}
    diff.pop("logo", None)
    audit.record(actor=actor, action="seller.saved", target=seller, diff=diff)
    outbox.publish("invoices.seller_saved", {"code": code, "fields": sorted(diff)})
    return seller


def _check_seller(seller: SellerEntity) -> None:
    problems: dict[str, str | Promise] = {}
    if not re.fullmatch(r"[a-z0-9-]{1,32}", seller.code):
        problems["code"] = _("A code has up to 32 lower-case letters, digits and hyphens.")
    if not seller.legal_name.strip():
        problems["legal_name"] = _("An invoice names who sells.")
    if not countries.is_country(seller.country):
        problems["country"] = _("This is not a country's two-letter code, such as DE.")
    elif seller.vat_id:
        normal = countries.normal_vat_id(seller.vat_id, seller.country)
        if normal is None:
            problems["vat_id"] = _(
                "This is not a VAT id of that country: its form or check digits are wrong."
            )
        seller.vat_id = normal or ""
    elif seller.country in countries.EU_MEMBERS:
        problems["vat_id"] = _("A seller in the European Union has a VAT id.")
    problems |= _wrong_details(seller)
    _refuse(problems)


def _wrong_details(seller: SellerEntity) -> dict[str, str | Promise]:
    problems: dict[str, str | Promise] = {}
    if seller.iban and not iban.is_valid(seller.iban):
        problems["iban"] = _("This is not an IBAN: its check digits are wrong.")
    elif seller.iban:
        seller.iban = iban.compact(seller.iban)
    if seller.timezone not in periods.zone_names():
        problems["timezone"] = _("This is not an IANA time zone, such as Europe/Oslo.")
    for field in ("invoice_series", "credit_note_series"):
        if not re.fullmatch(r"[A-Z]{1,8}", getattr(seller, field)):
            problems[field] = _("A series has one to eight capital letters.")
    if seller.invoice_series == seller.credit_note_series:
        problems["credit_note_series"] = _("Credit notes have a series of their own.")
    unknown = [place for place in seller.tax_registrations if place != EU and not countries.is_country(place)]
    if unknown:
        problems["tax_registrations"] = _("Not a country's code, nor EU: %(places)s.") % {
            "places": ", ".join(unknown)
        }
    if seller.logo and (problem := _wrong_logo(seller.logo)):
        problems["logo"] = problem
    return problems


def _wrong_logo(logo: str) -> str | Promise | None:
    if len(logo.encode()) > LOGO_BYTES_MAX:
        return _("A logo has up to 100 kB.")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(logo.encode(), parser)
    except etree.XMLSyntaxError:
        return _("This is not an SVG image.")
    if etree.QName(root).localname != "svg":
        return _("This is not an SVG image.")
    for element in root.iter(etree.Element):
        active = _ACTIVE.match(etree.QName(element).localname)
        reaching = [
            name for name in element.attrib if etree.QName(name).localname.lower() in ("href", "style")
        ]
        if active or reaching or any(name.lower().startswith("on") for name in element.attrib):
            return _("Use an SVG of plain shapes, without scripts, styles, links and embedded images.")
    return None


@transaction.atomic
def assign_seller(
    *, actor: Actor, organization: Organization, seller: SellerEntity | None, now: datetime
) -> None:
    """Let an organization buy from an entity, or from the default one again; from its next invoice on."""
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    before = SellerAssignment.objects.filter(organization=organization).first()
    if (before.seller_id if before else None) == (seller.code if seller else None):
        return
    if before is not None:
        before.delete()
    if seller is not None:
        SellerAssignment.objects.create(organization=organization, seller=seller)
    diff = {"seller": [before.seller_id if before else None, seller.code if seller else None]}
    audit.record(
        actor=actor,
        action="seller.assigned",
        target=organization,
        organization_id=organization.id,
        diff=diff,
    )
    outbox.publish(
        "invoices.seller_assigned",
        {"seller": seller.code if seller else None, "at": now.isoformat()},
        organization_id=organization.id,
    )


@transaction.atomic
def add_tax_rate(
    *,
    actor: Actor,
    country: str,
    percent: Decimal,
    effective_from: date,
    source: str,
    now: datetime,
    region: str = "",
) -> TaxRate:
    """Add a rate from a day on; the newest that has begun counts. Rows stay; a mistake is mended by another row."""
    country = country.upper()
    problems: dict[str, str | Promise] = {}
    if not countries.is_country(country):
        problems["country"] = _("This is not a country's two-letter code, such as DE.")
    if not 0 <= percent <= 100 or percent != percent.quantize(Decimal("0.0001")):
        problems["percent"] = _("Give a percentage from 0 to 100 with up to four decimals.")
    _refuse(problems)
    rate = TaxRate.objects.create(
        country=country,
        region=region.strip(),
        percent=percent,
        effective_from=effective_from,
        source=source,
        created_at=now,
    )
    audit.record(
        actor=actor,
        action="tax_rate.added",
        target=rate,
        diff={
            "country": country,
            "region": rate.region,
            "percent": str(percent),
            "from": effective_from.isoformat(),
        },
    )
    outbox.publish("invoices.tax_rate_added", {"country": country, "percent": str(percent)})
    return rate


@transaction.atomic
def add_tax_exemption(
    *,
    actor: Actor,
    organization: Organization,
    country: str,
    certificate: str,
    reason: str,
    valid_from: date,
    valid_until: date | None,
    now: datetime,
) -> TaxExemption:
    """Free an organization from one country's tax while a certificate is valid."""
    country = country.upper()
    problems: dict[str, str | Promise] = {}
    if not countries.is_country(country):
        problems["country"] = _("This is not a country's two-letter code, such as DE.")
    if not certificate.strip() or len(certificate) > 60:
        problems["certificate"] = _("Give the certificate's number, up to 60 characters.")
    if not reason.strip() or len(reason) > 200:
        problems["reason"] = _("Give the reason as the invoice is to name it, up to 200 characters.")
    if valid_until is not None and valid_until <= valid_from:
        problems["valid_until"] = _("The end lies after the beginning.")
    _refuse(problems)
    exemption = TaxExemption.objects.create(
        organization=organization,
        country=country,
        certificate=certificate.strip(),
        reason=reason.strip(),
        valid_from=valid_from,
        valid_until=valid_until,
        created_at=now,
    )
    audit.record(
        actor=actor,
        action="tax_exemption.added",
        target=exemption,
        organization_id=organization.id,
        diff={"country": country, "certificate": exemption.certificate, "from": valid_from.isoformat()},
    )
    outbox.publish("invoices.tax_exemption_added", {"id": str(exemption.id)}, organization_id=organization.id)
    return exemption


@transaction.atomic
def revoke_tax_exemption(*, actor: Actor, exemption: TaxExemption, reason: str, now: datetime) -> None:
    """End an exemption; invoices that are final keep it."""
    exemption = TaxExemption.objects.select_for_update(no_key=True).get(pk=exemption.pk)
    if exemption.revoked_at is not None:
        return
    exemption.revoked_at = now
    exemption.save(update_fields=["revoked_at"])
    audit.record(
        actor=actor,
        action="tax_exemption.revoked",
        target=exemption,
        organization_id=exemption.organization_id,
        reason=reason,
    )
    outbox.publish(
        "invoices.tax_exemption_revoked", {"id": str(exemption.id)}, organization_id=exemption.organization_id
    )


def _refuse(problems: dict[str, str | Promise]) -> None:
    if problems:
        raise ValidationFailed(
            fields=[
                FieldError(path=name, code="invalid", message=str(problem))
                for name, problem in problems.items()
            ]
        )
