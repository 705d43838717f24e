"""Making organizations, projects and billing periods, and finding the organization that somebody names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import available_timezones

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone as clock
from django.utils.functional import Promise
from django.utils.text import slugify
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core import money, periods
from apps.core.actor import Actor, ActorKind
from apps.core.errors import (
    Conflict,
    FieldError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ValidationFailed,
)
from apps.core.permissions import ROLE_PERMISSIONS, Role
from apps.organizations.models import (
    SLUG_LENGTH_MAX,
    SLUG_PATTERN,
    UUID_PATTERN,
    BillingPeriod,
    Membership,
    Organization,
    OrganizationSlug,
    OrganizationStatus,
    PeriodState,
    Project,
)
from apps.organizations.selectors import find_organizations
from apps.outbox import services as outbox

if TYPE_CHECKING:
    from apps.identity.models import User

NAME_LENGTH_MAX = 150


class SlugTaken(Conflict):
    """The slug is, or once was, that of another organization or project."""

    code = "slug_taken"
    default_message = _("This slug is taken. Choose another one.")


class PeriodsFinal(Conflict):
    """The moment lies before an organization's first period, and a final period cannot get a predecessor."""

    code = "periods_final"
    default_message = _("The billing periods of this time are closed.")


class OrganizationMismatch(InvalidRequest):
    """A header names another organization than the path."""

    code = "organization_mismatch"
    default_message = _("X-Org-Slug names another organization than the path.")


