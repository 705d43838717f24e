"""Plans with their limits, what single organizations have instead, and what they ask for."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Self
from uuid import UUID

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.ids import uuid7

ANY = "*"
FAMILY_LENGTH_MAX, REGION_LENGTH_MAX = 120, 64
CODE_PATTERN = r"^[a-z][a-z0-9_]*$"


class Quota(models.TextChoices):
    """What can be limited. `concurrent_gpus` alone is also limited by SKU family and region."""

    REQUESTS_PER_MINUTE = "requests_per_minute", _("Requests a minute")
    REQUEST_BURST = "request_burst", _("Requests at once")
    WRITES_PER_MINUTE = "writes_per_minute", _("Writes a minute")
    GPU_HOURS_PER_MONTH = "gpu_hours_per_month", _("GPU-hours a month")
    DATA_GB_PER_MONTH = "data_gb_per_month", _("Outgoing data a month, GB")
    CONCURRENT_GPUS = "concurrent_gpus", _("GPUs at once")
    MEMBERS = "members", _("Members")
    API_KEYS = "api_keys", _("API keys")
    PROJECTS = "projects", _("Projects")


RATES = (Quota.REQUESTS_PER_MINUTE, Quota.REQUEST_BURST, Quota.WRITES_PER_MINUTE)


class Target(NamedTuple):
    """What a limit is about; `*` is every family or region."""

    quota: str
    family: str = ANY
    region: str = ANY

    def covers(self, family: str, region: str) -> bool:
        """Return whether GPUs of a family in a region can count here."""
        return self.family in (ANY, family) and self.region in (ANY, region)

    @property
    def closeness(self) -> tuple[bool, bool]:
        """How specific this is: family and region before family, before region, before neither."""
        return self.family != ANY, self.region != ANY

    def __str__(self) -> str:
        name = str(Quota(self.quota).label)
        places = [place for place in (self.family, self.region) if place != ANY]
        return f"{name} ({', '.join(places)})" if places else name


def _limit_constraints(prefix: str) -> list[models.BaseConstraint]:
    """Return what holds for every row with a quota, its family and region, and a value."""
    return [
        models.CheckConstraint(name=f"{prefix}_quota_known", condition=Q(quota__in=Quota.values)),
        models.CheckConstraint(
            name=f"{prefix}_only_gpus_by_place",
            condition=Q(family=ANY, region=ANY) | Q(quota=Quota.CONCURRENT_GPUS),
        ),
        models.CheckConstraint(
            name=f"{prefix}_value_not_negative", condition=Q(value=None) | Q(value__gte=0)
        ),
        # A bucket that never fills would lock an organization out of what lifts the limit.
        models.CheckConstraint(
            name=f"{prefix}_rate_positive",
            condition=Q(value=None) | Q(value__gte=1) | ~Q(quota__in=RATES),
        ),
    ]


class Plan(models.Model):
    """What an organization may use, named. Organizations refer to it by its code, which never changes.

    is_negotiated: its limits are where a negotiation starts; each organization gets its own.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    code = models.CharField(_("code"), max_length=32, unique=True)
    name = models.CharField(_("name"), max_length=64)
    description = models.CharField(_("description"), max_length=255, blank=True)
    position = models.PositiveSmallIntegerField(
        _("position"), default=100, help_text=_("The plan with the least stands first.")
    )
    is_negotiated = models.BooleanField(_("limits are negotiated"), default=False)
    is_public = models.BooleanField(_("shown to everybody"), default=True)

    class Meta:
        verbose_name = _("plan")
        verbose_name_plural = _("plans")
        constraints = [
            models.CheckConstraint(name="quotas_plan_code_form", condition=Q(code__regex=CODE_PATTERN))
        ]

    def __str__(self) -> str:
        return self.name


class PlanLimit(models.Model):
    """One limit of a plan; without a value, or without a row, there is none.

    family, region: `*` is every one. A GPU counts under the most specific row that covers it, and under no other.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    plan = models.ForeignKey(Plan, models.PROTECT, related_name="limits", verbose_name=_("plan"))
    quota = models.CharField(_("quota"), max_length=32, choices=Quota)
    family = models.CharField(_("SKU family"), max_length=FAMILY_LENGTH_MAX, default=ANY)
    region = models.CharField(_("region"), max_length=REGION_LENGTH_MAX, default=ANY)
    value = models.BigIntegerField(_("limit"), null=True, blank=True, help_text=_("Empty: without a limit."))

    class Meta:
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        constraints = [
            models.UniqueConstraint(
                fields=["plan", "quota", "family", "region"], name="quotas_planlimit_once"
            ),
            *_limit_constraints("quotas_planlimit"),
        ]

    def __str__(self) -> str:
        return self.get_quota_display()

    @property
    def target(self) -> Target:
        """What the row is about."""
        return Target(self.quota, self.family, self.region)


class RequestState(models.TextChoices):
    """The life of a request: it is decided once, by staff, or taken back."""

    SUBMITTED = "submitted", _("Submitted")
    APPROVED = "approved", _("Approved")
    DENIED = "denied", _("Denied")
    WITHDRAWN = "withdrawn", _("Withdrawn")


class QuotaRequestQuerySet(models.QuerySet["QuotaRequest"]):
    """Reads of requests."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the requests of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)

    def waiting(self) -> Self:
        """Return the requests that nobody has decided."""
        return self.filter(state=RequestState.SUBMITTED)


