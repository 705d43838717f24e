"""Members: joining, roles, suspension, leaving, and the owner that every organization keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils.functional import Promise
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core.actor import Actor, ActorKind
from apps.core.errors import Conflict, FieldError, NotFound, PermissionDenied, ValidationFailed
from apps.core.permissions import ROLE_PERMISSIONS, Role
from apps.organizations import notices
from apps.organizations.models import Membership, Organization, OwnershipOffer
from apps.outbox import services as outbox

if TYPE_CHECKING:
    from apps.identity.models import User

OFFER_LASTS = timedelta(days=7)
ROLE_PURPOSES: Mapping[Role, Promise] = MappingProxyType(
    {
        Role.OWNER: _("Everything, also handing the organization over and deleting it."),
        Role.ADMIN: _("Everything but handing over and deleting."),
        Role.BILLING: _("Credit, payment, invoices and budgets; sees everything else."),
        Role.DEVELOPER: _("Projects, API keys and quotas; sees usage and spend."),
        Role.VIEWER: _("Sees everything but the audit log; changes nothing."),
    }
)


class LastOwner(Conflict):
    """An organization keeps at least one owner who is neither suspended nor about to expire."""

    code = "last_owner"
    default_message = _("An organization needs an owner. Make somebody else an owner first.")


class AboveYou(PermissionDenied):
    """Nobody grants more than they have, or acts on a member who has more."""

    default_message = _("You cannot give or touch permissions that you do not have yourself.")


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


@transaction.atomic
def change_member(
    *,
    actor: Actor,
    membership: Membership,
    role: Role | None = None,
    suspended: bool | None = None,
    expires_at: datetime | None = None,
    keep_expiry: bool = True,
    now: datetime,
) -> Membership:
    """Change a member's role, suspension or end; what is None stays, the end only while `keep_expiry`.

    Raises AboveYou for a member or role beyond the actor's own permissions, LastOwner if nobody would own the
    organization afterwards.
    """
    membership = lock_member(membership)
    before = {
        "role": membership.role,
        "suspended": _is_suspended(membership),
        "expires_at": membership.expires_at,
    }
    was_owner = _owns_for_good(membership)
    check_within_own(actor, Role(membership.role), *([role] if role else []))
    if not keep_expiry and expires_at is not None and expires_at <= now:
        message = str(_("The end must lie in the future."))
        raise ValidationFailed(fields=[FieldError(path="expires_at", code="invalid", message=message)])

    membership.role = role or membership.role
    if suspended is not None and suspended != _is_suspended(membership):
        membership.suspended_at = now if suspended else None
    if not keep_expiry:
        membership.expires_at = expires_at
    after = {
        "role": membership.role,
        "suspended": _is_suspended(membership),
        "expires_at": membership.expires_at,
    }
    diff = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
    if not diff:
        return membership
    membership.save(update_fields=["role", "suspended_at", "expires_at"])
    if was_owner and not _owns_for_good(membership):
        _require_owner(membership.organization_id)
    if not _owns_for_good(membership):
        _end_offers(
            OwnershipOffer.objects.filter(
                offered_by_id=membership.user_id, organization_id=membership.organization_id
            ),
            now=now,
        )
    _tell(actor, "member.changed", membership, diff=diff)
    if "role" in diff:
        _tell_of_role(actor, membership, str(before["role"]), now)
    return membership


@transaction.atomic
def remove_member(
    *, actor: Actor, membership: Membership, keys_to: Membership | None = None, now: datetime
) -> None:
    """End a membership; the member's keys are revoked, or handed to another member who has their permissions.

    Whoever removes themselves leaves, which needs no permission over their role.
    """
    membership = lock_member(membership)
    leaves = actor.kind == ActorKind.USER and actor.id == membership.user_id
    if not leaves:
        check_within_own(actor, Role(membership.role))
    if keys_to is not None and (
        keys_to.organization_id != membership.organization_id
        or keys_to.pk == membership.pk
        or not Membership.objects.in_force(now).filter(pk=keys_to.pk).exists()
    ):
        message = str(_("This is `revoke` or the id of another member."))
        raise ValidationFailed(fields=[FieldError(path="keys", code="invalid", message=message)])
    _settle_keys()(actor=actor, membership=membership, heir=keys_to, now=now)
    OwnershipOffer.objects.filter(organization_id=membership.organization_id, member=membership).delete()
    _end_offers(
        OwnershipOffer.objects.filter(
            organization_id=membership.organization_id, offered_by_id=membership.user_id
        ),
        now=now,
    )
    was_owner, was_default = _owns_for_good(membership), membership.is_default
    _tell(
        actor,
        "member.left" if leaves else "member.removed",
        membership,
        diff={"user": membership.user.email, "role": membership.role},
    )
    membership.delete()
    if was_owner:
        _require_owner(membership.organization_id)
    if was_default:
        _choose_default(membership.user_id, now)


@transaction.atomic
def choose_default(*, actor: Actor, user_id: UUID, organization: Organization, now: datetime) -> Membership:
    """Make an organization the one that a person's requests are about when they name none."""
    # Two who choose at once for one person wait for each other on the rows, in one order.
    own = list(Membership.objects.filter(user_id=user_id).select_for_update(no_key=True).order_by("pk"))
    chosen = next((row for row in own if row.organization_id == organization.pk), None)
    if chosen is None or not Membership.objects.in_force(now).filter(pk=chosen.pk).exists():
        # The words of a name that nobody has: whether somebody else has it stays untold.
        raise NotFound(_("There is no organization of this name."))
    if not chosen.is_default:
        Membership.objects.filter(user_id=user_id, is_default=True).update(is_default=False)
        chosen.is_default = True
        chosen.save(update_fields=["is_default"])
        audit.record(actor=actor, action="member.default_chosen", target=chosen)
    return chosen


