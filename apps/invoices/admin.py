"""Invoices in the staff admin: to read, down to the charge key of each line."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from apps.core.money import from_micros, from_minor, plain
from apps.core.staff import ReadOnlyAdmin, link_to, list_link
from apps.invoices.models import Invoice, InvoiceCounter, InvoiceLine, InvoicePayment, PeriodClose


def _amount(field: str, description: Any) -> Any:
    @admin.display(description=description, ordering=f"{field}_minor")
    def shown(_admin: object, row: Invoice) -> str:
        return f"{from_minor(getattr(row, f'{field}_minor'), row.currency):,f}"

    return shown


class LineInline(admin.TabularInline):  # type: ignore[type-arg]
    model = InvoiceLine
    fields = ("position", "kind", "usage_period", "key_link", "counted", "price", "amount", "discount")
    readonly_fields = fields
    ordering = ("position",)
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 (Django's signature)
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    @admin.display(description=_("Charge key"))
    def key_link(self, line: InvoiceLine) -> SafeString | str:
        return link_to("billing_chargekey", line.key_id, str(line))

    @admin.display(description=_("Counted"))
    def counted(self, line: InvoiceLine) -> str:
        return plain(line.quantity)

    @admin.display(description=_("Unit price"))
    def price(self, line: InvoiceLine) -> str:
        return "–" if line.unit_price is None else plain(line.unit_price, decimals_min=2)

    @admin.display(description=_("Amount"))
    def amount(self, line: InvoiceLine) -> str:
        return f"{from_minor(line.amount_minor, line.invoice.currency):,f}"

    @admin.display(description=_("Discount"))
    def discount(self, line: InvoiceLine) -> str:
        return f"{from_minor(line.discount_minor, line.invoice.currency):,f}"


class PaymentInline(admin.TabularInline):  # type: ignore[type-arg]
    model = InvoicePayment
    fields = readonly_fields = ("paid_at", "amount", "transfers")
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 (Django's signature)
        return False

    @admin.display(description=_("Amount"))
    def amount(self, payment: InvoicePayment) -> str:
        return f"{from_micros(payment.amount_micros):,f}"

    @admin.display(description=_("Ledger"))
    def transfers(self, payment: InvoicePayment) -> SafeString:
        return list_link("ledger_transfer", str(_("Transfers")), q=payment.batch_id)


@admin.register(Invoice)
class InvoiceAdmin(ReadOnlyAdmin):
    list_display = (
        "title", "organization_link", "period", "state", "subtotal", "discount", "total", "due", "currency",
        "finalized_at",
    )  # fmt: skip
    list_display_links = ("title",)
    list_filter = ("state", "currency", "period__label")
    list_select_related = ("organization", "period")
    search_fields = ("number", "id", "organization__slug", "organization__name")
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    fieldsets = (
        (None, {"fields": ("title", "organization_link", "period", "state")}),
        (_("Amounts"), {"fields": ("currency", "subtotal", "discount", "tax", "total", "due")}),
        (_("Dates"), {"fields": ("drafted_at", "finalized_at", "created_at")}),
    )
    inlines = (LineInline, PaymentInline)

    subtotal = _amount("subtotal", _("Subtotal"))
    discount = _amount("discount", _("Discount"))
    tax = _amount("tax", _("Tax"))
    total = _amount("total", _("Total"))
    due = _amount("due", _("Due"))

    @admin.display(description=_("Number"), ordering="number")
    def title(self, invoice: Invoice) -> str:
        return invoice.number or str(_("Draft"))

    @admin.display(description=_("Organization"), ordering="organization__slug")
    def organization_link(self, invoice: Invoice) -> SafeString | str:
        return link_to("organizations_organization", invoice.organization_id, invoice.organization.slug)


@admin.register(PeriodClose)
class PeriodCloseAdmin(ReadOnlyAdmin):
    list_display = ("closed_at", "organization", "period", "invoice_link", "closed_by")
    list_select_related = ("organization", "period", "invoice")
    search_fields = ("organization__slug", "period__label", "invoice__number")
    ordering = ("-closed_at", "-id")

    @admin.display(description=_("Invoice"))
    def invoice_link(self, close: PeriodClose) -> SafeString | str:
        return link_to("invoices_invoice", close.invoice_id, str(close.invoice))


@admin.register(InvoiceCounter)
class InvoiceCounterAdmin(ReadOnlyAdmin):
    list_display = ("entity", "series", "year", "last_number")
    ordering = ("entity", "series", "-year")
