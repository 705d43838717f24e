"""Usage as it was reported, event by event, and as it was counted, hour by hour."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Self
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Func, Q, Sum
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.ids import uuid7
from apps.metering import intervals
from apps.organizations.models import Organization, Project

SOURCE_LENGTH_MAX = EVENT_ID_LENGTH_MAX = SUBJECT_LENGTH_MAX = 255
SKU_LENGTH_MAX = 120
REGION_LENGTH_MAX = METER_LENGTH_MAX = 64
QUANTITY_DIGITS, QUANTITY_DECIMALS = 38, 6
# A row of the queue stays within one page.
DIRTY_RESOURCES_MAX = 250

GPU_HOURS, INSTANCE_HOURS = intervals.GPU_HOURS, intervals.INSTANCE_HOURS


class EventType(models.TextChoices):
    """What an event reports."""

    STARTED = intervals.STARTED, _("Started")
    HEARTBEAT = intervals.HEARTBEAT, _("Heartbeat")
    RESIZED = intervals.RESIZED, _("Resized")
    STOPPED = intervals.STOPPED, _("Stopped")
    RECORDED = intervals.RECORDED, _("Recorded")


class ResourceQuerySet(models.QuerySet["Resource"]):
    """Reads of resources."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the resources of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)

    def running_at(self, moment: datetime) -> Self:
        """Return the resources known to run at a moment, latest counted: started, not stopped, heard of lately."""
        return self.filter(running_until__gt=moment)

    def unfinished(self, until: datetime) -> Self:
        """Return the resources whose usage up to `until` is not counted yet although no event is new."""
        return self.filter(live_until__gt=F("metered_until"), metered_until__lt=until)


class Resource(models.Model):
    """What usage belongs to: an allocation, or a single event without a subject.

    The next three moments are what metering found last; they are NULL until then.

    live_until: where the usage that the events prove so far ends, whatever the cut-off.
    running_until: the same for the part that no stop has ended yet; a heartbeat moves it. NULL when nothing is open.
    metered_until: the cut-off up to which the usage is in `UsageHour`.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        Organization, models.PROTECT, related_name="resources", verbose_name=_("organization")
    )
    source = models.CharField(_("source"), max_length=SOURCE_LENGTH_MAX)
    subject = models.CharField(_("subject"), max_length=SUBJECT_LENGTH_MAX)
    is_single_event = models.BooleanField(
        _("single event"),
        default=False,
        help_text=_("Without a subject; the event's own id stands in for it."),
    )
    live_until = models.DateTimeField(_("usage ends"), null=True, editable=False)
    running_until = models.DateTimeField(_("proven to run until"), null=True, editable=False)
    metered_until = models.DateTimeField(_("counted until"), null=True, editable=False)

    objects = ResourceQuerySet.as_manager()

    class Meta:
        verbose_name = _("resource")
        verbose_name_plural = _("resources")
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "source", "subject", "is_single_event"], name="metering_resource_once"
            ),
            models.UniqueConstraint(fields=["organization", "id"], name="metering_resource_tenant"),
        ]
        indexes = [
            models.Index(
                fields=["organization", "metered_until"],
                condition=Q(live_until__gt=F("metered_until")),
                name="metering_resource_unfinished",
            ),
            models.Index(
                fields=["organization", "running_until"],
                condition=Q(running_until__isnull=False),
                name="metering_resource_running",
            ),
        ]

    def __str__(self) -> str:
        return self.subject


class UsageEventQuerySet(models.QuerySet["UsageEvent"]):
    """Reads of events."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the events of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)

    def of_resources(self, resource_ids: Iterable[UUID]) -> Self:
        """Return all events of some resources, in no order; metering has its own."""
        return self.filter(resource__in=resource_ids)


