"""REST: the audit log of an organization, page by page or as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers

from apps.audit import exports
from apps.audit.filters import AuditEventFilters
from apps.audit.models import AuditEvent, AuditEventQuerySet
from apps.core.errors import InvalidRequest
from apps.core.http.pagination import OffsetOrCursorPagination
from apps.core.http.views import ListMixin, ListView, OrganizationView, Request
from apps.core.permissions import Permission

FORMATS = {
    "csv": (exports.as_csv, "text/csv; charset=utf-8"),
    "jsonl": (exports.as_jsonl, "application/jsonl"),
}


class ActorOutput(serializers.Serializer[Any]):
    """Who did it."""

    kind = serializers.CharField()
    id = serializers.UUIDField(allow_null=True)
    label = serializers.CharField()  # type: ignore[assignment]  # Field has an attribute of this name.


class TargetOutput(serializers.Serializer[Any]):
    """What it was done to, named as it was then."""

    type = serializers.CharField()
    id = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]  # Field has an attribute of this name.


class AuditEventOutput(serializers.Serializer[Any]):
    """One thing that was done; `diff` has [before, after] of each field, or facts."""

    id = serializers.UUIDField()
    occurred_at = serializers.DateTimeField()
    action = serializers.CharField()
    actor = ActorOutput()
    on_behalf_of = serializers.CharField()
    credential_id = serializers.UUIDField(allow_null=True)
    address = serializers.CharField()
    target = TargetOutput()
    diff = serializers.DictField()
    reason = serializers.CharField()
    correlation_id = serializers.CharField()


class AuditEventList(ListView):
    """What was done in the organization, newest first."""

    permission = Permission.AUDIT_READ
    serializer_class = AuditEventOutput
    filterset_class = AuditEventFilters
    ordering = ("-occurred_at", "-id")
    sortable: ClassVar = {"occurred_at": ("occurred_at", "id")}

    def get_queryset(self) -> QuerySet[AuditEvent]:
        return AuditEvent.objects.visible_to(self.actor)

    def render_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return [exports.shown(row) for row in rows]


class AuditEventView(AuditEventList):
    """The same list under the path and with the `offset` that a predecessor's clients use."""

    permission = Permission.AUDIT_READ
    pagination_class = OffsetOrCursorPagination
    own_parameters = ("offset",)


class AuditExport(ListMixin, OrganizationView):
    """The whole log, or what the filters of the list leave of it, oldest first."""

    permission = Permission.AUDIT_READ
    filterset_class = AuditEventFilters
    pagination_class = None  # type: ignore[assignment]  # A file has no pages.
    own_parameters = ("format",)
    serializer_class = AuditEventOutput

    @extend_schema(
        operation_id="audit_events_export",
        parameters=[OpenApiParameter("format", OpenApiTypes.STR, enum=sorted(FORMATS), required=True)],
        responses={(200, "text/csv"): OpenApiTypes.STR, (200, "application/jsonl"): OpenApiTypes.STR},
    )
    def get(self, request: Request, *_args: Any, **_kwargs: Any) -> StreamingHttpResponse:  # type: ignore[override]  # No Response.
        """Return a file, sent while it is written."""
        wanted = request.query_params.get("format", "")
        if wanted not in FORMATS:
            raise InvalidRequest(_("`format` is csv or jsonl."), parameter="format", allowed=sorted(FORMATS))
        write, content_type = FORMATS[wanted]
        events = cast("AuditEventQuerySet", self.filter_queryset(AuditEvent.objects.visible_to(self.actor)))
        name = f"audit-{self.organization.slug}-{timezone.now():%Y-%m-%d}.{wanted}"
        return StreamingHttpResponse(
            write(events),
            content_type=content_type,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )
