"""Pages: invoices, and the way from a line down to the events behind it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from apps.core.errors import NotFound
from apps.core.http.pages import OrganizationPage, slice_of
from apps.core.permissions import Permission
from apps.invoices import explain, selectors
from apps.invoices.files import FORMATS, document_answer, focus_answer
from apps.invoices.wording import described


class Invoices(OrganizationPage):
    """The invoices, newest first."""

    permission = Permission.BILLING_READ
    section = "invoices"
    template_name = "invoices/list.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        found = slice_of(request, selectors.invoices_of(self.actor))
        return self.render({"slice": found, "invoices": described(found.rows, now=self.now)})


class InvoicePage(OrganizationPage):
    """One invoice with its lines."""

    permission = Permission.BILLING_READ
    section = "invoices"
    template_name = "invoices/invoice.html"

    def get(self, request: HttpRequest, invoice_id: UUID, **_path: Any) -> HttpResponse:  # noqa: ARG002
        invoice = selectors.invoice_by_id(self.actor, invoice_id)
        lines = selectors.lines_of(self.actor, invoice_id).order_by("position", "id")
        (row,) = described([invoice], now=self.now)
        return self.render({"invoice": row, "lines": selectors.line_rows(list(lines))})


class InvoiceFile(OrganizationPage):
    """A final invoice as a file."""

    permission = Permission.BILLING_READ
    section = "invoices"

    def get(self, request: HttpRequest, invoice_id: UUID, file_format: str, **_path: Any) -> HttpResponse:  # noqa: ARG002
        invoice = selectors.invoice_by_id(self.actor, invoice_id)
        if file_format not in FORMATS:
            raise NotFound
        return document_answer(invoice, file_format)


class FocusFile(OrganizationPage):
    """Cost and usage of a month as FOCUS 1.2."""

    permission = Permission.BILLING_READ
    section = "invoices"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        return focus_answer(request.GET.get("period", ""), self.organization)


class LinePage(OrganizationPage):
    """Why a line costs what it does: its price, the arithmetic and each hour; or one hour down to its events."""

    permission = Permission.BILLING_READ
    section = "invoices"
    template_name = "invoices/line.html"

    def get(self, request: HttpRequest, invoice_id: UUID, line_id: UUID, **_path: Any) -> HttpResponse:
        invoice = selectors.invoice_by_id(self.actor, invoice_id)
        wanted = explain.Wanted.parse({"line": str(line_id), "hour": request.GET.get("hour", "")})
        found = explain.explain(invoice, wanted)
        shown = {"invoice": found, "line": found["line"], "unit": found["line"]["arithmetic"]["divided_by"]}
        return self.render(shown, template="invoices/hour.html" if wanted.hour else self.template_name)
