"""Making, changing, deleting and restoring organizations."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.text import slugify
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core import money
from apps.core.actor import Actor
from apps.core.permissions import Role
from apps.organizations.models import SLUG_LENGTH_MAX, Organization, OrganizationSlug
from apps.organizations.services.checks import SlugTaken, check, wrong_name, wrong_slug, wrong_timezone
from apps.organizations.services.members import add_member
from apps.organizations.services.periods import ensure_periods
from apps.outbox import services as outbox

if TYPE_CHECKING:
    from apps.identity.models import User


@transaction.atomic
def create_organization(
    *,
    actor: Actor,
    name: str,
    slug: str | None = None,
    currency: str | None = None,
    timezone: str = "UTC",
    billing_email: str = "",
    owner: User | None = None,
    is_demonstration: bool = False,
    now: datetime,
) -> Organization:
    """Create an organization with its first billing period and, if given, its owner.

    slug: by default made from the name, with a number where that is taken; a given one is taken or refused.
    """
    currency = currency or settings.DEFAULT_CURRENCY
    check(
        name=wrong_name(name),
        slug=None if slug is None else wrong_slug(slug),
        currency=None if money.is_currency(currency) else _("This is not an ISO 4217 currency code."),
        timezone=wrong_timezone(timezone),
    )
    organization = Organization(
        name=name.strip(),
        currency=currency,
        timezone=timezone,
        billing_email=billing_email or (owner.email if owner else ""),
        is_demonstration=is_demonstration,
        created_at=now,
    )
    _claim_slug(organization, slug)
    if owner is not None:
        add_member(actor=actor, organization=organization, user=owner, role=Role.OWNER, now=now)
    ensure_periods(organization_id=organization.id, covering=now)
    audit.record(
        actor=actor,
        action="organization.created",
        target=organization,
        organization_id=organization.id,
        diff={
            "slug": organization.slug,
            "name": organization.name,
            "currency": currency,
            "timezone": timezone,
        },
    )
    outbox.publish(
        "organizations.organization_created",
        {"id": organization.id, "slug": organization.slug, "name": organization.name, "currency": currency},
        organization_id=organization.id,
    )
    return organization


def _claim_slug(organization: Organization, slug: str | None) -> None:
    """Save an organization under a slug that nobody ever had; the primary key of the slugs decides."""
    for candidate in [slug] if slug is not None else _slugs_from(organization.name):
        organization.slug = candidate
        try:
            with transaction.atomic():
                organization.save(force_insert=True)
                OrganizationSlug.objects.create(slug=candidate, organization=organization)
        except IntegrityError as error:
            if "slug" not in str(error):
                raise
            continue
        return
    raise SlugTaken(slug=organization.slug)


def _slugs_from(name: str) -> Iterable[str]:
    """Yield slugs for a name: its own, then with a number that is not taken by somebody of the same name."""
    words = [word for word in slugify(name).replace("_", "-").split("-") if word]
    base = "-".join(words)[: SLUG_LENGTH_MAX - 5].strip("-") or "organization"
    if wrong_slug(base):
        base = f"organization-{base}"[: SLUG_LENGTH_MAX - 5]
    yield base
    for number in range(2, 10_000):
        yield f"{base}-{number}"
