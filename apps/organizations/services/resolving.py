"""Finding the organization that somebody names, and what they may do in it."""

from __future__ import annotations

from dataclasses import replace

from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor, ActorKind
from apps.core.errors import InvalidRequest, NotFound, PermissionDenied
from apps.core.permissions import ROLE_PERMISSIONS, Role
from apps.organizations.models import Membership, Organization, OrganizationStatus
from apps.organizations.selectors import find_organizations


class OrganizationMismatch(InvalidRequest):
    """A header names another organization than the path."""

    code = "organization_mismatch"
    default_message = _("X-Org-Slug names another organization than the path.")


class OrganizationSuspended(PermissionDenied):
    """Staff suspended the organization: its keys and members can do nothing."""

    code = "organization_suspended"
    default_message = _("This organization is suspended. Contact support.")


def resolve_organization(reference: str) -> Organization:
    """Return the organization of this id, slug or retired slug, whatever its status, or raise NotFound."""
    found = find_organizations([reference]).get(reference)
    if found is None:
        raise NotFound(_("There is no organization of this name."))
    return found


def resolve_for_actor(
    *, actor: Actor, path: str | None, header: str | None, owner: str | None
) -> tuple[Organization, Actor] | None:
    """Return the organization of a request and the actor inside it, or None if nothing names one.

    path, header, owner: what the path, X-Org-Slug and X-Owner-ID say. The order is path, the key's own,
    header, owner, the user's default. An organization that the actor has no part in is NotFound.
    """
    own = str(actor.organization_id) if actor.organization_id else None
    reference = path or own or header or owner or _default_reference(actor)
    if reference is None:
        return None
    found = find_organizations({name for name in (reference, header, owner) if name})
    organization = found.get(reference)
    if organization is None or organization.status == OrganizationStatus.DELETED:
        raise NotFound
    permissions = _permissions_in(organization, actor)
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
    return organization, replace(actor, organization_id=organization.id, permissions=permissions)


def _default_reference(actor: Actor) -> str | None:
    if actor.kind != ActorKind.USER or actor.id is None:
        return None
    membership = Membership.objects.filter(user_id=actor.id, is_default=True).first()
    return str(membership.organization_id) if membership else None


def _permissions_in(organization: Organization, actor: Actor) -> frozenset[str]:
    """Return what the actor may do in an organization; NotFound if that is not theirs."""
    if actor.kind == ActorKind.USER:
        assert actor.id is not None, "a person has an id"
        membership = Membership.objects.in_force(timezone.now()).filter(
            organization=organization, user_id=actor.id
        )
        found = membership.first()
        if found is None:
            raise NotFound
        return frozenset(ROLE_PERMISSIONS[Role(found.role)])
    if actor.kind == ActorKind.API_KEY and actor.organization_id != organization.id:
        raise NotFound
    return actor.permissions
