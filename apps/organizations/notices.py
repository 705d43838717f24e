"""Mails to members about what they may do."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.utils.translation import gettext as _

from apps.core.actor import Actor
from apps.core.ids import uuid7
from apps.core.permissions import Role
from apps.notifications import services as notifications
from apps.organizations.models import Membership


def tell_of_role(*, actor: Actor, membership: Membership, before: str, purpose: str, now: datetime) -> None:
    """Mail a member whose role is another one, and what it lets them do.

    before: the role until now. purpose: the new role in a sentence.
    """
    organization = membership.organization
    notifications.queue_mail(
        template="organizations/mail/role",
        to=[membership.user.email],
        context={
            "change": _("Your role in %(name)s is now %(role)s.")
            % {"name": organization.name, "role": membership.get_role_display()},
            "before": str(Role(before).label),
            "purpose": purpose,
            "by": actor.label,
            "at": now.isoformat(),
            "link": f"{settings.PUBLIC_URL}/app/{organization.slug}",
        },
        organization_id=organization.id,
        user_id=membership.user_id,
        # Each change is news: who is promoted and demoted again is told twice.
        cause=f"organizations.role:{uuid7()}",
        now=now,
    )
