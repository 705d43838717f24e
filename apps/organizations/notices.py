"""Mails to members about what they may do, and about whose the organization is."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.utils.translation import gettext as _

from apps.core.actor import Actor
from apps.core.ids import uuid7
from apps.core.permissions import Role
from apps.notifications import services as notifications
from apps.organizations.models import Membership, Organization, OwnershipOffer


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


def tell_of_offer(*, actor: Actor, offer: OwnershipOffer, now: datetime) -> None:
    """Mail a member that the organization is offered to them, and where they answer."""
    organization = offer.member.organization
    notifications.queue_mail(
        template="organizations/mail/offer",
        to=[offer.member.user.email],
        context={
            "organization": organization.name,
            "by": actor.label,
            "until": offer.expires_at.isoformat(),
            "link": f"{settings.PUBLIC_URL}/app/{organization.slug}/transfer/accept",
        },
        organization_id=organization.id,
        user_id=offer.member.user_id,
        cause=f"organizations.offer:{offer.id}",
        now=now,
    )


def tell_of_refused_offer(*, offer: OwnershipOffer, now: datetime) -> None:
    """Mail whoever offered an organization that the member declined it."""
    organization = offer.organization
    notifications.queue_mail(
        template="organizations/mail/offer_declined",
        to=[offer.offered_by.email],
        context={
            "organization": organization.name,
            "by": offer.member.user.get_full_name(),
            "link": f"{settings.PUBLIC_URL}/app/{organization.slug}/transfer",
        },
        organization_id=organization.id,
        user_id=offer.offered_by_id,
        cause=f"organizations.offer_declined:{offer.id}",
        now=now,
    )


def tell_of_ended_offer(*, offer: OwnershipOffer, now: datetime) -> None:
    """Mail a member that the organization is no longer offered to them."""
    organization = offer.organization
    notifications.queue_mail(
        template="organizations/mail/offer_ended",
        to=[offer.member.user.email],
        context={
            "organization": organization.name,
            "link": f"{settings.PUBLIC_URL}/app/{organization.slug}",
        },
        organization_id=organization.id,
        user_id=offer.member.user_id,
        cause=f"organizations.offer_ended:{offer.id}",
        now=now,
    )


def tell_of_deletion(*, actor: Actor, organization: Organization, until: datetime, now: datetime) -> None:
    """Mail every member in force that the organization is deleted, by whom, and until when support can restore it."""
    _tell_everybody("deleted", organization, {"by": actor.label, "until": until.isoformat()}, now=now)


def tell_of_restoration(*, organization: Organization, now: datetime) -> None:
    """Mail every member in force that the organization is back."""
    link = f"{settings.PUBLIC_URL}/app/{organization.slug}"
    _tell_everybody("restored", organization, {"link": link}, now=now)


def _tell_everybody(news: str, organization: Organization, facts: dict[str, str], *, now: datetime) -> None:
    members = Membership.objects.in_force(now).filter(organization=organization).order_by("created_at", "pk")
    notifications.queue_mail(
        template=f"organizations/mail/{news}",
        to=list(members.values_list("user__email", flat=True)),
        context={"organization": organization.name, **facts},
        organization_id=organization.id,
        # Each time is news: what was restored may be deleted again.
        cause=f"organizations.{news}:{uuid7()}",
        now=now,
    )