@transaction.atomic
def offer_ownership(*, actor: Actor, membership: Membership, now: datetime) -> OwnershipOffer:
    """Offer one's ownership to another member, who has seven days to accept; a new offer replaces the old."""
    _lock_organization(membership.organization_id)
    in_force = Membership.objects.in_force(now).filter(organization_id=membership.organization_id)
    if not in_force.filter(user_id=actor.person_id, role=Role.OWNER).exists():
        raise PermissionDenied(_("Only an owner can offer the ownership."))
    member = in_force.select_related("organization", "user").filter(pk=membership.pk).first()
    if member is None or member.user_id == actor.person_id:
        message = str(_("This is the id of another member who is neither suspended nor expired."))
        raise ValidationFailed(fields=[FieldError(path="member", code="invalid", message=message)])
    before = OwnershipOffer.objects.filter(organization_id=membership.organization_id)
    _end_offers(before.exclude(member=member), now=now)
    before.delete()
    offer = OwnershipOffer.objects.create(
        organization_id=membership.organization_id,
        member=member,
        offered_by_id=actor.person_id,
        created_at=now,
        expires_at=now + OFFER_LASTS,
    )
    _tell(
        actor,
        "organization.transfer_offered",
        member,
        diff={"to": member.user.email, "until": offer.expires_at},
    )
    notices.tell_of_offer(actor=actor, offer=offer, now=now)
    return offer


@transaction.atomic
def withdraw_offer(*, actor: Actor, organization: Organization, now: datetime) -> None:
    """Take back the offer of ownership; NotFound unless there is one."""
    _lock_organization(organization.pk)
    offers = OwnershipOffer.objects.filter(organization=organization)
    offer = offers.select_related("member__user").first()
    if offer is None:
        raise NotFound
    _tell(actor, "organization.transfer_withdrawn", offer.member, diff={"to": offer.member.user.email})
    _end_offers(offers, now=now)


@transaction.atomic
def decline_ownership(*, actor: Actor, organization: Organization, now: datetime) -> None:
    """Refuse the offer of ownership that names the actor; NotFound unless there is a live one."""
    _lock_organization(organization.pk)
    offers = OwnershipOffer.objects.filter(member__user_id=actor.person_id, expires_at__gt=now)
    offer = (
        offers.filter(organization=organization)
        .select_related("organization", "member__user", "offered_by")
        .first()
    )
    if offer is None:
        raise NotFound
    _tell(actor, "organization.transfer_declined", offer.member, diff={"from": offer.offered_by.email})
    notices.tell_of_refused_offer(offer=offer, now=now)
    offer.delete()


