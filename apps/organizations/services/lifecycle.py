"""Making, changing, deleting and restoring organizations."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core import money
from apps.core.actor import Actor, ActorKind
from apps.core.errors import Conflict
from apps.core.permissions import Role
from apps.ledger import selectors as ledger_state
from apps.ledger import services as ledger
from apps.organizations import notices
from apps.organizations.models import (
    PLAN_DEFAULT,
    BillingState,
    Organization,
    OrganizationSlug,
    OrganizationStatus,
)
from apps.organizations.services.checks import (
    SlugTaken,
    check,
    slugs_from,
    wrong_email,
    wrong_name,
    wrong_organization_slug,
    wrong_timezone,
)
from apps.organizations.services.members import add_member
from apps.organizations.services.periods import change_timezone, ensure_periods
from apps.outbox import services as outbox

if TYPE_CHECKING:
    from apps.identity.models import User

MFA_GRACE = timedelta(days=7)
RESTORABLE = timedelta(days=30)


class HasOpenBusiness(Conflict):
    """Something stands against deleting the organization; `details.blockers` names each."""

    code = "organization_has_open_business"
    default_message = _("Settle what is open first; then the organization can be deleted.")


class NotRestorable(Conflict):
    """The organization is not deleted, or has been for more than 30 days."""

    code = "organization_not_restorable"
    default_message = _("Only an organization deleted within the last 30 days can be restored.")


@transaction.atomic
def create_organization(
    *,
    actor: Actor,
    name: str,
    slug: str | None = None,
    currency: str | None = None,
    timezone: str = "UTC",
    billing_email: str = "",
    owner: User | None = None,
    plan: str = PLAN_DEFAULT,
    is_demonstration: bool = False,
    now: datetime,
) -> Organization:
    """Create an organization with its first billing period and, if given, its owner.

    slug: by default made from the name, with a number where that is taken; a given one is taken or refused.
    plan: the code of one that exists.
    """
    currency = currency or settings.DEFAULT_CURRENCY
    check(
        name=wrong_name(name),
        slug=None if slug is None else wrong_organization_slug(slug),
        currency=None if money.is_currency(currency) else _("This is not an ISO 4217 currency code."),
        timezone=wrong_timezone(timezone),
        billing_email=wrong_email(billing_email),
    )
    organization = Organization(
        name=name.strip(),
        currency=currency,
        timezone=timezone,
        billing_email=billing_email or (owner.email if owner else ""),
        plan=plan,
        is_demonstration=is_demonstration,
        created_at=now,
    )
    _claim_slug(organization, slug)
    if owner is not None:
        add_member(actor=actor, organization=organization, user=owner, role=Role.OWNER, now=now)
    ensure_periods(organization_id=organization.id, covering=now)
    audit.record(
        actor=actor,
        action="organization.created",
        target=organization,
        organization_id=organization.id,
        diff={
            "slug": organization.slug,
            "name": organization.name,
            "currency": currency,
            "timezone": timezone,
        },
    )
    outbox.publish(
        "organizations.organization_created",
        {"id": organization.id, "slug": organization.slug, "name": organization.name, "currency": currency},
        organization_id=organization.id,
    )
    return organization


@transaction.atomic
def change_organization(
    *,
    actor: Actor,
    organization: Organization,
    name: str | None = None,
    slug: str | None = None,
    billing_email: str | None = None,
    timezone: str | None = None,
    require_mfa: bool | None = None,
    now: datetime,
) -> Organization:
    """Change what is given. The old slug stays the organization's: it is never issued again and finds it.

    require_mfa: from the end of a grace period on, members without a second factor are blocked, not removed.
    """
    check(
        name=None if name is None else wrong_name(name),
        slug=None if slug is None else wrong_organization_slug(slug),
        timezone=None if timezone is None else wrong_timezone(timezone),
        billing_email=None if billing_email is None else wrong_email(billing_email),
    )
    if timezone is not None:
        change_timezone(actor=actor, organization=organization, timezone=timezone, now=now)
    organization = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    wanted = {
        "name": None if name is None else name.strip(),
        "slug": slug,
        "billing_email": billing_email,
        "require_mfa": require_mfa,
    }
    diff = {
        field: [getattr(organization, field), value]
        for field, value in wanted.items()
        if value is not None and value != getattr(organization, field)
    }
    if not diff:
        return organization
    if "slug" in diff:
        _change_slug(organization, str(slug), now)
    for field, (_before, after) in diff.items():
        setattr(organization, field, after)
    if "require_mfa" in diff:
        organization.mfa_grace_ends_at = now + MFA_GRACE if organization.require_mfa else None
    organization.save(update_fields=[*diff, "mfa_grace_ends_at"])
    audit.record(
        actor=actor,
        action="organization.changed",
        target=organization,
        organization_id=organization.id,
        diff=diff,
    )
    outbox.publish(
        "organizations.organization_updated",
        {"id": organization.id, **{field: after for field, (_before, after) in diff.items()}},
        organization_id=organization.id,
    )
    return organization


@transaction.atomic
def delete_organization(*, actor: Actor, organization: Organization, now: datetime) -> None:
    """Delete an organization softly: staff can restore it for 30 days, and its accounting records stay for good.

    Its members are told by mail.

    Raises HasOpenBusiness naming everything that stands against it.
    """
    # Whoever moves its money waits meanwhile, and finds it deleted.
    if currency := ledger_state.wallet_currency(organization.pk):
        ledger.open_book(organization_id=organization.pk, currency=currency, now=now)
    organization = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    if blockers := open_business(organization=organization, now=now):
        raise HasOpenBusiness(blockers=blockers)
    # Told before: afterwards it has no members in force.
    notices.tell_of_deletion(actor=actor, organization=organization, until=now + RESTORABLE, now=now)
    organization.status, organization.deleted_at = OrganizationStatus.DELETED, now
    organization.save(update_fields=["status", "deleted_at"])
    _tell(actor, "organization.deleted", organization)


def open_business(*, organization: Organization, now: datetime) -> list[dict[str, str]]:
    """Return what stands against deleting an organization: of each thing its code and a sentence."""
    return [
        {"code": code, "message": str(message)}
        for path in settings.ORGANIZATION_DELETE_BLOCKERS
        for code, message in import_string(path)(organization=organization, now=now)
    ]


@transaction.atomic
def restore_organization(
    *, actor: Actor, organization: Organization, reason: str, now: datetime
) -> Organization:
    """Bring a deleted organization back as it was and tell its members; staff only, within 30 days."""
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "customers ask support"
    organization = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    if organization.deleted_at is None or organization.deleted_at + RESTORABLE <= now:
        raise NotRestorable
    organization.status, organization.deleted_at = OrganizationStatus.ACTIVE, None
    organization.save(update_fields=["status", "deleted_at"])
    _tell(actor, "organization.restored", organization, reason=reason)
    notices.tell_of_restoration(organization=organization, now=now)
    return organization


@transaction.atomic
def suspend_organization(
    *, actor: Actor, organization: Organization, suspended: bool, reason: str
) -> Organization:
    """Block an organization's members and keys, or let them in again; staff only."""
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "customers cannot suspend themselves"
    organization = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    if organization.status == OrganizationStatus.DELETED:
        raise NotRestorable(_("A deleted organization is restored first."))
    wanted = OrganizationStatus.SUSPENDED if suspended else OrganizationStatus.ACTIVE
    if organization.status != wanted:
        organization.status = wanted
        organization.save(update_fields=["status"])
        _tell(
            actor,
            "organization.suspended" if suspended else "organization.resumed",
            organization,
            reason=reason,
        )
    return organization


