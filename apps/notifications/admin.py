"""Mails in the staff admin: what was sent to whom and why, and what was not."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from apps.core.staff import ReadOnlyAdmin, act_on_each, link_to, list_link, staff_actor
from apps.notifications import services
from apps.notifications.models import Mail


@admin.register(Mail)
class MailAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at",
        "template",
        "recipient",
        "state",
        "attempts",
        "error",
        "organization",
        "audit",
    )
    list_filter = ("state", "template", "created_at")
    search_fields = ("=recipient", "=organization_id", "=user_id", "=cause", "=correlation_id")
    search_help_text = _("Address, organization id, user id, cause or correlation id")
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    show_full_result_count = False
    actions = ("send_selected_again",)

    def has_send_permission(self, request: HttpRequest) -> bool:
        """Whoever may change mails may send them again."""
        return admin.ModelAdmin.has_change_permission(self, request)

    @admin.action(description=_("Send again"), permissions=["send"])
    def send_selected_again(self, request: HttpRequest, queryset: QuerySet[Mail]) -> None:
        def send(mail: Mail) -> str:
            services.send_again(actor=staff_actor(request), mail_id=mail.pk, now=timezone.now())
            return _("%(recipient)s gets it again.") % {"recipient": mail.recipient}

        act_on_each(self, request, queryset, send)

    @admin.display(description=_("Organization"))
    def organization(self, mail: Mail) -> SafeString | str:
        return link_to("organizations_organization", mail.organization_id, str(mail.organization_id)[:8])

    @admin.display(description=_("Audit"))
    def audit(self, mail: Mail) -> SafeString:
        return list_link("audit_auditevent", str(_("Audit")), q=mail.correlation_id)
