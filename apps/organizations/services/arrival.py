"""What a new person begins with, and what becomes of a leaving one's memberships."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor, ActorKind
from apps.core.errors import Conflict
from apps.organizations.models import Membership, Organization, OrganizationStatus
from apps.organizations.services.lifecycle import create_organization
from apps.organizations.services.members import LastOwner, remove_member

if TYPE_CHECKING:
    from apps.identity.models import User


class OwnsOrganizations(Conflict):
    """The person is the only owner of an organization; `details.organizations` has the slugs."""

    code = "owns_organizations"
    default_message = _("You are the only owner of an organization.")


@transaction.atomic
def give_first_organization(*, user: User, now: datetime) -> Organization | None:
    """Make an organization named after a person who belongs to none yet, and owned by them; otherwise return None.

    None while sign-up is closed: whoever comes then was invited to somebody else's.
    """
    if not settings.SIGNUP_OPEN:
        return None
    # Whoever else welcomes the same person waits here and then finds the membership.
    get_user_model()._default_manager.select_for_update(no_key=True).get(pk=user.pk)
    if Membership.objects.filter(user=user).exists():
        return None
    actor = Actor(kind=ActorKind.USER, id=user.pk, label=user.email)
    name = user.name or user.email.partition("@")[0]
    return create_organization(actor=actor, name=name, owner=user, now=now)


@transaction.atomic
def leave_everywhere(*, actor: Actor, user: User, now: datetime) -> None:
    """End a person's memberships; their keys are revoked. Raises OwnsOrganizations naming every one that needs them.

    In a deleted organization the membership stays: nobody can act in it, and staff may still restore it.
    """
    memberships = Membership.objects.filter(user=user).exclude(
        organization__status=OrganizationStatus.DELETED
    )
    needed: list[Organization] = []
    for membership in memberships.select_related("organization").order_by("organization_id"):
        try:
            with transaction.atomic():
                remove_member(actor=actor.within(membership.organization_id), membership=membership, now=now)
        except LastOwner:
            needed.append(membership.organization)
    if needed:
        names = ", ".join(organization.name for organization in needed)
        message = _(
            "You are the only owner of %(names)s. Make somebody else an owner there, or delete it first."
        )
        raise OwnsOrganizations(
            message % {"names": names}, organizations=[organization.slug for organization in needed]
        )