@transaction.atomic
def set_billing_state(*, organization_id: UUID, state: BillingState) -> BillingState:
    """Note how the credit stands, and return how it stood before; called by billing, which records the change."""
    organization = Organization.objects.select_for_update(no_key=True).get(pk=organization_id)
    before = BillingState(organization.billing_state)
    if before != state:
        organization.billing_state = state
        organization.save(update_fields=["billing_state"])
    return before


def _tell(actor: Actor, action: str, organization: Organization, *, reason: str = "") -> None:
    audit.record(
        actor=actor, action=action, target=organization, organization_id=organization.id, reason=reason
    )
    outbox.publish(
        f"organizations.{action.replace('.', '_')}",
        {"id": organization.id, "slug": organization.slug},
        organization_id=organization.id,
    )


def _change_slug(organization: Organization, slug: str, now: datetime) -> None:
    """Retire the current slug and take another: a new one, or one that the organization had before."""
    OrganizationSlug.objects.filter(organization=organization, retired_at__isnull=True).update(retired_at=now)
    if OrganizationSlug.objects.filter(organization=organization, slug=slug).update(retired_at=None):
        return
    try:
        with transaction.atomic():
            OrganizationSlug.objects.create(slug=slug, organization=organization)
    except IntegrityError as error:
        if "slug" not in str(error):
            raise
        raise SlugTaken(slug=slug) from error


def _claim_slug(organization: Organization, slug: str | None) -> None:
    """Save an organization under a slug that nobody ever had; the primary key of the slugs decides."""
    candidates = (
        [slug]
        if slug is not None
        else slugs_from(organization.name, instead="organization", wrong=wrong_organization_slug)
    )
    for candidate in candidates:
        organization.slug = candidate
        try:
            with transaction.atomic():
                organization.save(force_insert=True)
                OrganizationSlug.objects.create(slug=candidate, organization=organization)
        except IntegrityError as error:
            if "slug" not in str(error):
                raise
            continue
        return
    raise SlugTaken(slug=organization.slug)