@transaction.atomic
def accept_ownership(*, actor: Actor, organization: Organization, now: datetime) -> Membership:
    """Become the owner in place of whoever offered it, who becomes an admin.

    NotFound unless a live offer names the actor and its maker still is an owner.
    """
    _lock_organization(organization.pk)
    members = Membership.objects.in_force(now).filter(organization=organization).select_related("user")
    offer = OwnershipOffer.objects.filter(
        organization=organization, member__user_id=actor.person_id, expires_at__gt=now
    ).first()
    mine = members.filter(user_id=actor.person_id).first()
    if offer is None or mine is None:
        raise NotFound
    theirs = members.filter(user_id=offer.offered_by_id, role=Role.OWNER).first()
    if theirs is None:
        raise NotFound
    before = mine.role
    mine.role, mine.expires_at, theirs.role = Role.OWNER, None, Role.ADMIN
    mine.save(update_fields=["role", "expires_at"])
    theirs.save(update_fields=["role"])
    offer.delete()
    _tell(
        actor,
        "organization.transferred",
        mine,
        diff={"from": theirs.user.email, "to": mine.user.email, "role": [before, Role.OWNER]},
    )
    _tell_of_role(actor, mine, before, now)
    _tell_of_role(actor, theirs, Role.OWNER, now)
    return mine


def _end_offers(offers: QuerySet[OwnershipOffer], *, now: datetime) -> None:
    """Delete offers of ownership, and mail each member who could have accepted one until now."""
    for offer in offers.filter(expires_at__gt=now).select_related("organization", "member__user"):
        notices.tell_of_ended_offer(offer=offer, now=now)
    offers.delete()


def check_within_own(actor: Actor, *roles: Role) -> None:
    """Raise AboveYou if one of the roles has a permission that the actor lacks; staff and system have them all."""
    if actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}:
        return
    if any(not actor.can(permission) for role in roles for permission in ROLE_PERMISSIONS[role]):
        raise AboveYou


def lock_member(membership: Membership) -> Membership:
    """Return the row as it is now, with its organization locked first: whoever changes members waits there."""
    _lock_organization(membership.organization_id)
    found = (
        Membership.objects.select_for_update(no_key=True, of=("self",))
        .select_related("user")
        .filter(pk=membership.pk)
        .first()
    )
    if found is None:
        raise NotFound
    return found


def _lock_organization(organization_id: UUID) -> Organization:
    return Organization.objects.select_for_update(no_key=True).get(pk=organization_id)


def _require_owner(organization_id: UUID) -> None:
    """Raise LastOwner unless an active person owns the organization without suspension or end."""
    owners = Membership.objects.filter(
        organization_id=organization_id,
        role=Role.OWNER,
        suspended_at__isnull=True,
        expires_at__isnull=True,
        user__is_active=True,
    )
    if not owners.exists():
        raise LastOwner


def _owns_for_good(membership: Membership) -> bool:
    return membership.role == Role.OWNER and membership.suspended_at is None and membership.expires_at is None


def _is_suspended(membership: Membership) -> bool:
    return membership.suspended_at is not None


def _choose_default(user_id: UUID, now: datetime) -> None:
    """Make the oldest remaining membership the default, so that requests keep an organization."""
    oldest = Membership.objects.in_force(now).filter(user_id=user_id).order_by("created_at", "pk").first()
    if oldest is not None:
        oldest.is_default = True
        oldest.save(update_fields=["is_default"])


def _tell_of_role(actor: Actor, membership: Membership, before: str, now: datetime) -> None:
    purpose = str(ROLE_PURPOSES[Role(membership.role)])
    notices.tell_of_role(actor=actor, membership=membership, before=before, purpose=purpose, now=now)


def _settle_keys() -> Callable[..., None]:
    return cast("Callable[..., None]", import_string(settings.MEMBER_KEYS_SETTLER))


def _tell(actor: Actor, action: str, membership: Membership, *, diff: dict[str, Any]) -> None:
    audit.record(
        actor=actor, action=action, target=membership, organization_id=membership.organization_id, diff=diff
    )
    outbox.publish(
        f"organizations.{action.replace('.', '_')}",
        {"id": membership.id, "user": membership.user_id, "role": membership.role},
        organization_id=membership.organization_id,
    )
