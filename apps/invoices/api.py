"""REST: invoices, their lines, and the way from a line down to the events behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpResponse, StreamingHttpResponse
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.http.filters import CreatedFilterSet, refuse_unknown_parameters
from apps.core.http.openapi import Schema
from apps.core.http.views import ListView, OrganizationView
from apps.core.permissions import Permission
from apps.invoices import explain, selectors
from apps.invoices.files import FORMATS, document_answer, focus_answer
from apps.invoices.models import NOTE_KINDS, Invoice, InvoiceLine, InvoiceState, TaxCategory


class InvoiceOutput(serializers.Serializer[Any]):
    """An invoice; amounts are decimal strings in major units of `currency`."""

    id = serializers.UUIDField()
    number = serializers.CharField(allow_null=True)
    state = serializers.CharField()
    period = serializers.CharField()
    period_start = serializers.DateTimeField()
    period_end = serializers.DateTimeField()
    currency = serializers.CharField()
    subtotal = serializers.CharField()
    discount = serializers.CharField()
    tax = serializers.CharField()
    total = serializers.CharField()
    due = serializers.CharField(help_text="What credit did not pay when the invoice became final.")
    paid = serializers.CharField(help_text="What was paid on it: from credit, or since.")
    outstanding = serializers.CharField()
    credited = serializers.CharField(
        help_text="The part of the due amount that was credited, cancelled or written off."
    )
    due_at = serializers.DateTimeField(allow_null=True)
    finalized_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


class InvoiceFilters(CreatedFilterSet):
    state = filters.MultipleChoiceFilter(choices=InvoiceState.choices)
    period = filters.CharFilter(field_name="period__label")
    number = filters.CharFilter()


class InvoiceList(ListView):
    """The organization's invoices, newest first; `state=open&state=paid` narrows."""

    permission = Permission.BILLING_READ
    serializer_class = InvoiceOutput
    filterset_class = InvoiceFilters
    sortable: ClassVar = {"created_at": ("created_at", "id"), "period": ("period__starts_at", "id")}

    def get_queryset(self) -> QuerySet[Invoice]:
        return selectors.invoices_of(self.actor)

    def render_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return [selectors.invoice_row(row) for row in rows]


class InvoiceDetail(OrganizationView):
    """One invoice."""

    permission = Permission.BILLING_READ

    @extend_schema(responses=InvoiceOutput)
    def get(self, request: Request, **path: Any) -> Response:
        refuse_unknown_parameters(request, set())
        return Response(selectors.invoice_row(selectors.invoice_by_id(self.actor, path["invoice_id"])))


class SplitOutput(serializers.Serializer[Any]):
    project = serializers.CharField(allow_null=True)
    api_key = serializers.CharField(allow_null=True)
    quantity = serializers.CharField()
    amount = serializers.CharField()


class InvoiceLineOutput(serializers.Serializer[Any]):
    """One line; an adjustment names the line that it corrects and carries the signed difference."""

    id = serializers.UUIDField()
    position = serializers.IntegerField()
    kind = serializers.CharField()
    usage_period = serializers.CharField()
    corrects = serializers.UUIDField(allow_null=True)
    meter = serializers.CharField()
    sku = serializers.CharField()
    region = serializers.CharField()
    quantity = serializers.CharField()
    gpu_seconds = serializers.CharField(allow_null=True)
    unit_price = serializers.CharField(allow_null=True)
    amount = serializers.CharField()
    discount = serializers.CharField()
    tax = serializers.CharField()
    tax_category = serializers.ChoiceField(choices=TaxCategory.choices, help_text="Code of EN 16931.")
    tax_percent = serializers.CharField()
    currency = serializers.CharField()
    splits = SplitOutput(many=True)


class InvoiceLineList(ListView):
    """The lines of one invoice or credit note, in print order."""

    permission = Permission.BILLING_READ
    serializer_class = InvoiceLineOutput
    queryset = InvoiceLine.objects.none()  # For the schema, which asks without an invoice.
    ordering = ("position", "id")

    def get_queryset(self) -> QuerySet[InvoiceLine]:
        return selectors.lines_of(self.actor, self.kwargs["invoice_id"])

    def render_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return selectors.line_rows(rows)


class CreditNoteOutput(serializers.Serializer[Any]):
    """A credit note; amounts are what it gives, decimal strings in major units of `currency`."""

    id = serializers.UUIDField()
    number = serializers.CharField()
    kind = serializers.ChoiceField(choices=[(kind.value, kind.label) for kind in NOTE_KINDS])
    corrects = serializers.UUIDField(allow_null=True, help_text="The invoice that it corrects, if it is one.")
    corrects_number = serializers.CharField(allow_null=True)
    reason = serializers.CharField()
    period = serializers.CharField()
    currency = serializers.CharField()
    subtotal = serializers.CharField()
    discount = serializers.CharField()
    tax = serializers.CharField()
    total = serializers.CharField()
    finalized_at = serializers.DateTimeField()
    created_at = serializers.DateTimeField()


