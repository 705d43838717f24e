"""How the money of final invoices comes in: charges, reminders, bank transfers."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.core.money import from_minor, grouped_minor
from apps.core.staff import (
    link_to,
    staff_actor,
    take_step,
)
from apps.invoices.models import Invoice
from apps.invoices.parties import due_on
from apps.payments import services as payments
from apps.payments.admin.common import StaffAdmin
from apps.payments.forms import BankReceiptForm
from apps.payments.models import Collection, CollectionState


@admin.register(Collection)
class CollectionAdmin(StaffAdmin):
    list_display = (
        "invoice_link", "organization_link", "state", "due", "outstanding", "attempts", "next_attempt_at",
        "reminders", "step",
    )  # fmt: skip
    list_filter = ("state",)
    list_select_related = ("organization", "invoice")
    search_fields = ("invoice__number", "organization__slug")
    ordering = ("invoice__due_at", "id")

    def get_urls(self) -> list[Any]:
        receipt = self.admin_site.admin_view(self.receipt)
        own = path("invoice/<uuid:invoice_id>/receipt", receipt, name="payments_invoice_receipt")
        return [own, *super().get_urls()]

    def has_record_permission(self, request: HttpRequest) -> bool:
        """Return whether the staff user may record what came to the bank."""
        return self.has_own_permission(request, "record_receipt")

    @admin.display(description=gettext_lazy("Invoice"))
    def invoice_link(self, row: Collection) -> SafeString | str:
        return link_to("invoices_invoice", row.invoice_id, str(row.invoice))

    @admin.display(description=gettext_lazy("Due"), ordering="invoice__due_at")
    def due(self, row: Collection) -> date | None:
        return due_on(row.invoice)

    @admin.display(description=gettext_lazy("Left to pay"))
    def outstanding(self, row: Collection) -> str:
        return grouped_minor(row.invoice.outstanding_minor(), row.invoice.currency)

    @admin.display(description=gettext_lazy("Next step"))
    def step(self, row: Collection) -> SafeString | str:
        if row.state == CollectionState.DONE:
            return "–"
        url = reverse("admin:payments_invoice_receipt", args=[row.invoice_id])
        return format_html('<a href="{}">{}</a>', url, _("Record a bank transfer…"))

    def receipt(self, request: HttpRequest, invoice_id: UUID) -> HttpResponse:
        """Ask what came to the bank for an invoice, and record it."""
        if not self.has_record_permission(request):
            raise PermissionDenied
        final = Invoice.objects.final().invoices().select_related("organization")
        invoice = get_object_or_404(final, pk=invoice_id)
        form = BankReceiptForm(request.POST or None)
        currency = invoice.currency
        asked = from_minor(invoice.outstanding_minor(), currency)

        def step() -> str:
            payments.record_bank_receipt(
                actor=staff_actor(request), invoice_id=invoice.pk, now=timezone.now(), **form.cleaned_data
            )
            left = invoice.outstanding_minor()
            more = (form.cleaned_data["amount"] or asked) - asked
            facts = {"currency": currency, "invoice": invoice}
            if left:
                message = _("Recorded. %(amount)s %(currency)s are left to pay on %(invoice)s.")
                return message % {**facts, "amount": grouped_minor(left, currency)}
            if more > 0:
                message = _(
                    "Invoice %(invoice)s is paid. The other %(amount)s %(currency)s go to what else is owed, "
                    "then become credit."
                )
                return message % {**facts, "amount": f"{more:,f}"}
            return _("Invoice %s is paid.") % invoice

        return take_step(
            self,
            request,
            row=invoice,
            row_url=reverse("admin:invoices_invoice_change", args=[invoice.pk]),
            title=_("Record a bank transfer"),
            form=form,
            step=step,
            subtitle=_("%(invoice)s of %(organization)s: %(amount)s %(currency)s are left to pay")
            % {
                "invoice": invoice,
                "organization": invoice.organization,
                "amount": grouped_minor(invoice.outstanding_minor(), currency),
                "currency": currency,
            },
        )
