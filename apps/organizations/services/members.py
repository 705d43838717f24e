"""Members: joining, roles, suspension, leaving, and the owner that every organization keeps."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.db import transaction

from apps.audit import services as audit
from apps.core.actor import Actor
from apps.core.permissions import Role
from apps.organizations.models import Membership, Organization
from apps.outbox import services as outbox

if TYPE_CHECKING:
    from apps.identity.models import User


@transaction.atomic
def add_member(
    *, actor: Actor, organization: Organization, user: User, role: Role, now: datetime
) -> Membership:
    """Make a user a member; the user's first organization becomes the default one."""
    membership = Membership.objects.create(
        organization=organization,
        user=user,
        role=role,
        is_default=not Membership.objects.filter(user=user, is_default=True).exists(),
        created_at=now,
    )
    audit.record(
        actor=actor, action="member.added", target=membership, diff={"user": user.email, "role": role}
    )
    outbox.publish(
        "organizations.member_added",
        {"id": membership.id, "user": user.pk, "role": role},
        organization_id=organization.id,
    )
    return membership
