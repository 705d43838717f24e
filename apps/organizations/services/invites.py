"""Invites: one address, one role, seven days, once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core import jobs, links
from apps.core.actor import Actor, ActorKind
from apps.core.errors import Conflict, FieldError, NotFound, ValidationFailed
from apps.core.permissions import ROLE_PERMISSIONS, Permission, Role
from apps.identity import selectors as identity
from apps.notifications import services as notifications
from apps.organizations.models import Invite, Membership, Organization
from apps.organizations.selectors import seats_taken
from apps.organizations.services.checks import check_quota, wrong_email
from apps.organizations.services.members import add_member, check_within_own
from apps.outbox import services as outbox

LASTS = timedelta(days=7)


class AlreadyMember(Conflict):
    """The address belongs to a member."""

    code = "already_member"
    default_message = _("This person is a member already.")


class AlreadyInvited(Conflict):
    """The address has an invite that waits; resend that one."""

    code = "already_invited"
    default_message = _("This address has an invite already. Send it again instead.")


@transaction.atomic
def invite(*, actor: Actor, organization: Organization, email: str, role: Role, now: datetime) -> Invite:
    """Invite an address to a role that the actor could give; the mail goes out after the commit.

    Raises AlreadyMember, AlreadyInvited, or what the plan's limit of members does. An invite whose time is over is
    replaced.
    """
    email = email.strip().lower()
    if problem := wrong_email(email) or (None if email else _("This is not an e-mail address.")):
        raise ValidationFailed(fields=[FieldError(path="email", code="invalid", message=str(problem))])
    check_within_own(actor, role)
    organization = _lock(organization.pk)
    if Membership.objects.filter(organization=organization, user__email=email).exists():
        raise AlreadyMember
    waiting = Invite.objects.unanswered().filter(organization=organization)
    for earlier in waiting.filter(email=email):
        if now < earlier.expires_at:
            raise AlreadyInvited(invite=str(earlier.id))
        earlier.revoked_at = now
        earlier.save(update_fields=["revoked_at"])
    _check_seats(actor, organization, seats_taken(organization.id, now=now) + 1, now)
    made = Invite(
        organization=organization,
        email=email,
        role=role,
        invited_by_id=actor.person_id if actor.kind == ActorKind.USER else None,
        created_at=now,
    )
    _renew(made, now)
    made.save(force_insert=True)
    _tell(actor, "invite.created", made)
    jobs.enqueue("organizations.mail_invite", invite_id=made.id)
    return made


@transaction.atomic
def resend(*, actor: Actor, invite: Invite, now: datetime) -> Invite:
    """Mail an invite again with a new link for seven days; the old link ends."""
    found = _lock_unanswered(invite)
    check_within_own(actor, Role(found.role))
    _renew(found, now)
    found.mailed_at = None
    found.save(update_fields=["nonce", "digest", "expires_at", "mailed_at"])
    _tell(actor, "invite.resent", found)
    jobs.enqueue("organizations.mail_invite", invite_id=found.id)
    return found


@transaction.atomic
def revoke_invite(*, actor: Actor, invite: Invite, now: datetime) -> None:
    """Take an invite back; its link ends."""
    found = _lock_unanswered(invite)
    check_within_own(actor, Role(found.role))
    found.revoked_at = now
    found.save(update_fields=["revoked_at"])
    _tell(actor, "invite.revoked", found)


@transaction.atomic
def accept_invite(*, actor: Actor, invite: Invite, now: datetime) -> Membership:
    """Make the actor a member by an invite to one of their verified addresses, once.

    NotFound for every invite that is not open to them, whatever the reason.
    """
    organization = _lock(
        invite.organization_id
    )  # Whoever changes members waits here, so that seats are counted.
    found = open_to(actor=actor, invite=_lock_unanswered(invite), now=now)
    members = Membership.objects.filter(organization=organization)
    if members.filter(user_id=actor.person_id).exists():
        raise AlreadyMember
    _check_seats(actor, organization, members.count() + 1, now)
    found.accepted_at = now
    found.save(update_fields=["accepted_at"])
    user = get_user_model()._default_manager.get(pk=actor.person_id)
    membership = add_member(
        actor=actor.within(organization.id),
        organization=organization,
        user=user,
        role=Role(found.role),
        now=now,
    )
    _tell(actor, "invite.accepted", found)
    return membership


@transaction.atomic
def decline_invite(*, actor: Actor, invite: Invite, now: datetime) -> None:
    """Refuse an invite to one of the actor's verified addresses."""
    found = open_to(actor=actor, invite=_lock_unanswered(invite), now=now)
    found.declined_at = now
    found.save(update_fields=["declined_at"])
    _tell(actor, "invite.declined", found)


