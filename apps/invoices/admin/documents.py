"""Invoices and credit notes in the staff admin: to read down to the charge key of each line, and to correct."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core.errors import DomainError
from apps.core.money import grouped, grouped_minor, plain
from apps.core.staff import (
    OrganizationLink,
    ReadOnlyAdmin,
    ReadOnlyInline,
    link_to,
    list_link,
    micros_column,
    staff_actor,
    take_step,
)
from apps.invoices import selectors
from apps.invoices import services as invoices
from apps.invoices.composing import ComposedLine
from apps.invoices.files import FORMATS, document_answer
from apps.invoices.forms import ConfirmForm, CorrectionForm, CreditForm
from apps.invoices.models import (
    DocumentKind,
    Invoice,
    InvoiceCounter,
    InvoiceLine,
    InvoicePayment,
    InvoiceState,
    InvoiceTax,
    PeriodClose,
)
from apps.organizations.models import Organization


def _amount(field: str, description: Any) -> Any:
    @admin.display(description=description, ordering=f"{field}_minor")
    def shown(_admin: object, row: Invoice) -> str:
        return grouped_minor(getattr(row, f"{field}_minor"), row.currency)

    return shown


class LineInline(ReadOnlyInline):
    model = InvoiceLine
    fields = ("position", "kind", "usage_period", "key_link", "counted", "price", "amount", "discount")
    readonly_fields = fields
    ordering = ("position",)

    @admin.display(description=_("Charge key"))
    def key_link(self, line: InvoiceLine) -> SafeString | str:
        return link_to("billing_chargekey", line.key_id, str(line))

    @admin.display(description=_("Counted"))
    def counted(self, line: InvoiceLine) -> str:
        return grouped(line.quantity)

    @admin.display(description=_("Unit price"))
    def price(self, line: InvoiceLine) -> str:
        return "–" if line.unit_price is None else grouped(line.unit_price, decimals_min=2)

    @admin.display(description=_("Amount"))
    def amount(self, line: InvoiceLine) -> str:
        return grouped_minor(line.amount_minor, line.invoice.currency)

    @admin.display(description=_("Discount"))
    def discount(self, line: InvoiceLine) -> str:
        return grouped_minor(line.discount_minor, line.invoice.currency)


class TaxInline(ReadOnlyInline):
    model = InvoiceTax
    fields = readonly_fields = ("category", "rate", "country", "base", "tax", "note")
    ordering = ("position",)

    @admin.display(description=_("Percent"))
    def rate(self, row: InvoiceTax) -> str:
        return plain(row.percent)

    @admin.display(description=_("Net"))
    def base(self, row: InvoiceTax) -> str:
        return grouped_minor(row.base_minor, row.invoice.currency)

    @admin.display(description=_("Tax"))
    def tax(self, row: InvoiceTax) -> str:
        return grouped_minor(row.tax_minor, row.invoice.currency)


class PaymentInline(ReadOnlyInline):
    model = InvoicePayment
    fields = readonly_fields = ("paid_at", "kind", "amount", "transfers")
    amount = micros_column("amount_micros", _("Amount"))

    @admin.display(description=_("Ledger"))
    def transfers(self, payment: InvoicePayment) -> SafeString:
        return list_link("ledger_transfer", str(_("Transfers")), q=payment.batch_id)


def _preview_rows(found: invoices.Preview) -> dict[str, Any]:
    """Return a preview's lines and sums as they are shown."""

    def shown(minor: int) -> str:
        return grouped_minor(minor, found.currency)

    composition = found.composition
    sums = (
        (_now("Subtotal"), composition.subtotal_minor),
        (_now("Promotional credit"), -composition.discount_minor),
        (_now("Tax"), composition.tax_minor),
        (_now("Total"), composition.total_minor),
        (_now("Due"), found.settlement.due_minor),
    )

    def row(line: ComposedLine) -> dict[str, str]:
        return {
            "name": f"{line.key.period.label} {line.key}",
            "quantity": grouped(line.quantity),
            "amount": shown(line.amount_minor),
            "discount": shown(line.discount_minor),
            "tax": shown(line.tax_minor),
        }

    return {
        "lines": [row(line) for line in composition.lines],
        "waiting": [row(line) for line in composition.waiting],
        "sums": [{"label": label, "amount": shown(minor)} for label, minor in sums],
    }


def _steps(invoice: Invoice) -> list[tuple[str, str]]:
    """Return address and name of each page that leads on from a document."""

    def page(name: str, *more: str) -> str:
        return reverse(f"admin:invoices_{name}", args=[invoice.pk, *more])

    if invoice.state == InvoiceState.DRAFT:
        return [(page("finalise"), _now("Finalise…"))]
    found = [(page("file", name), name.upper()) for name in FORMATS] if invoice.number else []
    if invoice.number:
        found.append((page("send"), _now("Send again…")))
    if invoice.kind == DocumentKind.INVOICE and invoice.state in (InvoiceState.OPEN, InvoiceState.PAID):
        found += [(page("credit"), _now("Credit…")), (page("cancel"), _now("Cancel…"))]
    if invoice.state == InvoiceState.OPEN:
        receipt = reverse("admin:payments_invoice_receipt", args=[invoice.pk])
        found += [(page("write-off"), _now("Write off…")), (receipt, _now("Record a bank transfer…"))]
    return found


