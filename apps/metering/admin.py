"""Usage in the staff admin: events, what they belong to, what was counted, and what still waits."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from apps.core.money import grouped, plain
from apps.core.staff import OrganizationLink, ReadOnlyAdmin, link_to, list_link
from apps.metering import selectors
from apps.metering.intervals import from_ms
from apps.metering.models import DirtyBatch, MeteringState, Resource, UsageChange, UsageEvent, UsageHour

SHOWN_MAX = 20
TOO_MANY = _("So many in its last month that only the list of its events tells them.")


class RunningFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("running", _("Running")), ("stopped", _("Stopped"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        running = Resource.objects.running_at(timezone.now())
        if self.value() == "running":
            return queryset.filter(pk__in=running.values("pk"))
        if self.value() == "stopped":
            return queryset.exclude(pk__in=running.values("pk"))
        return queryset


class MeteringAdmin(OrganizationLink, ReadOnlyAdmin):
    """Tables of millions of rows: no count of all, no list of every organization as a filter."""

    show_full_result_count = False
    list_per_page = 50

    @admin.display(description=_("Resource"))
    def resource_link(self, row: Any) -> SafeString | str:
        return link_to("metering_resource", row.resource_id, row.resource.subject)


@admin.register(UsageEvent)
class UsageEventAdmin(MeteringAdmin):
    list_display = (
        "time",
        "type",
        "organization_link",
        "resource_link",
        "sku",
        "region",
        "amount",
        "event_id",
    )
    list_select_related = ("organization", "resource")
    list_filter = ("type", "received_at")
    search_fields = (
        "event_id__startswith",
        "resource__subject__startswith",
        "=organization__slug",
        "=correlation_id",
    )
    search_help_text = _("Start of an event id or a subject; or an organization's slug, or a correlation id.")
    ordering = ("-id",)
    exclude = ("payload_hash", "organization", "resource")
    readonly_fields = ("organization_link", "resource_link")

    @admin.display(description=_("Amount"))
    def amount(self, event: UsageEvent) -> str:
        if event.quantity is not None:
            return f"{grouped(event.quantity)} {event.meter}"
        return "–" if event.gpus is None else f"{plain(event.gpus)} GPU"


@admin.register(Resource)
class ResourceAdmin(MeteringAdmin):
    list_display = (
        "subject",
        "source",
        "organization_link",
        "is_running",
        "live_until",
        "metered_until",
        "rows",
    )
    list_select_related = ("organization",)
    list_filter = (RunningFilter, "is_single_event")
    search_fields = ("subject__startswith", "=source", "=organization__slug")
    search_help_text = _("Start of a subject; or a source, or an organization's slug.")
    ordering = ("-id",)
    fields = (
        "organization_link",
        "source",
        "subject",
        "is_single_event",
        "rows",
        "running_until",
        "live_until",
        "metered_until",
        "intervals",
        "ignored_events",
    )
    readonly_fields = fields

    @admin.display(description=_("Running"), boolean=True)
    def is_running(self, resource: Resource) -> bool:
        return resource.running_until is not None and resource.running_until > timezone.now()

    @admin.display(description=_("Rows"))
    def rows(self, resource: Resource) -> SafeString:
        return format_html(
            "{} · {}",
            list_link("metering_usageevent", str(_("Events")), resource__id__exact=resource.pk),
            list_link("metering_usagehour", str(_("Hours")), resource__id__exact=resource.pk),
        )

    @admin.display(description=_("Latest intervals"))
    def intervals(self, resource: Resource) -> str:
        usage = selectors.latest_usage(resource, timezone.now())
        if usage is None:
            return str(TOO_MANY)
        lines = [
            f"{from_ms(segment.start):%Y-%m-%d %H:%M:%S} – {from_ms(segment.end):%Y-%m-%d %H:%M:%S}"
            f"  {plain(Decimal(segment.milli_gpus).scaleb(-3))} GPU  {segment.sku}  {segment.region}"
            for segment in usage.segments[-SHOWN_MAX:]
        ]
        return "\n".join(reversed(lines)) or "–"

    @admin.display(description=_("Ignored events"))
    def ignored_events(self, resource: Resource) -> str:
        usage = selectors.latest_usage(resource, timezone.now())
        return str(TOO_MANY) if usage is None else "\n".join(usage.ignored[-SHOWN_MAX:]) or "–"


@admin.register(UsageHour)
class UsageHourAdmin(MeteringAdmin):
    list_display = (
        "hour",
        "organization_link",
        "meter",
        "sku",
        "region",
        "project",
        "resource_link",
        "amount",
        "revision",
    )
    list_select_related = ("organization", "resource", "project")
    list_filter = ("meter", "hour")
    search_fields = ("resource__subject__startswith", "=organization__slug", "=sku")
    search_help_text = _("Start of a subject; or an organization's slug, or a SKU.")
    ordering = ("-hour", "-id")
    exclude = ("organization", "resource")
    readonly_fields = ("organization_link", "resource_link")

    @admin.display(description=_("Quantity"), ordering="quantity")
    def amount(self, row: UsageHour) -> str:
        return grouped(row.quantity)


@admin.register(DirtyBatch)
class DirtyBatchAdmin(MeteringAdmin):
    list_display = ("id", "organization_link", "resources", "earliest")
    list_select_related = ("organization",)
    search_fields = ("=organization__slug",)
    ordering = ("id",)
    exclude = ("organization",)
    readonly_fields = ("organization_link",)

    @admin.display(description=_("Resources"))
    def resources(self, batch: DirtyBatch) -> int:
        return len(batch.resource_ids)

    @admin.display(description=_("Earliest change"))
    def earliest(self, batch: DirtyBatch) -> datetime:
        return min(batch.since)


@admin.register(UsageChange)
class UsageChangeAdmin(MeteringAdmin):
    list_display = ("id", "organization_link", "hour", "meter", "sku", "region")
    list_select_related = ("organization",)
    list_filter = ("meter",)
    search_fields = ("=organization__slug", "=sku")
    ordering = ("id",)
    exclude = ("organization",)
    readonly_fields = ("organization_link",)


@admin.register(MeteringState)
class MeteringStateAdmin(MeteringAdmin):
    list_display = ("organization_link", "metered_until")
    list_select_related = ("organization",)
    search_fields = ("=organization__slug",)
    ordering = ("metered_until", "organization_id")
    exclude = ("organization",)
    readonly_fields = ("organization_link",)