class UsageEvent(models.Model):
    """One accepted event, never changed. Its identity (source, event id) holds for ever, in every organization.

    payload_hash: SHA-256 of the payload as sent, names unresolved, numbers and times normalised.
    sku, region, meter: codes as sent, empty where the event needs none; a price may be added later.
    gpus: to three decimals. time, started_at, ended_at: to the millisecond.
    """

    id = models.BigAutoField(primary_key=True)
    source = models.CharField(_("source"), max_length=SOURCE_LENGTH_MAX)
    event_id = models.CharField(_("event id"), max_length=EVENT_ID_LENGTH_MAX)
    payload_hash = models.BinaryField(_("payload hash"), max_length=32)
    # Not checked apart from the resource, whose composite key already implies it: each check costs ingestion.
    organization = models.ForeignKey(
        Organization,
        models.PROTECT,
        related_name="+",
        db_constraint=False,
        db_index=False,
        verbose_name=_("organization"),
    )
    resource = models.ForeignKey(
        Resource,
        models.PROTECT,
        related_name="events",
        db_constraint=False,
        db_index=False,
        verbose_name=_("resource"),
    )
    type = models.CharField(_("type"), max_length=24, choices=EventType)
    time = models.DateTimeField(_("time"))
    sku = models.CharField(_("SKU"), max_length=SKU_LENGTH_MAX, blank=True)
    region = models.CharField(_("region"), max_length=REGION_LENGTH_MAX, blank=True)
    gpus = models.DecimalField(_("GPUs"), max_digits=12, decimal_places=3, null=True)
    project = models.ForeignKey(
        Project,
        models.PROTECT,
        related_name="+",
        null=True,
        db_constraint=False,
        db_index=False,
        verbose_name=_("project"),
    )
    credential = models.ForeignKey(
        "credentials.ApiKey",
        models.PROTECT,
        related_name="+",
        null=True,
        db_constraint=False,
        db_index=False,
        verbose_name=_("API key"),
    )
    meter = models.CharField(_("meter"), max_length=METER_LENGTH_MAX, blank=True)
    quantity = models.DecimalField(
        _("quantity"), max_digits=QUANTITY_DIGITS, decimal_places=QUANTITY_DECIMALS, null=True
    )
    started_at = models.DateTimeField(_("started"), null=True)
    ended_at = models.DateTimeField(_("ended"), null=True)
    labels = models.JSONField(_("labels"), default=dict)
    integration_id = models.UUIDField(_("integration"), null=True)
    received_at = models.DateTimeField(_("received"))
    correlation_id = models.CharField(_("correlation id"), max_length=128, blank=True)

    objects = UsageEventQuerySet.as_manager()

    class Meta:
        verbose_name = _("usage event")
        verbose_name_plural = _("usage events")
        constraints = [
            models.UniqueConstraint(fields=["source", "event_id"], name="metering_usageevent_once"),
            models.CheckConstraint(
                name="metering_usageevent_complete",
                condition=Q(
                    type=EventType.STARTED, gpus__isnull=False, quantity=None, started_at=None, ended_at=None
                )
                | Q(type=EventType.RESIZED, gpus__isnull=False, quantity=None, started_at=None, ended_at=None)
                | Q(
                    type__in=[EventType.HEARTBEAT, EventType.STOPPED],
                    gpus=None,
                    quantity=None,
                    started_at=None,
                    ended_at=None,
                )
                | Q(type=EventType.RECORDED, gpus__isnull=False, quantity=None, ended_at__gte=F("started_at"))
                | (
                    Q(
                        type=EventType.RECORDED,
                        gpus=None,
                        quantity__isnull=False,
                        started_at=None,
                        ended_at=None,
                    )
                    & ~Q(meter="")
                ),
            ),
            models.CheckConstraint(
                name="metering_usageevent_not_negative",
                condition=(Q(gpus=None) | Q(gpus__gte=0)) & (Q(quantity=None) | Q(quantity__gte=0)),
            ),
        ]
        # Each event is in exactly one of the last three, so that reading a resource is cheap and writing costs one.
        indexes = [
            models.Index(
                fields=["resource", "time"],
                condition=Q(type__in=[EventType.STARTED, EventType.RESIZED, EventType.STOPPED]),
                name="metering_usageevent_turn_times",
            ),
            models.Index(
                fields=["resource", "time"],
                condition=Q(type=EventType.HEARTBEAT),
                name="metering_usageevent_beats",
            ),
            models.Index(
                F("resource"),
                Coalesce("ended_at", "time"),
                condition=Q(type=EventType.RECORDED),
                name="metering_usageevent_recorded",
            ),
        ]

    def __str__(self) -> str:
        return self.event_id


class DirtyBatchQuerySet(models.QuerySet["DirtyBatch"]):
    """Reads of the queue."""

    def resources(self) -> int:
        """Return how many changes of resources wait; one may wait several times."""
        total: int | None = self.aggregate(
            total=Sum(Func(F("resource_ids"), function="cardinality", output_field=models.IntegerField()))
        )["total"]
        return total or 0


class DirtyBatch(models.Model):
    """News about resources of one organization, written in the transaction of their events and deleted by the tick.

    resource_ids: the resources that one batch of events concerned; a hint to count them, so it is no reference.
    since: for each of them, the earliest moment that its new events can change.
    is_folded: whether the row says once what several batches said.
    """

    id = models.BigAutoField(primary_key=True)
    organization = models.ForeignKey(
        Organization,
        models.PROTECT,
        related_name="+",
        db_constraint=False,
        db_index=False,
        verbose_name=_("organization"),
    )
    resource_ids = ArrayField(models.UUIDField(), verbose_name=_("resources"))
    since = ArrayField(models.DateTimeField(), verbose_name=_("since"))
    is_folded = models.BooleanField(_("folded"), default=False, db_default=False)

    objects = DirtyBatchQuerySet.as_manager()

    class Meta:
        verbose_name = _("batch to count")
        verbose_name_plural = _("batches to count")
        constraints = [
            models.CheckConstraint(
                name="metering_dirtybatch_complete",
                condition=Q(resource_ids__len__gt=0, resource_ids__len=F("since__len")),
            )
        ]
        indexes = [models.Index(fields=["organization", "id"], name="metering_dirtybatch_queue")]

    def __str__(self) -> str:
        return f"{self.pk}"


