"""Finding organizations by what people and machines call them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Exists, OuterRef
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.compiled import CompiledQuery
from apps.core.permissions import ROLE_PERMISSIONS, Permission, Role, roles_with
from apps.core.states import State
from apps.identity import selectors as identity
from apps.organizations.models import (
    BillingProfile,
    Invite,
    Membership,
    Organization,
    OrganizationSlug,
    OrganizationStatus,
    OwnershipOffer,
)

_BY_ID = CompiledQuery(lambda pk: Organization.objects.filter(pk=pk), pk=UUID(int=0))
_BY_SLUG = CompiledQuery(lambda slug: Organization.objects.filter(slugs__slug=slug), slug="example")
_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


def find_organizations(references: Collection[str]) -> dict[str, Organization]:
    """Return the organizations by the references that name one: an id, a slug or a retired slug.

    At most two queries, however many references.
    """
    slugs, ids = _parted(references)
    if len(references) == 1:  # As for nearly every request.
        named = [_BY_ID.find(pk=pk) for pk in ids.values()] + [_BY_SLUG.find(slug=slug) for slug in slugs]
        return {reference: one for reference, one in zip(references, named, strict=False) if one}
    found: dict[str, Organization] = {}
    if slugs:
        rows = OrganizationSlug.objects.filter(slug__in=slugs).select_related("organization")
        found = {row.slug: row.organization for row in rows}
    if ids:
        organizations = Organization.objects.in_bulk(list(ids.values()))
        found |= {reference: organizations[pk] for reference, pk in ids.items() if pk in organizations}
    return found


def emails_with(organization_id: UUID, permission: Permission, *, now: datetime) -> list[str]:
    """Return the addresses of the members whose role has a permission, the oldest members first.

    Those of a deleted organization are among them: its last invoice is for somebody.
    """
    rows = Membership.objects.standing(now).filter(
        organization_id=organization_id, role__in=roles_with([permission])
    )
    return list(rows.order_by("created_at", "pk").values_list("user__email", flat=True))


def memberships_of(user_id: UUID) -> list[Membership]:
    """Return a person's memberships in force with their organizations, by name: what the switcher offers.

    `is_offered` says of each whether its organization's ownership is offered to it.
    """
    now = timezone.now()
    offers = OwnershipOffer.objects.filter(member=OuterRef("pk"), expires_at__gt=now)
    rows = Membership.objects.in_force(now).filter(user_id=user_id).annotate(is_offered=Exists(offers))
    return list(rows.select_related("organization", "user").order_by("organization__name", "pk"))


def received_invites(user_id: UUID, *, now: datetime) -> list[Invite]:
    """Return the open invites to a person's verified addresses, newest first."""
    found = Invite.objects.received_by(identity.verified_addresses(user_id), now)
    return list(found.order_by("-created_at", "-pk"))


def find_organization_ids(references: Collection[str]) -> dict[str, UUID]:
    """Return the ids of the organizations that exist by the references that name one, without reading more of them.

    At most two queries, however many references. Deleted organizations are left out.
    """
    slugs, ids = _parted(references)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT named.slug, named.organization_id
              FROM organizations_organizationslug named
              JOIN organizations_organization organization ON organization.id = named.organization_id
             WHERE named.slug = ANY (%s) AND organization.status <> %s
            """,
            [slugs, OrganizationStatus.DELETED],
        )
        found: dict[str, UUID] = dict(cursor.fetchall())
    if ids:
        existing = Organization.objects.existing().filter(pk__in=ids.values())
        known = set(existing.values_list("pk", flat=True))
        found |= {reference: pk for reference, pk in ids.items() if pk in known}
    return found


def id_in(reference: str) -> UUID | None:
    """Return the id that a reference is, None if it can only be a slug."""
    return UUID(reference) if _ID.fullmatch(reference) else None


def _parted(references: Collection[str]) -> tuple[list[str], dict[str, UUID]]:
    """Return the references that may be slugs, and those that are ids."""
    ids = {reference: pk for reference in references if (pk := id_in(reference))}
    # PostgreSQL takes no NUL; no slug has one.
    return [reference for reference in references if reference not in ids and "\x00" not in reference], ids


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Everybody who belongs to an organization or is asked to, each with the state in words."""

    members: Sequence[tuple[Membership, State]]
    invites: Sequence[tuple[Invite, State]]


