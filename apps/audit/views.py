"""Pages: what was done in an organization, by whom."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils import timezone

from apps.audit import exports
from apps.audit.forms import AuditForm
from apps.audit.models import AuditEvent, AuditEventQuerySet
from apps.core.http.pages import OrganizationPage, slice_of
from apps.core.permissions import Permission


class Audit(OrganizationPage):
    """The audit log, newest first, narrowed by who, what and when; the same as a file with `format=csv`."""

    permission = Permission.AUDIT_READ
    section = "audit"
    template_name = "audit/log.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse | StreamingHttpResponse:
        form = AuditForm(request.GET)
        if not form.is_valid():
            return self.render({"form": form}, status=422)
        events = self._narrowed(form.cleaned_data)
        if request.GET.get("format") == "csv":
            name = f"audit-{self.organization.slug}-{timezone.localdate(self.now)}.csv"
            return StreamingHttpResponse(
                exports.as_csv(events),
                content_type="text/csv; charset=utf-8",
                headers={"Content-Disposition": f'attachment; filename="{name}"'},
            )
        found = slice_of(request, events)
        is_narrowed = any(form.cleaned_data.values())
        return self.render({"form": form, "slice": found, "is_narrowed": is_narrowed})

    def _narrowed(self, wanted: dict[str, Any]) -> AuditEventQuerySet:
        events = AuditEvent.objects.visible_to(self.actor)
        if wanted["who"]:
            events = events.filter(actor_label__icontains=wanted["who"])
        if wanted["what"]:
            events = events.filter(action__startswith=wanted["what"])
        if wanted["first"]:
            events = events.filter(occurred_at__gte=_midnight(wanted["first"]))
        if wanted["last"]:
            events = events.filter(occurred_at__lt=_midnight(wanted["last"] + timedelta(days=1)))
        return events


def _midnight(day: Any) -> datetime:
    return timezone.make_aware(datetime.combine(day, time()))