class UsageHourQuerySet(models.QuerySet["UsageHour"]):
    """Reads of hourly usage."""

    def visible_to(self, actor: Actor) -> Self:
        """Return the usage of the actor's organization."""
        return self.filter(organization_id=actor.organization_id)

    def counted(self) -> Self:
        """Return the rows that hold usage; a revision may have left others at zero."""
        return self.filter(quantity__gt=0)


class UsageHour(models.Model):
    """The usage of one resource in one piece of an hour, as counted last. Rows that vanish stay, at zero.

    hour: the later of the UTC hour's and the billing period's start.
    quantity: GPU-seconds for `gpu_hours`, seconds for `instance_hours`, else the meter's own unit.
    revision: how often the row was written.
    """

    id = models.BigAutoField(primary_key=True)
    organization = models.ForeignKey(
        Organization,
        models.PROTECT,
        related_name="+",
        db_constraint=False,
        db_index=False,
        verbose_name=_("organization"),
    )
    resource = models.ForeignKey(
        Resource,
        models.PROTECT,
        related_name="hours",
        db_constraint=False,
        db_index=False,
        verbose_name=_("resource"),
    )
    meter = models.CharField(_("meter"), max_length=METER_LENGTH_MAX)
    sku = models.CharField(_("SKU"), max_length=SKU_LENGTH_MAX, blank=True)
    region = models.CharField(_("region"), max_length=REGION_LENGTH_MAX, blank=True)
    project = models.ForeignKey(
        Project,
        models.PROTECT,
        related_name="+",
        null=True,
        db_constraint=False,
        db_index=False,
        verbose_name=_("project"),
    )
    credential = models.ForeignKey(
        "credentials.ApiKey",
        models.PROTECT,
        related_name="+",
        null=True,
        db_constraint=False,
        db_index=False,
        verbose_name=_("API key"),
    )
    hour = models.DateTimeField(_("hour"))
    quantity = models.DecimalField(
        _("quantity"), max_digits=QUANTITY_DIGITS, decimal_places=QUANTITY_DECIMALS
    )
    revision = models.PositiveIntegerField(_("revision"), default=1)

    objects = UsageHourQuerySet.as_manager()

    class Meta:
        verbose_name = _("usage hour")
        verbose_name_plural = _("usage hours")
        constraints = [
            models.UniqueConstraint(
                fields=["resource", "hour", "meter", "sku", "region", "project", "credential"],
                # The resource decides the organization by its composite key.
                nulls_distinct=False,
                name="metering_usagehour_once",
            ),
            models.CheckConstraint(name="metering_usagehour_not_negative", condition=Q(quantity__gte=0)),
            models.CheckConstraint(name="metering_usagehour_revision_positive", condition=Q(revision__gte=1)),
            models.CheckConstraint(name="metering_usagehour_meter_given", condition=~Q(meter="")),
        ]
        indexes = [
            models.Index(
                fields=["organization", "meter", "sku", "region", "hour"], name="metering_usagehour_key"
            ),
            models.Index(fields=["organization", "hour"], name="metering_usagehour_period"),
        ]

    def __str__(self) -> str:
        return f"{self.meter} {self.hour:%Y-%m-%d %H:%M}"


class MeteringState(models.Model):
    """How far an organization's usage is counted. The row's lock serialises its metering, charging and closing.

    metered_until: every event accepted before the tick began is counted up to here; it never moves back.
    """

    organization = models.OneToOneField(
        Organization, models.PROTECT, primary_key=True, related_name="+", verbose_name=_("organization")
    )
    metered_until = models.DateTimeField(_("counted until"), null=True)

    class Meta:
        verbose_name = _("metering state")
        verbose_name_plural = _("metering states")

    def __str__(self) -> str:
        return f"{self.organization_id}"


class UsageChange(models.Model):
    """The sum of one (meter, SKU, region, hour) changed; charging reads these in order of id and deletes them."""

    id = models.BigAutoField(primary_key=True)
    organization = models.ForeignKey(
        Organization, models.PROTECT, related_name="+", db_index=False, verbose_name=_("organization")
    )
    meter = models.CharField(_("meter"), max_length=METER_LENGTH_MAX)
    sku = models.CharField(_("SKU"), max_length=SKU_LENGTH_MAX, blank=True)
    region = models.CharField(_("region"), max_length=REGION_LENGTH_MAX, blank=True)
    hour = models.DateTimeField(_("hour"))

    class Meta:
        verbose_name = _("usage to charge")
        verbose_name_plural = _("usage to charge")
        indexes = [models.Index(fields=["organization", "hour", "id"], name="metering_usagechange_queue")]

    def __str__(self) -> str:
        return f"{self.meter} {self.hour:%Y-%m-%d %H:%M}"