@admin.register(Invoice)
class InvoiceAdmin(OrganizationLink, ReadOnlyAdmin):
    list_display = (
        "title", "organization_link", "period", "kind", "state", "total", "due", "currency", "finalized_at",
    )  # fmt: skip
    list_display_links = ("title",)
    list_filter = ("kind", "state", "currency", "period__label")
    change_list_template = "invoices/admin/list.html"
    list_select_related = ("organization", "period")
    search_fields = ("number", "id", "organization__slug", "organization__name")
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    fieldsets = (
        (None, {"fields": ("title", "kind", "organization_link", "period", "state", "steps")}),
        (_("Correction"), {"fields": ("corrected", "reason", "notes")}),
        (_("Amounts"), {"fields": ("currency", "subtotal", "discount", "tax", "total", "due", "left")}),
        (_("Dates"), {"fields": ("drafted_at", "finalized_at", "due_at", "created_at")}),
    )
    inlines = (LineInline, TaxInline, PaymentInline)

    subtotal = _amount("subtotal", _("Subtotal"))
    discount = _amount("discount", _("Discount"))
    tax = _amount("tax", _("Tax"))
    total = _amount("total", _("Total"))
    due = _amount("due", _("Due"))

    def get_urls(self) -> list[URLPattern]:
        """Add the pages of the steps that a document takes, its files, the ageing and the preview."""
        view = self.admin_site.admin_view
        steps = {
            "finalise": self.finalise,
            "credit": self.credit,
            "cancel": self.cancel,
            "write-off": self.write_off,
        }
        pages = [
            path(f"<uuid:invoice_id>/{name}/", view(page), name=f"invoices_{name}")
            for name, page in steps.items()
        ]
        return [
            *pages,
            path("<uuid:invoice_id>/send/", view(self.send), name="invoices_send"),
            path("<uuid:invoice_id>/file/<str:file_format>", view(self.file), name="invoices_file"),
            path("ageing/", view(self.ageing), name="invoices_ageing"),
            path("preview/<uuid:organization_id>/", view(self.preview), name="invoices_preview"),
            *super().get_urls(),
        ]

    def has_correct_permission(self, request: HttpRequest) -> bool:
        """Return whether this member of the staff may do more than read."""
        return bool(request.user.has_perm("invoices.correct_invoice"))

    def finalise(self, request: HttpRequest, invoice_id: UUID) -> HttpResponse:
        """Make a draft's period final."""

        def step(invoice: Invoice, _form: forms.Form) -> str:
            closed = invoices.close_period(
                actor=staff_actor(request),
                organization_id=invoice.organization_id,
                label=invoice.period.label,
                finalize=True,
                now=timezone.now(),
            )
            return _now("%s is final.") % (closed.invoice or closed.period)

        return self._step(request, invoice_id, _now("Finalise"), lambda _invoice: ConfirmForm, step)

    def credit(self, request: HttpRequest, invoice_id: UUID) -> HttpResponse:
        """Write a credit note, by amount, by line or in full."""

        def step(invoice: Invoice, form: Any) -> str:
            note = invoices.credit_invoice(
                actor=staff_actor(request),
                invoice=invoice,
                reason=form.cleaned_data["reason"],
                attempt_id=form.cleaned_data["attempt"],
                now=timezone.now(),
                **form.what(),
            )
            return _now("Credit note %s is issued.") % note

        return self._step(
            request, invoice_id, _now("Credit"), lambda invoice: partial(CreditForm, invoice=invoice), step
        )

    def cancel(self, request: HttpRequest, invoice_id: UUID) -> HttpResponse:
        """Undo an invoice, so that its usage is invoiced anew."""

        def step(invoice: Invoice, form: forms.Form) -> str:
            note = invoices.cancel_invoice(
                actor=staff_actor(request),
                invoice=invoice,
                reason=form.cleaned_data["reason"],
                now=timezone.now(),
            )
            return _now("%(invoice)s is cancelled by %(note)s; the next invoice bills its usage anew.") % {
                "invoice": invoice,
                "note": note,
            }

        return self._step(
            request, invoice_id, _now("Cancel the invoice"), lambda _invoice: CorrectionForm, step
        )

    def write_off(self, request: HttpRequest, invoice_id: UUID) -> HttpResponse:
        """Give up what is left of an open invoice."""

        def step(invoice: Invoice, form: forms.Form) -> str:
            invoices.write_off(
                actor=staff_actor(request),
                invoice=invoice,
                reason=form.cleaned_data["reason"],
                now=timezone.now(),
            )
            return _now("%s is uncollectible.") % invoice

        return self._step(request, invoice_id, _now("Write off"), lambda _invoice: CorrectionForm, step)

    def send(self, request: HttpRequest, invoice_id: UUID) -> HttpResponse:
        """Mail a final document once more."""

        def step(invoice: Invoice, _form: forms.Form) -> str:
            to = invoices.send_again(actor=staff_actor(request), document=invoice, now=timezone.now())
            return _now("Sent to %s.") % ", ".join(to)

        return self._step(request, invoice_id, _now("Send again"), lambda _invoice: ConfirmForm, step)

    def _step(
        self,
        request: HttpRequest,
        invoice_id: UUID,
        title: str,
        form_of: Callable[[Invoice], Callable[..., forms.Form]],
        step: Callable[[Invoice, Any], str],
    ) -> HttpResponse:
        if not self.has_correct_permission(request):
            raise PermissionDenied
        invoice = get_object_or_404(Invoice.objects.select_related("organization", "period"), pk=invoice_id)
        # A form without fields is bound by an empty body too.
        form = form_of(invoice)(request.POST if request.method == "POST" else None)
        return take_step(
            self,
            request,
            row=invoice,
            row_url=reverse("admin:invoices_invoice_change", args=[invoice.pk]),
            title=title,
            form=form,
            step=lambda: step(invoice, form),
        )

    def file(self, request: HttpRequest, invoice_id: UUID, file_format: str) -> HttpResponse:
        """Download a final document."""
        if not self.has_view_permission(request) or file_format not in FORMATS:
            raise PermissionDenied
        invoice = get_object_or_404(
            Invoice.objects.final().select_related("organization", "period", "corrects"), pk=invoice_id
        )
        try:
            return document_answer(invoice, file_format)
        except DomainError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(reverse("admin:invoices_invoice_change", args=[invoice.pk]))

    def ageing(self, request: HttpRequest) -> HttpResponse:
        """Show what is owed, by how long it is due."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "title": _now("Receivables by age"),
            "tables": selectors.receivables_by_age(now=timezone.now()),
            "buckets": [bucket.label for bucket in selectors.AGES],
        }
        return TemplateResponse(request, "invoices/admin/ageing.html", context)

    def preview(self, request: HttpRequest, organization_id: UUID) -> HttpResponse:
        """Show what closing an organization's running month would make now."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        organization = get_object_or_404(Organization, pk=organization_id)
        found = invoices.preview_period(organization_id=organization.pk, now=timezone.now())
        context = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "title": _now("Preview of %s") % found.label,
            "organization": organization,
            "preview": found,
            **_preview_rows(found),
        }
        return TemplateResponse(request, "invoices/admin/preview.html", context)

    @admin.display(description=_("Next steps"))
    def steps(self, invoice: Invoice) -> SafeString | str:
        return format_html_join(" · ", '<a href="{}">{}</a>', _steps(invoice)) or "–"

    @admin.display(description=_("Corrects"))
    def corrected(self, invoice: Invoice) -> SafeString | str:
        return link_to("invoices_invoice", invoice.corrects_id, str(invoice.corrects))

    @admin.display(description=_("Corrected by"))
    def notes(self, invoice: Invoice) -> SafeString | str:
        rows = invoice.credit_notes.order_by("created_at", "pk")
        return (
            format_html_join(
                " · ", "{}", ((link_to("invoices_invoice", note.pk, str(note)),) for note in rows)
            )
            or "–"
        )

    @admin.display(description=_("Left to pay"))
    def left(self, invoice: Invoice) -> str:
        is_owed = invoice.state == InvoiceState.OPEN
        return grouped_minor(invoice.outstanding_minor() if is_owed else 0, invoice.currency)

    @admin.display(description=_("Number"), ordering="number")
    def title(self, invoice: Invoice) -> str:
        return invoice.number or str(_("Draft"))


@admin.register(PeriodClose)
class PeriodCloseAdmin(ReadOnlyAdmin):
    list_display = ("closed_at", "organization", "period", "invoice_link", "later", "closed_by")
    list_select_related = ("organization", "period", "invoice")
    search_fields = ("organization__slug", "period__label", "invoice__number")
    ordering = ("-closed_at", "-id")

    @admin.display(description=_("Invoice"))
    def invoice_link(self, close: PeriodClose) -> SafeString | str:
        return link_to("invoices_invoice", close.invoice_id, str(close.invoice))

    @admin.display(description=_("For a later document"))
    def later(self, close: PeriodClose) -> str:
        return ", ".join(f"{row['sku'] or row['meter']} {row['amount']}" for row in close.waiting) or "–"


@admin.register(InvoiceCounter)
class InvoiceCounterAdmin(ReadOnlyAdmin):
    list_display = ("entity", "series", "year", "last_number")
    ordering = ("entity", "series", "-year")
