"""What guards spending: holds, what an organization may owe, and where it stands between healthy and suspended."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.ids import uuid7
from apps.metering.models import (
    REGION_LENGTH_MAX,
    SKU_LENGTH_MAX,
    SOURCE_LENGTH_MAX,
    SUBJECT_LENGTH_MAX,
)
from apps.organizations.models import BillingState


class HoldRelease(models.TextChoices):
    """Why a hold reserves nothing any more."""

    STOPPED = "stopped", _("The allocation stopped")
    EXPIRED = "expired", _("Its time was over")
    CANCELLED = "cancelled", _("Given back")


class HoldQuerySet(models.QuerySet["Hold"]):
    def visible_to(self, actor: Actor) -> Self:
        return self.filter(organization_id=actor.organization_id)

    def live(self, now: datetime) -> Self:
        return self.filter(released_at=None, expires_at__gt=now)

    def not_live(self, now: datetime) -> Self:
        return self.filter(Q(released_at__isnull=False) | Q(expires_at__lte=now))


class Hold(models.Model):
    """Credit reserved for one allocation; nothing is posted. The allocation's own usage uses it up.

    source: empty for the allocation of that subject whatever its source.
    amount_micros: what was reserved; what is left follows from the usage, see `billing.holds`.
    sku, region, gpus: what is to start, where that was asked for with it; it counts towards quotas until it runs.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    currency = models.CharField(max_length=3)
    source = models.CharField(max_length=SOURCE_LENGTH_MAX, blank=True)
    subject = models.CharField(max_length=SUBJECT_LENGTH_MAX)
    amount_micros = models.BigIntegerField()
    sku = models.CharField(max_length=SKU_LENGTH_MAX, blank=True)
    region = models.CharField(max_length=REGION_LENGTH_MAX, blank=True)
    gpus = models.DecimalField(max_digits=12, decimal_places=3, null=True, blank=True)
    expires_at = models.DateTimeField()
    released_at = models.DateTimeField(null=True, blank=True)
    release = models.CharField(max_length=16, choices=HoldRelease, blank=True)
    created_at = models.DateTimeField()

    objects = HoldQuerySet.as_manager()

    class Meta:
        verbose_name = _("hold")
        verbose_name_plural = _("holds")
        constraints = [
            models.UniqueConstraint(
                name="billing_hold_one_live",
                fields=["organization", "source", "subject"],
                condition=Q(released_at=None),
            ),
            models.CheckConstraint(name="billing_hold_amount_positive", condition=Q(amount_micros__gt=0)),
            models.CheckConstraint(name="billing_hold_lives", condition=Q(expires_at__gt=F("created_at"))),
            models.CheckConstraint(
                name="billing_hold_release_complete",
                condition=Q(released_at=None, release="")
                | Q(released_at__isnull=False, release__in=HoldRelease.values),
            ),
        ]
        indexes = [
            models.Index(name="billing_hold_list", fields=["organization", "-created_at", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.subject}"


class SpendGuard(models.Model):
    """What staff allow an organization beyond its credit, and what its billing state remembers.

    credit_limit_micros: what may be owed before new usage is blocked; it counts only on a plan that pays by invoice.
    warn_below_micros: credit at or below it is low, whatever runs.
    suspended_at: set by staff, until staff lift it. reason: of the last decision.
    depleted_at: since when nothing is left; the grace counts from it. stop_requested_at: when, after it, what ran was
    asked to stop.
    low_water_micros: the least credit since it became low; only credit that comes in makes it healthy again.
    runway_ends_at: when low credit ends, as the last tick foretold it.
    """

    organization = models.OneToOneField(
        "organizations.Organization", models.PROTECT, primary_key=True, related_name="spend_guard"
    )
    credit_limit_micros = models.BigIntegerField(default=0)
    warn_below_micros = models.BigIntegerField(default=0)
    suspended_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    depleted_at = models.DateTimeField(null=True, blank=True)
    stop_requested_at = models.DateTimeField(null=True, blank=True)
    low_water_micros = models.BigIntegerField(null=True, blank=True)
    runway_ends_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("spend guard")
        verbose_name_plural = _("spend guards")
        constraints = [
            models.CheckConstraint(
                name="billing_spendguard_limit_not_negative", condition=Q(credit_limit_micros__gte=0)
            ),
            models.CheckConstraint(
                name="billing_spendguard_warning_not_negative", condition=Q(warn_below_micros__gte=0)
            ),
        ]

    def __str__(self) -> str:
        return str(self.organization_id)


class BillingTransition(models.Model):
    """One change of an organization's billing state, never edited. `number` counts them, so each happens once."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    number = models.PositiveIntegerField()
    before = models.CharField(max_length=16, choices=BillingState)
    after = models.CharField(max_length=16, choices=BillingState)
    available_micros = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    occurred_at = models.DateTimeField()

    class Meta:
        verbose_name = _("billing transition")
        verbose_name_plural = _("billing transitions")
        constraints = [
            models.UniqueConstraint(name="billing_billingtransition_once", fields=["organization", "number"]),
            models.CheckConstraint(
                name="billing_billingtransition_known",
                condition=Q(before__in=BillingState.values, after__in=BillingState.values),
            ),
            models.CheckConstraint(name="billing_billingtransition_changes", condition=~Q(before=F("after"))),
        ]

    def __str__(self) -> str:
        return f"{self.before} → {self.after}"


class StopRequest(models.Model):
    """That the provisioner was asked to stop a resource because the credit is used up, never edited."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    source = models.CharField(max_length=SOURCE_LENGTH_MAX)
    subject = models.CharField(max_length=SUBJECT_LENGTH_MAX)
    requested_at = models.DateTimeField()

    class Meta:
        verbose_name = _("stop request")
        verbose_name_plural = _("stop requests")
        constraints = [
            models.UniqueConstraint(
                name="billing_stoprequest_once", fields=["organization", "requested_at", "source", "subject"]
            ),
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.subject}"