def find_by_token(token: str, *, now: datetime) -> Invite:
    """Return the open invite of a token, or raise NotFound."""
    if len(token) > links.TOKEN_LENGTH_MAX:
        raise NotFound
    rows = Invite.objects.open(now).select_related("organization")
    found = rows.filter(digest=links.digest_of(token)).first()
    if found is None or not _inviter_still_may(found, now):
        raise NotFound
    return found


def invited_address(token: str, *, now: datetime) -> str | None:
    """Return the address that an open invite of this token was sent to; settings.INVITED_ADDRESS names this."""
    try:
        return find_by_token(token, now=now).email
    except NotFound:
        return None


def open_to(*, actor: Actor, invite: Invite, now: datetime) -> Invite:
    """Return the invite if this person could accept it now, or raise NotFound."""
    still_open = Invite.objects.open(now).filter(
        pk=invite.pk, email__in=identity.verified_addresses(actor.person_id)
    )
    if not still_open.exists() or not _inviter_still_may(invite, now):
        raise NotFound
    return invite


def mail_invite(*, invite_id: UUID, now: datetime) -> None:
    """Send the mail of an invite once; an invite that was answered or mailed since sends nothing."""
    rows = Invite.objects.open(now).select_related("organization", "invited_by")
    found = rows.filter(pk=invite_id, mailed_at__isnull=True).first()
    if found is None:
        return
    # Sent before it is marked: two mails are better than none, and only the last link is in both.
    notifications.deliver_mail(
        template="organizations/mail/invite",
        to=[found.email],
        context={
            "organization": found.organization.name,
            "role": str(found.get_role_display()),
            "link": f"{settings.PUBLIC_URL}/app/invites/{token_of(found)}",
        },
    )
    Invite.objects.filter(pk=found.pk, digest=found.digest).update(mailed_at=now)


def unmailed(*, now: datetime) -> list[UUID]:
    """Return the open invites whose mail a crash may have lost."""
    lost = Invite.objects.open(now).filter(mailed_at__isnull=True, created_at__lt=now - timedelta(minutes=1))
    return list(lost.order_by("pk").values_list("pk", flat=True)[:100])


def token_of(invite: Invite) -> str:
    """Return the token of an invite, which is in its mail and nowhere else."""
    return links.token_of("invite", invite.nonce)


def _renew(invite: Invite, now: datetime) -> None:
    invite.nonce = links.new_nonce()
    invite.digest = links.digest_of(token_of(invite))
    invite.expires_at = now + LASTS


def _check_seats(actor: Actor, organization: Organization, members: int, now: datetime) -> None:
    check_quota(actor=actor, organization_id=organization.id, quota="members", using=members, now=now)


def _inviter_still_may(invite: Invite, now: datetime) -> bool:
    """Return whether who invited could still do so; what the operator's staff sent stands by itself."""
    if invite.invited_by_id is None:
        return True
    inviter = (
        Membership.objects.in_force(now)
        .filter(organization_id=invite.organization_id, user_id=invite.invited_by_id)
        .first()
    )
    if inviter is None:
        return False
    own = ROLE_PERMISSIONS[Role(inviter.role)]
    return Permission.MEMBERS_INVITE in own and ROLE_PERMISSIONS[Role(invite.role)] <= own


def _lock(organization_id: UUID) -> Organization:
    return Organization.objects.select_for_update(no_key=True).get(pk=organization_id)


def _lock_unanswered(invite: Invite) -> Invite:
    rows = Invite.objects.unanswered().select_for_update(no_key=True)
    found = rows.filter(pk=invite.pk, digest=invite.digest).first()
    if found is None:
        raise NotFound
    return found


def _tell(actor: Actor, action: str, invite: Invite) -> None:
    diff: dict[str, Any] = {"email": invite.email, "role": invite.role}
    audit.record(actor=actor, action=action, target=invite, organization_id=invite.organization_id, diff=diff)
    outbox.publish(
        f"organizations.{action.replace('.', '_')}",
        {"id": invite.id, **diff},
        organization_id=invite.organization_id,
    )