class OrganizationSuspended(PermissionDenied):
    """Staff suspended the organization: its keys and members can do nothing."""

    code = "organization_suspended"
    default_message = _("This organization is suspended. Contact support.")


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
    is_demonstration: bool = False,
    now: datetime,
) -> Organization:
    """Create an organization with its first billing period and, if given, its owner.

    slug: by default made from the name, with a number where that is taken; a given one is taken or refused.
    """
    currency = currency or settings.DEFAULT_CURRENCY
    _check(
        name=wrong_name(name),
        slug=None if slug is None else wrong_slug(slug),
        currency=None if money.is_currency(currency) else _("This is not an ISO 4217 currency code."),
        timezone=_wrong_timezone(timezone),
    )
    organization = Organization(
        name=name.strip(),
        currency=currency,
        timezone=timezone,
        billing_email=billing_email or (owner.email if owner else ""),
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
def create_project(
    *, actor: Actor, organization: Organization, slug: str, name: str = "", now: datetime
) -> Project:
    """Create a project; its slug is unique within the organization, archived ones included."""
    _check(slug=wrong_slug(slug), name=wrong_name(name) if name else None)
    try:
        with transaction.atomic():
            project = Project.objects.create(
                organization=organization, slug=slug, name=name.strip() or slug, created_at=now
            )
    except IntegrityError as error:
        if "organizations_project_slug" in str(error):
            raise SlugTaken(slug=slug) from error
        raise
    audit.record(
        actor=actor, action="project.created", target=project, diff={"slug": slug, "name": project.name}
    )
    outbox.publish(
        "organizations.project_created",
        {"id": project.id, "slug": slug, "name": project.name},
        organization_id=organization.id,
    )
    return project


@transaction.atomic
def change_timezone(
    *, actor: Actor, organization: Organization, timezone: str, now: datetime
) -> Organization:
    """Change the zone in which an organization's months end.

    Only ends that are not past yet move. A period whose new end would be past already keeps its old one, so
    that the change begins with the next period.
    """
    _check(timezone=_wrong_timezone(timezone))
    organization = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    before = organization.timezone
    if before == timezone:
        return organization
    # Months that are over ended in the old zone, also where no row says so yet.
    ensure_periods(organization_id=organization.id, covering=now)
    organization.timezone = timezone
    organization.save(update_fields=["timezone"])
    start: datetime | None = None
    for period in BillingPeriod.objects.of(organization.id).filter(ends_at__gt=now):
        period.starts_at = start or period.starts_at
        end = periods.month_start(periods.next_label(period.label), timezone)
        period.ends_at = end if end > now else period.ends_at
        period.save(update_fields=["starts_at", "ends_at"])
        start = period.ends_at
    audit.record(
        actor=actor,
        action="organization.timezone_changed",
        target=organization,
        organization_id=organization.id,
        diff={"timezone": [before, timezone]},
    )
    outbox.publish(
        "organizations.organization_updated",
        {"id": organization.id, "timezone": timezone},
        organization_id=organization.id,
    )
    return organization


def ensure_periods(
    *,
    organization_id: UUID,
    covering: datetime,
    now: datetime | None = None,  # noqa: ARG001  Given by every caller; rows depend on `covering` alone.
) -> BillingPeriod:
    """Return the period that contains a moment, after making every row up to it that is missing, either way.

    Raises PeriodsFinal for a moment before the first period once that is final. Safe when two do it at once.
    """
    return period_containing(organization_id, covering) or _make_periods(organization_id, covering)


@transaction.atomic
def mark_period(*, period: BillingPeriod, state: PeriodState, now: datetime) -> None:
    """Record that a period has a draft invoice or is final; called by closing under its lock.

    A final period stays final, which the assertion states and the order of closing guarantees.
    """
    assert period.state != PeriodState.FINAL, "a final period never changes"
    period.state = state
    period.finalized_at = now if state == PeriodState.FINAL else None
    period.save(update_fields=["state", "finalized_at"])


def period_containing(organization_id: UUID, moment: datetime) -> BillingPeriod | None:
    """Return the period that contains a moment, if its row exists already."""
    return BillingPeriod.objects.of(organization_id).containing(moment).first()


@transaction.atomic
def _make_periods(organization_id: UUID, covering: datetime) -> BillingPeriod:
    organization = Organization.objects.select_for_update(no_key=True).get(pk=organization_id)
    zone = organization.timezone
    rows = list(BillingPeriod.objects.of(organization_id))
    made: list[BillingPeriod] = []

    def add(
        label: str, *, starts_at: datetime | None = None, ends_at: datetime | None = None
    ) -> BillingPeriod:
        period = BillingPeriod(
            organization=organization,
            label=label,
            starts_at=starts_at or periods.month_start(label, zone),
            ends_at=ends_at or periods.month_start(periods.next_label(label), zone),
        )
        made.append(period)
        return period

    first = rows[0] if rows else add(periods.label_of(organization.created_at, zone))
    last = rows[-1] if rows else first
    if covering < first.starts_at and first.state == PeriodState.FINAL:
        raise PeriodsFinal(label=periods.label_of(covering, zone), first=first.label)
    while covering < first.starts_at:
        first = add(periods.previous_label(first.label), ends_at=first.starts_at)
    while covering >= last.ends_at:
        last = add(periods.next_label(last.label), starts_at=last.ends_at)
    BillingPeriod.objects.bulk_create(made)
    return next(period for period in [*rows, *made] if period.starts_at <= covering < period.ends_at)


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
        membership = Membership.objects.in_force(clock.now()).filter(
            organization=organization, user_id=actor.id
        )
        found = membership.first()
        if found is None:
            raise NotFound
        return frozenset(ROLE_PERMISSIONS[Role(found.role)])
    if actor.kind == ActorKind.API_KEY and actor.organization_id != organization.id:
        raise NotFound
    return actor.permissions


def _claim_slug(organization: Organization, slug: str | None) -> None:
    """Save an organization under a slug that nobody ever had; the primary key of the slugs decides."""
    for candidate in [slug] if slug is not None else _slugs_from(organization.name):
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


def _slugs_from(name: str) -> Iterable[str]:
    """Yield slugs for a name: its own, then with a number that is not taken by somebody of the same name."""
    words = [word for word in slugify(name).replace("_", "-").split("-") if word]
    base = "-".join(words)[: SLUG_LENGTH_MAX - 5].strip("-") or "organization"
    if wrong_slug(base):
        base = f"organization-{base}"[: SLUG_LENGTH_MAX - 5]
    yield base
    for number in range(2, 10_000):
        yield f"{base}-{number}"


def _check(**problems: str | Promise | None) -> None:
    """Raise ValidationFailed if any of the named fields has a problem."""
    if fields := [
        FieldError(path=name, code="invalid", message=str(problem))
        for name, problem in problems.items()
        if problem
    ]:
        raise ValidationFailed(fields=fields)


def wrong_name(name: str) -> str | Promise | None:
    """Return what is wrong with a name, or None."""
    if not name.strip() or len(name) > NAME_LENGTH_MAX:
        return _("A name has 1 to 150 characters.")
    if any(unicodedata.category(character).startswith("C") for character in name):
        return _("A name has no control characters.")
    return None


def wrong_slug(slug: str) -> str | Promise | None:
    """Return what is wrong with a slug's form, or None."""
    if (
        len(slug) > SLUG_LENGTH_MAX
        or not re.fullmatch(SLUG_PATTERN, slug)
        or re.fullmatch(UUID_PATTERN, slug)
    ):
        return _("A slug has up to 63 lower-case letters, digits and single hyphens, and is no UUID.")
    return None


def _wrong_timezone(timezone: str) -> str | Promise | None:
    return (
        None
        if timezone in available_timezones()
        else _("This is not an IANA time zone, such as Europe/Oslo.")
    )