def people_of(actor: Actor, *, now: datetime) -> People:
    """Return the members of the actor's organization by role and name, and the invites nobody has answered."""
    members = list(Membership.objects.visible_to(actor).select_related("user"))
    rank = {role: position for position, role in enumerate(Role.values)}
    members.sort(key=lambda row: (rank[row.role], row.user.get_full_name().lower(), row.pk))
    invites = Invite.objects.visible_to(actor).unanswered().order_by("-created_at", "-pk")
    waiting, over = State(word=_("invited"), tone="info"), State(word=_("invite expired"))
    return People(
        members=[(row, state_of(row, now=now)) for row in members],
        invites=[(row, waiting if now < row.expires_at else over) for row in invites],
    )


def state_of(member: Membership, *, now: datetime) -> State:
    """Return how a membership stands."""
    if not member.user.is_active:
        return State(word=_("account closed"), tone="danger")
    if member.expires_at is not None and member.expires_at <= now:
        return State(word=_("expired"))
    if member.suspended_at is not None:
        return State(word=_("suspended"), tone="danger")
    if member.expires_at is not None:
        return State(word=_("ends by itself"), tone="caution")
    return State(word=_("member"), tone="ok")


def has_keys(member: Membership, *, now: datetime) -> bool:
    """Return whether a member has API keys that somebody must decide about when they leave."""
    return bool(import_string(settings.MEMBER_HAS_KEYS)(membership=member, now=now))


def heirs_of(leaver: Membership, *, now: datetime) -> list[Membership]:
    """Return the members who could take over everything that the leaver's keys may do, by name."""
    rows = Membership.objects.in_force(now).filter(organization_id=leaver.organization_id)
    needed = ROLE_PERMISSIONS[Role(leaver.role)]
    found = [
        row
        for row in rows.exclude(pk=leaver.pk).select_related("user")
        if needed <= ROLE_PERMISSIONS[Role(row.role)]
    ]
    return sorted(found, key=lambda row: (row.user.get_full_name().lower(), row.pk))


def seats_taken(organization_id: UUID, *, now: datetime) -> int:
    """Return how many members there are, with the invites that wait for an answer."""
    waiting = Invite.objects.unanswered().filter(organization_id=organization_id, expires_at__gt=now)
    return Membership.objects.filter(organization_id=organization_id).count() + waiting.count()


def billing_recipients(organization: Organization, *, now: datetime) -> list[str]:
    """Return where mails about money and limits go: every one of them, so that nobody hears half of it.

    The addresses of the billing profile, else the organization's own, else those of who may manage its billing.
    """
    profile = BillingProfile.objects.filter(organization=organization).first()
    named = billing_addresses(organization, profile)
    return named or emails_with(organization.pk, Permission.BILLING_MANAGE, now=now)


def billing_addresses(organization: Organization, profile: BillingProfile | None) -> list[str]:
    """Return the addresses that an organization names for its bills: those of the billing profile, else its own."""
    named = profile.billing_emails if profile is not None else []
    return list(named) or [address for address in [organization.billing_email] if address]


def offer_of(organization: Organization, *, now: datetime) -> OwnershipOffer | None:
    """Return the offer of ownership that waits for an answer, with the people concerned."""
    offers = OwnershipOffer.objects.filter(organization=organization, expires_at__gt=now)
    return offers.select_related("member__user", "offered_by").first()


def other_members(actor: Actor, *, now: datetime) -> list[Membership]:
    """Return the members in force beside the actor, by name."""
    rows = Membership.objects.visible_to(actor).in_force(now)
    others = rows.exclude(user_id=actor.person_id).select_related("user")
    return sorted(others, key=lambda row: (row.user.get_full_name().lower(), row.pk))


def members_without_second_factor(organization: Organization, *, now: datetime) -> list[Membership]:
    """Return the members whom an MFA policy would stop, by name."""
    rows = Membership.objects.in_force(now).filter(organization=organization).select_related("user")
    enrolled = identity.users_with_second_factor(row.user_id for row in rows)
    found = [row for row in rows if row.user_id not in enrolled]
    return sorted(found, key=lambda row: (row.user.get_full_name().lower(), row.pk))