class QuotaRequest(models.Model):
    """What an organization asks for, and what became of it.

    limit_then: the limit when it was asked for. granted: what staff gave, which may be less than requested.
    expires_at: when what was granted ends; None is never.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        "organizations.Organization", models.PROTECT, related_name="+", verbose_name=_("organization")
    )
    quota = models.CharField(_("quota"), max_length=32, choices=Quota)
    family = models.CharField(_("SKU family"), max_length=FAMILY_LENGTH_MAX, default=ANY)
    region = models.CharField(_("region"), max_length=REGION_LENGTH_MAX, default=ANY)
    requested = models.BigIntegerField(_("requested"))
    limit_then = models.BigIntegerField(_("limit at the time"))
    reason = models.CharField(_("reason"), max_length=1000)
    state = models.CharField(_("state"), max_length=10, choices=RequestState, default=RequestState.SUBMITTED)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", null=True, blank=True
    )
    requested_by_label = models.CharField(_("requested by"), max_length=254)
    created_at = models.DateTimeField(_("created"))
    decided_at = models.DateTimeField(_("decided"), null=True, blank=True)
    decided_by_label = models.CharField(_("decided by"), max_length=254, blank=True)
    granted = models.BigIntegerField(_("granted"), null=True, blank=True)
    expires_at = models.DateTimeField(_("until"), null=True, blank=True)
    message = models.CharField(_("message"), max_length=1000, blank=True)

    objects = QuotaRequestQuerySet.as_manager()

    class Meta:
        verbose_name = _("quota request")
        verbose_name_plural = _("quota requests")
        constraints = [
            models.UniqueConstraint(fields=["organization", "id"], name="quotas_quotarequest_tenant"),
            models.UniqueConstraint(
                fields=["organization", "quota", "family", "region"],
                condition=Q(state=RequestState.SUBMITTED),
                name="quotas_quotarequest_one_waiting",
            ),
            models.CheckConstraint(
                name="quotas_quotarequest_quota_known", condition=Q(quota__in=Quota.values)
            ),
            models.CheckConstraint(
                name="quotas_quotarequest_more", condition=Q(requested__gt=F("limit_then"))
            ),
            models.CheckConstraint(
                name="quotas_quotarequest_decision_complete",
                condition=Q(state=RequestState.SUBMITTED, decided_at=None, granted=None)
                | Q(
                    state__in=[RequestState.DENIED, RequestState.WITHDRAWN],
                    decided_at__isnull=False,
                    granted=None,
                )
                | Q(state=RequestState.APPROVED, decided_at__isnull=False, granted__isnull=False),
            ),
        ]
        indexes = [
            models.Index(fields=["organization", "-created_at", "-id"], name="quotas_quotarequest_created")
        ]

    def __str__(self) -> str:
        return f"{self.get_quota_display()}: {self.requested}"

    @property
    def target(self) -> Target:
        """What the row is about."""
        return Target(self.quota, self.family, self.region)


class LimitOverrideQuerySet(models.QuerySet["LimitOverride"]):
    """Reads of overrides."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the overrides of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)

    def in_force(self, organization_id: UUID, now: datetime) -> Self:
        """Return what an organization has instead of its plan's limits at a moment, one for each target."""
        return self.filter(
            Q(expires_at=None) | Q(expires_at__gt=now), organization_id=organization_id, ended_at=None
        )


class LimitOverride(models.Model):
    """What one organization has instead of a limit of its plan, whatever the plan; without a value, no limit.

    ended_at: when it was replaced or taken back; otherwise it ends at `expires_at`, if ever.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        "organizations.Organization", models.PROTECT, related_name="+", verbose_name=_("organization")
    )
    quota = models.CharField(_("quota"), max_length=32, choices=Quota)
    family = models.CharField(
        _("SKU family"),
        max_length=FAMILY_LENGTH_MAX,
        default=ANY,
        help_text=_("Only for GPUs at once; a SKU without a family is its own."),
    )
    region = models.CharField(_("region"), max_length=REGION_LENGTH_MAX, default=ANY)
    value = models.BigIntegerField(_("limit"), null=True, blank=True, help_text=_("Empty: without a limit."))
    request = models.ForeignKey(
        QuotaRequest,
        models.PROTECT,
        related_name="overrides",
        verbose_name=_("request"),
        null=True,
        blank=True,
        db_constraint=False,
    )
    reason = models.CharField(_("reason"), max_length=1000)
    created_by_label = models.CharField(_("by"), max_length=254)
    created_at = models.DateTimeField(_("from"))
    expires_at = models.DateTimeField(
        _("until"), null=True, blank=True, help_text=_("Empty: until it is ended.")
    )
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)

    objects = LimitOverrideQuerySet.as_manager()

    class Meta:
        verbose_name = _("limit of an organization")
        verbose_name_plural = _("limits of organizations")
        constraints = [
            models.UniqueConstraint(fields=["organization", "id"], name="quotas_limitoverride_tenant"),
            models.UniqueConstraint(
                fields=["organization", "quota", "family", "region"],
                condition=Q(ended_at=None),
                name="quotas_limitoverride_one_in_force",
            ),
            models.CheckConstraint(
                name="quotas_limitoverride_forward",
                condition=Q(expires_at=None) | Q(expires_at__gt=F("created_at")),
            ),
            *_limit_constraints("quotas_limitoverride"),
        ]

    def __str__(self) -> str:
        return self.get_quota_display()

    @property
    def target(self) -> Target:
        """What the row is about."""
        return Target(self.quota, self.family, self.region)
