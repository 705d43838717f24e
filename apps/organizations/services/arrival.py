"""What a new person begins with."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.db import transaction

from apps.core.actor import Actor, ActorKind
from apps.organizations.models import Membership, Organization
from apps.organizations.services.lifecycle import create_organization

if TYPE_CHECKING:
    from apps.identity.models import User


@transaction.atomic
def give_first_organization(*, user: User, now: datetime) -> Organization | None:
    """Make an organization named after a person who belongs to none yet, and owned by them; otherwise return None."""
    # Whoever else welcomes the same person waits here and then finds the membership.
    get_user_model()._default_manager.select_for_update(no_key=True).get(pk=user.pk)
    if Membership.objects.filter(user=user).exists():
        return None
    actor = Actor(kind=ActorKind.USER, id=user.pk, label=user.email)
    name = user.name or user.email.partition("@")[0]
    return create_organization(actor=actor, name=name, owner=user, now=now)
