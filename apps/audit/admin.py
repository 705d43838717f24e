"""The audit log in the staff admin: to read, search and follow."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from apps.audit.models import AuditEvent
from apps.core.staff import ReadOnlyAdmin, link_to, list_link


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
    list_filter = ("actor_kind", "action", "occurred_at")
    search_fields = (
        "=organization_id",
        "=target_id",
        "=correlation_id",
        "actor_label",
        "target_label",
        "=action",
    )
    search_help_text = _("Organization id, target id, correlation id, action, or part of a name")
    date_hierarchy = "occurred_at"
    ordering = ("-occurred_at", "-id")
    show_full_result_count = False

    @admin.display(description=_("Organization"))
    def organization(self, event: AuditEvent) -> SafeString | str:
        return link_to("organizations_organization", event.organization_id, str(event.organization_id)[:8])

    @admin.display(description=_("Same request"))
    def same_request(self, event: AuditEvent) -> SafeString:
        return list_link("audit_auditevent", str(_("All of it")), q=event.correlation_id)
