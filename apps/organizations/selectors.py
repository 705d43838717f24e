"""Finding organizations by what people and machines call them."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from django.utils import timezone

from apps.identity import selectors as identity
from apps.organizations.models import Invite, Membership, Organization, OrganizationSlug, OrganizationStatus

_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


def find_organizations(references: Collection[str]) -> dict[str, Organization]:
    """Return the organizations by the references that name one: an id, a slug or a retired slug.

    At most two queries, however many references.
    """
    slugs, ids = _parted(references)
    found: dict[str, Organization] = {}
    if slugs:
        rows = OrganizationSlug.objects.filter(slug__in=slugs).select_related("organization")
        found = {row.slug: row.organization for row in rows}
    if ids:
        organizations = Organization.objects.in_bulk(list(ids.values()))
        found |= {reference: organizations[pk] for reference, pk in ids.items() if pk in organizations}
    return found


def memberships_of(user_id: UUID) -> list[Membership]:
    """Return a person's memberships in force with their organizations, by name: what the switcher offers."""
    rows = Membership.objects.in_force(timezone.now()).filter(user_id=user_id)
    return list(rows.select_related("organization").order_by("organization__name", "pk"))


def received_invites(user_id: UUID, *, now: datetime) -> list[Invite]:
    """Return the open invites to a person's verified addresses, newest first."""
    found = Invite.objects.received_by(identity.verified_addresses(user_id), now)
    return list(found.order_by("-created_at", "-pk"))


def find_organization_ids(references: Collection[str]) -> dict[str, UUID]:
    """Return the ids of the organizations that exist by the references that name one, without reading more of them.

    At most two queries, however many references. Deleted organizations are left out.
    """
    slugs, ids = _parted(references)
    found: dict[str, UUID] = {}
    if slugs:
        named = OrganizationSlug.objects.filter(slug__in=slugs).exclude(
            organization__status=OrganizationStatus.DELETED
        )
        found = dict(named.values_list("slug", "organization_id"))
    if ids:
        existing = set(
            Organization.objects.existing().filter(pk__in=ids.values()).values_list("pk", flat=True)
        )
        found |= {reference: pk for reference, pk in ids.items() if pk in existing}
    return found


def _parted(references: Collection[str]) -> tuple[list[str], dict[str, UUID]]:
    """Return the references that may be slugs, and those that are ids."""
    ids = {reference: UUID(reference) for reference in references if _ID.fullmatch(reference)}
    # PostgreSQL takes no NUL; no slug has one.
    return [reference for reference in references if reference not in ids and "\x00" not in reference], ids
