"""The outbox in the staff admin: to read."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from apps.core.staff import ReadOnlyAdmin, link_to, list_link
from apps.outbox.models import OutboxEvent


@admin.register(OutboxEvent)
class OutboxEventAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "event_type", "organization", "correlation_id", "audit")
    list_filter = ("event_type", "created_at")
    search_fields = ("=organization_id", "=correlation_id", "=id")
    search_help_text = _("Organization id, correlation id or event id")
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    show_full_result_count = False

    @admin.display(description=_("Organization"))
    def organization(self, event: OutboxEvent) -> SafeString | str:
        return link_to("organizations_organization", event.organization_id, str(event.organization_id)[:8])

    @admin.display(description=_("Audit"))
    def audit(self, event: OutboxEvent) -> SafeString:
        return list_link("audit_auditevent", str(_("Audit")), q=event.correlation_id)
