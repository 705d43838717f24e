"""Where the audit log is."""

from django.urls import path
from django.utils.translation import gettext_lazy as _

from apps.audit import api, views
from apps.core.http.navigation import Section
from apps.core.permissions import Permission

api_urlpatterns = [
    path("orgs/<slug:slug>/audit-events", api.AuditEventList.as_view(), name="audit-events"),
    path("orgs/<slug:slug>/audit-events/export", api.AuditExport.as_view(), name="audit-export"),
    path("audit/events", api.AuditEventView.as_view(), name="audit-events-view"),
]

navigation = [
    Section(
        key="audit",
        label=_("Audit"),
        route="audit",
        permission=Permission.AUDIT_READ,
        position=230,
        letter="a",
    ),
]

urlpatterns = [path("app/<slug:slug>/audit", views.Audit.as_view(), name="audit")]
