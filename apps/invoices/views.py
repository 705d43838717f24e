"""Pages: invoices, and the way from a line down to the events behind it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import F
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils.functional import cached_property
from django.utils.translation import gettext as _

from apps.core.errors import NotFound
from apps.core.http.pages import FormMixin, OrganizationPage, slice_of
from apps.core.http.sorting import RowOrder
from apps.core.permissions import Permission
from apps.invoices import explain, selectors
from apps.invoices import services as invoices
from apps.invoices.files import FORMATS, document_answer, focus_answer
from apps.invoices.filters import InvoiceFilters
from apps.invoices.forms import SendForm
from apps.invoices.models import DocumentKind, Invoice
from apps.invoices.wording import described
from apps.organizations.selectors import billing_recipients

NOTES_SHOWN = 50


class Invoices(OrganizationPage):
    """The invoices, newest first or as asked, and the credit notes."""

    permission = Permission.BILLING_READ
    section = "invoices"
    template_name = "invoices/list.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        visible = selectors.invoices_of(self.actor)
        filters = InvoiceFilters(request.GET, visible)
        order = RowOrder(request, {"month": "period__label", "amount": "total_minor"})
        rows = filters.qs if filters.is_valid() else visible.none()
        found = slice_of(request, rows, order=order, among=visible)
        notes = selectors.credit_notes_of(self.actor, drafts=True).order_by(
            F("finalized_at").desc(nulls_first=True), "-id"
        )[:NOTES_SHOWN]
        return self.render(
            {
                "filters": filters.form,
                "is_narrowed": not filters.is_valid() or any(filters.form.cleaned_data.values()),
                "sorting": order,
                "slice": found,
                "invoices": described(found.rows, now=self.now),
                "notes": [selectors.credit_note_row(note) for note in notes],
            }
        )


class InvoicePage(OrganizationPage):
    """One invoice or credit note with its lines."""

    permission = Permission.BILLING_READ
    section = "invoices"
    template_name = "invoices/invoice.html"

    def get(self, request: HttpRequest, invoice_id: UUID, **_path: Any) -> HttpResponse:
        document = selectors.document_by_id(self.actor, invoice_id)
        lines = selectors.line_rows(
            list(selectors.lines_of(self.actor, invoice_id).order_by("position", "id"))
        )
        if document.kind != DocumentKind.INVOICE:
            note = selectors.credit_note_row(selectors.credit_note_by_id(self.actor, invoice_id, drafts=True))
            return self.render({"note": note, "lines": lines}, template="invoices/credit_note.html")
        (row,) = described([selectors.invoice_by_id(self.actor, invoice_id)], now=self.now)
        notes = selectors.notes_of_invoice(self.actor, invoice_id)
        return self.render(
            {
                "invoice": row,
                "lines": lines,
                "notes": [selectors.credit_note_row(note) for note in notes],
                "waiting": selectors.waiting_of(invoice_id),
            }
        )


class SendDocument(FormMixin, OrganizationPage):
    """Mailing a final invoice or credit note to several addresses, from the start those that the profile names."""

    permission = Permission.BILLING_MANAGE
    section = "invoices"
    template_name = "invoices/send.html"
    form_class = SendForm

    @cached_property
    def document(self) -> Invoice:
        """The document of the path."""
        return selectors.document_by_id(self.actor, self.kwargs["invoice_id"])

    def form_arguments(self) -> dict[str, Any]:
        """Return whom invoices usually go to."""
        return {"initial": {"to": "\n".join(billing_recipients(self.organization, now=self.now))}}

    def context(self) -> dict[str, Any]:
        """Return the document to be sent."""
        return {"document": self.document}

    def act(self, form: Any) -> HttpResponse:
        """Send it and return to its page."""
        document = self.document
        to = invoices.send_again(
            actor=self.actor, document=document, to=form.cleaned_data["to"], now=self.now
        )
        message = _("%(number)s is on its way to %(addresses)s.") % {
            "number": document.number,
            "addresses": ", ".join(to),
        }
        return self.done(message, to=self.url("invoice", invoice_id=document.pk))


class InvoiceFile(OrganizationPage):
    """A final invoice or credit note as a file."""

    permission = Permission.BILLING_READ
    section = "invoices"

    def get(self, request: HttpRequest, invoice_id: UUID, file_format: str, **_path: Any) -> HttpResponse:
        document = selectors.document_by_id(self.actor, invoice_id)
        if file_format not in FORMATS:
            raise NotFound
        return document_answer(document, file_format)


class FocusFile(OrganizationPage):
    """Cost and usage of a month as FOCUS 1.2."""

    permission = Permission.BILLING_READ
    section = "invoices"

    def get(self, request: HttpRequest, **_path: Any) -> StreamingHttpResponse:
        return focus_answer(request.GET.get("period", ""), self.organization)


class LinePage(OrganizationPage):
    """Why a line costs what it does: its price, the arithmetic and each hour; or one hour down to its events."""

    permission = Permission.BILLING_READ
    section = "invoices"
    template_name = "invoices/line.html"

    def get(self, request: HttpRequest, invoice_id: UUID, line_id: UUID, **_path: Any) -> HttpResponse:
        document = selectors.document_by_id(self.actor, invoice_id)
        is_invoice = document.kind == DocumentKind.INVOICE
        invoice = selectors.invoice_by_id(self.actor, invoice_id) if is_invoice else document
        wanted = explain.Wanted.parse(request.GET.dict() | {"line": str(line_id)})
        found = explain.explain(invoice, wanted)
        shown = {"invoice": found, "line": found["line"], "unit": found["line"]["arithmetic"]["divided_by"]}
        return self.render(shown, template="invoices/hour.html" if wanted.hour else self.template_name)
