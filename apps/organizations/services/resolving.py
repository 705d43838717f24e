"""Finding the organization that somebody names, and what they may do in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor, ActorKind
from apps.core.errors import InvalidRequest, NotFound, PermissionDenied
from apps.core.permissions import ROLE_PERMISSIONS, Role
from apps.identity import selectors as identity
from apps.organizations.models import Membership, Organization, OrganizationStatus
from apps.organizations.places import Place
from apps.organizations.selectors import find_organizations


class OrganizationMismatch(InvalidRequest):
    """A header names another organization than the path."""

    code = "organization_mismatch"
    default_message = _("X-Org-Slug names another organization than the path.")


class OrganizationSuspended(PermissionDenied):
    """Staff suspended the organization: its keys and members can do nothing."""

    code = "organization_suspended"
    default_message = _("This organization is suspended. Contact support.")


class MfaEnrollmentRequired(PermissionDenied):
    """The organization asks its members for a second factor, and this one has none."""

    code = "mfa_enrollment_required"
    default_message = _("This organization requires a second factor. Set one up, then try again.")


def resolve_organization(reference: str) -> Organization:
    """Return the organization of this id, slug or retired slug, whatever its status, or raise NotFound."""
    found = find_organizations([reference]).get(reference)
    if found is None:
        raise NotFound(_("There is no organization of this name."))
    return found


def resolve_for_actor(
    *,
    actor: Actor,
    path: str | None,
    header: str | None,
    owner: str | None,
    place: Place | None = None,
    memberships: Sequence[Membership] = (),
) -> tuple[Organization, Actor] | None:
    """Return the organization of a request and the actor inside it, or None if nothing names one.

    path, header, owner: what the path, X-Org-Slug and X-Owner-ID say. The order is path, the key's own,
    header, owner, the user's default. An organization that the actor has no part in is NotFound. An owner that is no
    id names none.
    place: what was read along with the actor's credential; it saves queries and changes no answer.
    memberships: those in force of the person that the actor is, where they were loaded for this request.
    """
    places = (
        [place] if place else [Place(organization=row.organization, membership=row) for row in memberships]
    )
    own = str(actor.organization_id) if actor.organization_id else None
    owner = _owner_id(owner)
    reference = path or own or header or owner or _default_reference(actor, places)
    if reference is None:
        return None
    found = _find({name for name in (reference, header, owner) if name}, places)
    organization = found.get(reference)
    if organization is None or organization.status == OrganizationStatus.DELETED:
        raise NotFound
    membership, permissions = _part_in(organization, actor, places)
    if header and found.get(header) != organization:
        if path:
            raise OrganizationMismatch
        raise NotFound
    if owner and found.get(owner) != organization:
        raise PermissionDenied(_("X-Owner-ID is not the organization of this resource."))
    if organization.status == OrganizationStatus.SUSPENDED and actor.kind in {
        ActorKind.USER,
        ActorKind.API_KEY,
    }:
        raise OrganizationSuspended
    if membership is not None and _lacks_second_factor(organization, membership):
        raise MfaEnrollmentRequired
    return organization, replace(actor, organization_id=organization.id, permissions=permissions)


def _owner_id(owner: str | None) -> str | None:
    """Return what X-Owner-ID says, or for what is no id, a slug above all, an id that is nobody's."""
    if not owner:
        return None
    try:
        return str(UUID(owner))
    except ValueError:
        return str(UUID(int=0))


def _find(names: set[str], places: Sequence[Place]) -> dict[str, Organization]:
    found = {name: place.organization for name in names for place in places if place.is_named(name)}
    unknown = names - found.keys()
    return found | find_organizations(unknown) if unknown else found


def _default_reference(actor: Actor, places: Sequence[Place]) -> str | None:
    if actor.kind != ActorKind.USER or actor.id is None:
        return None
    for place in places:
        if place.membership and place.membership.is_default:
            return str(place.organization.pk)
    membership = Membership.objects.filter(user_id=actor.id, is_default=True).first()
    return str(membership.organization_id) if membership else None


def _part_in(
    organization: Organization, actor: Actor, places: Sequence[Place]
) -> tuple[Membership | None, frozenset[str]]:
    """Return a person's membership and what the actor may do in an organization; NotFound if that is not theirs."""
    if actor.kind == ActorKind.USER:
        membership = _membership(organization, actor, places)
        if membership is None:
            raise NotFound
        return membership, frozenset(ROLE_PERMISSIONS[Role(membership.role)])
    if actor.kind == ActorKind.API_KEY and actor.organization_id != organization.id:
        raise NotFound
    return None, actor.permissions


def _membership(organization: Organization, actor: Actor, places: Sequence[Place]) -> Membership | None:
    """Return a person's membership if it is in force."""
    now = timezone.now()
    for place in places:
        if place.membership and place.organization.pk == organization.pk:
            return place.membership if place.membership.is_in_force(now) else None
    in_force = Membership.objects.in_force(now).select_related("user")
    return in_force.filter(organization=organization, user_id=actor.person_id).first()


def _lacks_second_factor(organization: Organization, membership: Membership) -> bool:
    """Return whether the organization's policy stops a member, now that its grace period is over."""
    if not organization.require_mfa:
        return False
    grace_ends_at = organization.mfa_grace_ends_at
    if grace_ends_at is not None and timezone.now() < grace_ends_at:
        return False
    return not identity.has_second_factor(membership.user)