class CreditNoteFilters(CreatedFilterSet):
    corrects = filters.UUIDFilter(field_name="corrects_id")
    period = filters.CharFilter(field_name="period__label")
    number = filters.CharFilter()


class CreditNoteList(ListView):
    """The organization's credit notes, newest first; `corrects=<invoice>` narrows."""

    permission = Permission.BILLING_READ
    serializer_class = CreditNoteOutput
    filterset_class = CreditNoteFilters
    sortable: ClassVar = {"created_at": ("created_at", "id")}

    def get_queryset(self) -> QuerySet[Invoice]:
        return selectors.credit_notes_of(self.actor)

    def render_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return [selectors.credit_note_row(row) for row in rows]


class CreditNoteDetail(OrganizationView):
    """One credit note."""

    permission = Permission.BILLING_READ

    @extend_schema(responses=CreditNoteOutput)
    def get(self, request: Request, **path: Any) -> Response:
        refuse_unknown_parameters(request, set())
        return Response(
            selectors.credit_note_row(selectors.credit_note_by_id(self.actor, path["invoice_id"]))
        )


class FileSchema(Schema):
    """Describes a document's file by its format."""

    def get_response_serializers(self) -> Any:
        media_type = FORMATS[cast("DocumentFile", self.view).file_format].partition(";")[0]
        kind = OpenApiTypes.OBJECT if media_type == "application/json" else OpenApiTypes.BINARY
        return {(200, media_type): kind}


class DocumentFile(OrganizationView):
    """A final invoice or credit note as a file: PDF/A-3 with the e-invoice inside, that alone, CSV or JSON."""

    schema = FileSchema()
    permission = Permission.BILLING_READ
    refusals = frozenset({409})
    file_format = "pdf"

    def get(self, request: Request, **path: Any) -> HttpResponse:
        refuse_unknown_parameters(request, set())
        document = selectors.document_by_id(self.actor, path["invoice_id"])
        return document_answer(document, self.file_format)


class FocusExport(OrganizationView):
    """Cost and usage of a month's final documents as FOCUS 1.2, a row for each line, tier and resource."""

    permission = Permission.BILLING_READ

    @extend_schema(
        operation_id="billing_focus_export",
        parameters=[OpenApiParameter("period", str, required=True, description="A month, YYYY-MM.")],
        responses={(200, "text/csv"): OpenApiTypes.STR},
    )
    def get(self, request: Request, **_path: Any) -> StreamingHttpResponse:
        refuse_unknown_parameters(request, {"period"})
        return focus_answer(request.query_params.get("period", ""), self.organization)


class InvoiceExplain(OrganizationView):
    """Why a line costs what it does: line → price version → hours → intervals → events.

    Without `line`, every line with its price and arithmetic. With `line`, its hours. With `line` and `hour`, the
    resources of that hour with their intervals and the raw events behind them, in pages by `limit` and `cursor`; one
    with more intervals or events than are shown says so by `is_cut`.
    """

    permission = Permission.BILLING_READ

    @extend_schema(
        parameters=[
            OpenApiParameter("line", UUID, description="Id of a line."),
            OpenApiParameter("hour", str, description="An hour of the line, as its list of hours names it."),
            OpenApiParameter(
                "limit", int, description="Resources on a page of an hour, 1 to 100; 50 if unset."
            ),
            OpenApiParameter("cursor", str, description="`next_cursor` of the hour's page before."),
        ],
        responses={200: OpenApiTypes.OBJECT},
    )
    def get(self, request: Request, **path: Any) -> Response:
        refuse_unknown_parameters(request, {"line", "hour", "limit", "cursor"})
        document = self.find(path["invoice_id"])
        wanted = explain.Wanted.parse(request.query_params)
        return Response(explain.explain(document, wanted))

    def find(self, document_id: UUID) -> Invoice:
        """Return the invoice of the path, or raise NotFound."""
        return selectors.invoice_by_id(self.actor, document_id)


class CreditNoteExplain(InvoiceExplain):
    """Why a line of a credit note is what it is, as for invoices; a correction says what was invoiced before it."""

    def find(self, document_id: UUID) -> Invoice:
        """Return the credit note of the path, or raise NotFound."""
        return selectors.credit_note_by_id(self.actor, document_id)
