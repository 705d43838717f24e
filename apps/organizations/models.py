"""The tenants: organizations with every slug they ever had, members, projects and billing periods."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Self
from uuid import UUID

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, DateTimeRangeField, RangeBoundary, RangeOperators
from django.db import models
from django.db.models import F, Func, Q
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.ids import uuid7
from apps.core.permissions import Role

SLUG_PATTERN = r"^[a-z0-9](-?[a-z0-9])*$"
SLUG_LENGTH_MAX = 63
PLAN_DEFAULT = "free"
LABEL_PATTERN = r"^[0-9]{4}-(0[1-9]|1[0-2])$"
# A slug in the form of an id could shadow the organization that has that id.
UUID_PATTERN = r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$"


class OrganizationStatus(models.TextChoices):
    """What staff decided about an organization; money has `BillingState`."""

    ACTIVE = "active", _("Active")
    SUSPENDED = "suspended", _("Suspended")
    DELETED = "deleted", _("Deleted")


class BillingState(models.TextChoices):
    """How the credit stands; anything but healthy concerns new usage only."""

    HEALTHY = "healthy", _("Healthy")
    LOW = "low", _("Low")
    DEPLETED = "depleted", _("Depleted")
    SUSPENDED = "suspended", _("Suspended")


class PeriodState(models.TextChoices):
    """The life of a billing period: it takes usage, then has a draft invoice, then never changes."""

    OPEN = "open", _("Open")
    DRAFT = "draft", _("Draft")
    FINAL = "final", _("Final")


class OrganizationQuerySet(models.QuerySet["Organization"]):
    """Reads of organizations."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the actor's organization, nothing else."""
        return self.filter(pk=actor.organization_id)

    def existing(self) -> Self:
        """Return the organizations that are not deleted."""
        return self.exclude(status=OrganizationStatus.DELETED)

    def of_user(self, user_id: UUID, now: datetime) -> Self:
        """Return the organizations that a person is a member of now, suspended organizations included."""
        memberships = Membership.objects.in_force(now).filter(user_id=user_id)
        return self.existing().filter(pk__in=memberships.values("organization_id"))


class Organization(models.Model):
    """A customer. Its slug may change; its id never does."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.CharField(_("slug"), max_length=SLUG_LENGTH_MAX, unique=True)
    name = models.CharField(_("name"), max_length=150)
    status = models.CharField(
        _("status"), max_length=16, choices=OrganizationStatus, default=OrganizationStatus.ACTIVE
    )
    billing_email = models.EmailField(_("billing e-mail"), blank=True)
    currency = models.CharField(_("currency"), max_length=3)
    timezone = models.CharField(_("time zone"), max_length=64, default="UTC")
    plan = models.CharField(_("plan"), max_length=32, default=PLAN_DEFAULT)
    billing_state = models.CharField(
        _("billing state"), max_length=16, choices=BillingState, default=BillingState.HEALTHY
    )
    require_mfa = models.BooleanField(_("requires a second factor"), default=False)
    mfa_grace_ends_at = models.DateTimeField(_("second factor needed from"), null=True, blank=True)
    is_demonstration = models.BooleanField(_("demonstration"), default=False)
    created_at = models.DateTimeField(_("created"))
    deleted_at = models.DateTimeField(_("deleted"), null=True, blank=True)

    objects = OrganizationQuerySet.as_manager()

    class Meta:
        verbose_name = _("organization")
        verbose_name_plural = _("organizations")
        constraints = [
            models.CheckConstraint(
                name="organizations_organization_slug_form",
                condition=Q(slug__regex=SLUG_PATTERN) & ~Q(slug__regex=UUID_PATTERN),
            ),
            models.CheckConstraint(
                name="organizations_organization_currency_form", condition=Q(currency__regex=r"^[A-Z]{3}$")
            ),
            models.CheckConstraint(
                name="organizations_organization_status_known",
                condition=Q(status__in=OrganizationStatus.values),
            ),
            models.CheckConstraint(
                name="organizations_organization_billing_state_known",
                condition=Q(billing_state__in=BillingState.values),
            ),
            models.CheckConstraint(
                name="organizations_organization_deleted_has_status",
                condition=Q(deleted_at__isnull=True) | Q(status=OrganizationStatus.DELETED),
            ),
        ]
        indexes = [models.Index(fields=["created_at", "id"], name="organizations_org_created")]

    def __str__(self) -> str:
        return self.slug


class OrganizationSlug(models.Model):
    """Every slug that an organization has or had; as the primary key, none is ever issued twice."""

    slug = models.CharField(_("slug"), primary_key=True, max_length=SLUG_LENGTH_MAX)
    organization = models.ForeignKey(
        Organization, models.PROTECT, related_name="slugs", verbose_name=_("organization")
    )
    retired_at = models.DateTimeField(_("retired"), null=True, blank=True)

    class Meta:
        verbose_name = _("slug")
        verbose_name_plural = _("slugs")
        constraints = [
            models.UniqueConstraint(
                fields=["organization"],
                condition=Q(retired_at__isnull=True),
                name="organizations_organizationslug_one_current",
            )
        ]

    def __str__(self) -> str:
        return self.slug


class MembershipQuerySet(models.QuerySet["Membership"]):
    """Reads of memberships."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the memberships of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)

    def in_force(self, now: datetime) -> Self:
        """Return those neither suspended nor expired, of active users and existing organizations."""
        return self.standing(now).exclude(organization__status=OrganizationStatus.DELETED)

    def standing(self, now: datetime) -> Self:
        """Return those that are in force, or were when their organization was deleted."""
        return self.filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=now),
            suspended_at__isnull=True,
            user__is_active=True,
        )


class Membership(models.Model):
    """A user's place in an organization, with one role."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        Organization, models.PROTECT, related_name="memberships", verbose_name=_("organization")
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="memberships", verbose_name=_("user")
    )
    role = models.CharField(_("role"), max_length=16, choices=Role)
    is_default = models.BooleanField(_("default of the user"), default=False)
    suspended_at = models.DateTimeField(_("suspended"), null=True, blank=True)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"))

    objects = MembershipQuerySet.as_manager()

    class Meta:
        verbose_name = _("membership")
        verbose_name_plural = _("memberships")
        constraints = [
            models.UniqueConstraint(fields=["organization", "user"], name="organizations_membership_once"),
            models.UniqueConstraint(fields=["organization", "id"], name="organizations_membership_tenant"),
            models.UniqueConstraint(
                fields=["user"], condition=Q(is_default=True), name="organizations_membership_one_default"
            ),
            models.CheckConstraint(
                name="organizations_membership_role_known", condition=Q(role__in=Role.values)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} · {self.organization}"

    def is_in_force(self, now: datetime) -> bool:
        """Return what the query `in_force` selects, of a row that is here with its user and organization."""
        return (
            (self.expires_at is None or now < self.expires_at)
            and self.suspended_at is None
            and self.user.is_active
            and self.organization.status != OrganizationStatus.DELETED
        )


class OwnershipOffer(models.Model):
    """The offer of an owner to hand the organization to another member; it ends with either's membership."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        Organization, models.PROTECT, related_name="+", verbose_name=_("organization")
    )
    member = models.ForeignKey(
        Membership, models.PROTECT, related_name="+", verbose_name=_("to"), db_constraint=False
    )
    offered_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("by")
    )
    created_at = models.DateTimeField(_("created"))
    expires_at = models.DateTimeField(_("expires"))

    class Meta:
        verbose_name = _("offer of ownership")
        verbose_name_plural = _("offers of ownership")
        constraints = [
            models.UniqueConstraint(fields=["organization"], name="organizations_ownershipoffer_one"),
            models.CheckConstraint(
                name="organizations_ownershipoffer_forward", condition=Q(created_at__lt=F("expires_at"))
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization} → {self.member_id}"


class InviteQuerySet(models.QuerySet["Invite"]):
    """Reads of invites."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the invites of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)

    def unanswered(self) -> Self:
        """Return those neither accepted, declined nor revoked; their time may be over."""
        return self.filter(accepted_at__isnull=True, declined_at__isnull=True, revoked_at__isnull=True)

    def open(self, now: datetime) -> Self:
        """Return those that can still be accepted, as far as the invite itself goes."""
        return self.unanswered().filter(expires_at__gt=now, organization__status=OrganizationStatus.ACTIVE)

    def received_by(self, addresses: Collection[str], now: datetime) -> Self:
        """Return the open invites to any of these addresses, with their organizations."""
        return self.open(now).filter(email__in=addresses).select_related("organization")


class Invite(models.Model):
    """The invitation of one address to one role. Its token is in the mail only: the row has a hash of it.

    nonce: random; the token is made of it and a secret of the server, so that a lost mail can be sent later.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        Organization, models.PROTECT, related_name="invites", verbose_name=_("organization")
    )
    email = models.EmailField(_("e-mail address"))
    role = models.CharField(_("role"), max_length=16, choices=Role)
    nonce = models.BinaryField(max_length=32, editable=False)
    digest = models.BinaryField(_("hash"), max_length=32, unique=True, editable=False)
    invited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        related_name="+",
        verbose_name=_("invited by"),
        null=True,
        blank=True,
    )
    created_at = models.DateTimeField(_("created"))
    expires_at = models.DateTimeField(_("expires"))
    mailed_at = models.DateTimeField(_("mailed"), null=True, blank=True)
    accepted_at = models.DateTimeField(_("accepted"), null=True, blank=True)
    declined_at = models.DateTimeField(_("declined"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    objects = InviteQuerySet.as_manager()

    class Meta:
        verbose_name = _("invite")
        verbose_name_plural = _("invites")
        constraints = [
            models.UniqueConstraint(fields=["organization", "id"], name="organizations_invite_tenant"),
            models.UniqueConstraint(
                fields=["organization", "email"],
                condition=Q(accepted_at__isnull=True, declined_at__isnull=True, revoked_at__isnull=True),
                name="organizations_invite_one_unanswered",
            ),
            models.CheckConstraint(
                name="organizations_invite_email_lower", condition=Q(email=Lower("email"))
            ),
            models.CheckConstraint(name="organizations_invite_role_known", condition=Q(role__in=Role.values)),
        ]
        indexes = [
            models.Index(fields=["organization", "-created_at", "-id"], name="organizations_invite_created"),
            models.Index(fields=["email"], name="organizations_invite_email"),
        ]

    def __str__(self) -> str:
        return self.email

    def state(self, now: datetime) -> str:
        """Return pending, expired, accepted, declined or revoked."""
        for name in ("accepted", "declined", "revoked"):
            if getattr(self, f"{name}_at") is not None:
                return name
        return "pending" if now < self.expires_at else "expired"


class ProjectQuerySet(models.QuerySet["Project"]):
    """Reads of projects."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the projects of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)

    def active(self) -> Self:
        """Return the projects that are not archived."""
        return self.filter(archived_at__isnull=True)


class Project(models.Model):
    """A part of an organization that usage and keys can be counted by."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        Organization, models.PROTECT, related_name="projects", verbose_name=_("organization")
    )
    slug = models.CharField(_("slug"), max_length=SLUG_LENGTH_MAX)
    name = models.CharField(_("name"), max_length=150)
    archived_at = models.DateTimeField(_("archived"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"))

    objects = ProjectQuerySet.as_manager()

    class Meta:
        verbose_name = _("project")
        verbose_name_plural = _("projects")
        constraints = [
            models.UniqueConstraint(fields=["organization", "slug"], name="organizations_project_slug"),
            models.UniqueConstraint(fields=["organization", "id"], name="organizations_project_tenant"),
            models.CheckConstraint(
                name="organizations_project_slug_form", condition=Q(slug__regex=SLUG_PATTERN)
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class BillingPeriodQuerySet(models.QuerySet["BillingPeriod"]):
    """Reads of billing periods."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the periods of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)

    def of(self, organization_id: UUID) -> Self:
        """Return an organization's periods, earliest first."""
        return self.filter(organization_id=organization_id).order_by("starts_at", "pk")

    def containing(self, moment: datetime) -> Self:
        """Return the periods that a moment falls into, at most one of each organization."""
        return self.filter(starts_at__lte=moment, ends_at__gt=moment)


class BillingPeriod(models.Model):
    """One month of an organization, half-open; its periods are contiguous and have consecutive labels."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        Organization, models.PROTECT, related_name="periods", verbose_name=_("organization")
    )
    label = models.CharField(_("label"), max_length=7)
    starts_at = models.DateTimeField(_("starts"))
    ends_at = models.DateTimeField(_("ends"))
    state = models.CharField(_("state"), max_length=8, choices=PeriodState, default=PeriodState.OPEN)
    drafted_at = models.DateTimeField(_("last drafted"), null=True, blank=True)
    finalized_at = models.DateTimeField(_("finalized"), null=True, blank=True)

    objects = BillingPeriodQuerySet.as_manager()

    class Meta:
        verbose_name = _("billing period")
        verbose_name_plural = _("billing periods")
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "label"], name="organizations_billingperiod_label"
            ),
            models.UniqueConstraint(fields=["organization", "id"], name="organizations_billingperiod_tenant"),
            models.CheckConstraint(
                name="organizations_billingperiod_forward", condition=Q(starts_at__lt=F("ends_at"))
            ),
            models.CheckConstraint(
                name="organizations_billingperiod_label_form", condition=Q(label__regex=LABEL_PATTERN)
            ),
            models.CheckConstraint(
                name="organizations_billingperiod_final_has_moment",
                condition=Q(state=PeriodState.FINAL, finalized_at__isnull=False)
                | Q(state__in=[PeriodState.OPEN, PeriodState.DRAFT], finalized_at__isnull=True),
            ),
            ExclusionConstraint(
                name="organizations_billingperiod_apart",
                expressions=[
                    ("organization", RangeOperators.EQUAL),
                    (
                        Func(
                            F("starts_at"),
                            F("ends_at"),
                            RangeBoundary(),
                            function="TSTZRANGE",
                            output_field=DateTimeRangeField(),
                        ),
                        RangeOperators.OVERLAPS,
                    ),
                ],
                # A change of time zone moves neighbours together.
                deferrable=models.Deferrable.DEFERRED,
            ),
        ]

    def __str__(self) -> str:
        return self.label


class VatState(models.TextChoices):
    """What is known of a VAT id beyond its form: nothing yet, or what the registry answered last."""

    NONE = "none", _("None given")
    UNCHECKED = "unchecked", _("Well formed")
    CONFIRMED = "confirmed", _("Confirmed by the registry")
    REFUSED = "refused", _("Unknown to the registry")


class BillingProfile(models.Model):
    """Who an organization is to a tax office and an accounts department; what its invoices are made out to.

    vat_id: compact, with its prefix; its form and checksum are right. vat_state: the registry's latest answer about it.
    """

    organization = models.OneToOneField(
        Organization,
        models.PROTECT,
        primary_key=True,
        related_name="billing_profile",
        verbose_name=_("organization"),
    )
    legal_name = models.CharField(_("legal name"), max_length=200, blank=True)
    line1 = models.CharField(_("street and number"), max_length=200, blank=True)
    line2 = models.CharField(_("address, second line"), max_length=200, blank=True)
    postal_code = models.CharField(_("postal code"), max_length=20, blank=True)
    city = models.CharField(_("city"), max_length=100, blank=True)
    region = models.CharField(_("state or region"), max_length=100, blank=True)
    country = models.CharField(_("country"), max_length=2, blank=True)
    vat_id = models.CharField(_("VAT id"), max_length=32, blank=True)
    vat_state = models.CharField(
        _("state of the VAT id"), max_length=12, choices=VatState, default=VatState.NONE
    )
    vat_checked_at = models.DateTimeField(_("VAT id checked"), null=True, blank=True)
    billing_emails = ArrayField(
        models.EmailField(max_length=254), verbose_name=_("invoices go to"), default=list, blank=True
    )
    po_number = models.CharField(_("purchase order"), max_length=60, blank=True)
    updated_at = models.DateTimeField(_("changed"))

    class Meta:
        verbose_name = _("billing profile")
        verbose_name_plural = _("billing profiles")
        constraints = [
            models.CheckConstraint(
                name="organizations_billingprofile_country_form",
                condition=Q(country="") | Q(country__regex=r"^[A-Z]{2}$"),
            ),
            models.CheckConstraint(
                name="organizations_billingprofile_vat_state",
                condition=Q(vat_id="", vat_state=VatState.NONE)
                | ~Q(vat_id="") & Q(vat_state__in=[VatState.UNCHECKED, VatState.CONFIRMED, VatState.REFUSED]),
            ),
        ]

    def __str__(self) -> str:
        return self.legal_name or str(self.organization_id)
