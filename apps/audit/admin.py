"""The audit log in the staff admin: to read, search and follow."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from apps.audit.models import AuditEvent
from apps.core.staff import ReadOnlyAdmin, link_to, list_link


class SealedFilter(admin.SimpleListFilter):
    """Whether a chain holds the event already."""

    title = _("sealed")
    parameter_name = "sealed"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("Sealed")), ("no", _("Waiting"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        if self.value() is None:
            return queryset
        return queryset.filter(waiting__isnull=self.value() == "yes")


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = (
        "occurred_at",
        "action",
        "actor_label",
        "target_label",
        "organization",
        "address",
        "same_request",
    )
    list_filter = (
        "actor_kind",
        "target_type",
        "action",
        ("organization_id", admin.EmptyFieldListFilter),
        SealedFilter,
        "occurred_at",
    )
    search_fields = (
        "=organization_id",
        "=target_id",
        "=correlation_id",
        "=credential_id",
        "=actor_id",
        "actor_label",
        "target_label",
        "=action",
    )
    search_help_text = _(
        "Id of an organization, target, actor, credential or request, an action, or part of a name"
    )
    date_hierarchy = "occurred_at"
    ordering = ("-occurred_at", "-id")
    show_full_result_count = False

    @admin.display(description=_("Organization"))
    def organization(self, event: AuditEvent) -> SafeString | str:
        return link_to("organizations_organization", event.organization_id, str(event.organization_id)[:8])

    @admin.display(description=_("Same request"))
    def same_request(self, event: AuditEvent) -> SafeString:
        return list_link("audit_auditevent", str(_("All of it")), q=event.correlation_id)
