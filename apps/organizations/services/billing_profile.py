"""Who invoices are made out to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core import countries, jobs
from apps.core.actor import Actor
from apps.organizations.models import BillingProfile, Organization, VatState
from apps.organizations.services.checks import check, wrong_email
from apps.outbox import services as outbox

BILLING_EMAILS_MAX = 10
# Length at most, as in the table.
TEXT_FIELDS: Mapping[str, int] = {
    "legal_name": 200, "line1": 200, "line2": 200, "postal_code": 20, "city": 100, "region": 100, "country": 2,
    "po_number": 60,
}  # fmt: skip


@transaction.atomic
def change_billing_profile(
    *,
    actor: Actor,
    organization: Organization,
    now: datetime,
    billing_emails: Sequence[str] | None = None,
    vat_id: str | None = None,
    **texts: str,
) -> BillingProfile:
    """Change the given fields of an organization's billing profile, making it with the first change.

    texts: any of TEXT_FIELDS; None and what is left out stay. A VAT id is checked by form and checksum against the
    country, offline; the registry is asked later, by a job. Invoices that are final keep what they say.
    """
    # The organization's row is the lock: the profile may not exist yet.
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    profile = BillingProfile.objects.filter(organization=organization).first() or BillingProfile(
        organization=organization
    )
    before = _facts(profile)
    texts = {name: value.strip() for name, value in texts.items() if value is not None}
    assert texts.keys() <= TEXT_FIELDS.keys(), "interfaces pass the fields that there are"
    for name, value in texts.items():
        setattr(profile, name, value.upper() if name == "country" else value)
    if billing_emails is not None:
        profile.billing_emails = list(dict.fromkeys(address.strip().lower() for address in billing_emails))
    wanted = profile.vat_id if vat_id is None else vat_id.strip()
    normal = countries.normal_vat_id(wanted, profile.country) if wanted else ""
    _check(profile, texts=texts, wanted=wanted, normal=normal)
    if normal != profile.vat_id:
        profile.vat_id = normal or ""
        profile.vat_state = VatState.UNCHECKED if normal else VatState.NONE
        profile.vat_checked_at = None
    after = _facts(profile)
    if before == after:
        return profile
    profile.updated_at = now
    profile.save()
    diff = {name: [before[name], after[name]] for name in after if before[name] != after[name]}
    audit.record(
        actor=actor,
        action="organization.billing_profile_changed",
        target=organization,
        organization_id=organization.id,
        diff=diff,
    )
    outbox.publish(
        "organizations.billing_profile_changed",
        {"id": str(organization.id), "fields": sorted(diff)},
        organization_id=organization.id,
    )
    if profile.vat_state == VatState.UNCHECKED and "vat_id" in diff:
        jobs.enqueue("invoices.check_vat_id", organization_id=organization.id)
    return profile


@transaction.atomic
def record_vat_check(*, organization_id: UUID, vat_id: str, valid: bool, now: datetime) -> None:
    """Keep what the registry said of a VAT id, unless the profile has another one by now."""
    BillingProfile.objects.filter(organization_id=organization_id, vat_id=vat_id).update(
        vat_state=VatState.CONFIRMED if valid else VatState.REFUSED, vat_checked_at=now
    )


def _facts(profile: BillingProfile) -> dict[str, Any]:
    names = (*TEXT_FIELDS, "vat_id", "billing_emails")
    return {name: getattr(profile, name) for name in names}


def _check(profile: BillingProfile, *, texts: Mapping[str, str], wanted: str, normal: str | None) -> None:
    problems: dict[str, str | Promise | None] = {
        name: _wrong_text(value, TEXT_FIELDS[name]) for name, value in texts.items()
    }
    if profile.country and not countries.is_country(profile.country):
        problems["country"] = _("This is not a country's two-letter code, such as DE.")
    elif wanted and not profile.country:
        problems["country"] = _("Give the country that the VAT id belongs to.")
    elif normal is None:
        problems["vat_id"] = _("This is not a VAT id of that country: its form or check digits are wrong.")
    elif len(normal) > 32:
        problems["vat_id"] = _("A VAT id has up to 32 characters.")
    if len(profile.billing_emails) > BILLING_EMAILS_MAX:
        problems["billing_emails"] = _("Give up to ten addresses.")
    for place, address in enumerate(profile.billing_emails):
        problems[f"billing_emails.{place}"] = wrong_email(address) or (
            None if address else _("Give an address, or leave the row out.")
        )
    check(**problems)


def _wrong_text(value: str, length_max: int) -> str | Promise | None:
    if len(value) > length_max:
        return _("Use up to %(max)d characters.") % {"max": length_max}
    if any(character < " " or character == "\x7f" for character in value):
        return _("Use one line without control characters.")
    return None
