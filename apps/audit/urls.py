"""Where the audit log is."""

from django.urls import path

from apps.audit import api

api_urlpatterns = [
    path("orgs/<slug:slug>/audit-events", api.AuditEventList.as_view(), name="audit-events"),
    path("orgs/<slug:slug>/audit-events/export", api.AuditExport.as_view(), name="audit-export"),
    path("audit/events", api.AuditEventView.as_view(), name="audit-events-view"),
]
