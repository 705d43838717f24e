"""What narrows the invoices of a page."""

from __future__ import annotations

from django import forms
from django.core.validators import RegexValidator
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_filters import CharFilter, ChoiceFilter, FilterSet

from apps.invoices.models import Invoice, InvoiceState

_MONTH = {
    "widget": forms.TextInput(attrs={"type": "month", "placeholder": "2026-11"}),
    "validators": [RegexValidator(r"^\d{4}-(0[1-9]|1[0-2])$", _("Write a month as 2026-11."))],
}


class InvoiceFilters(FilterSet):
    """How an invoice stands, and its months; both are included."""

    state = ChoiceFilter(
        label=_("State"),
        empty_label=_("Any"),
        method="filter_state",
        choices=[
            (InvoiceState.DRAFT.value, _("Draft")),
            (InvoiceState.OPEN.value, _("To pay")),
            ("overdue", _("Overdue")),
            (InvoiceState.PAID.value, _("Paid")),
            (InvoiceState.UNCOLLECTIBLE.value, _("Written off")),
            (InvoiceState.CANCELLED.value, _("Cancelled")),
        ],
    )
    first = CharFilter(label=_("From month"), field_name="period__label", lookup_expr="gte", **_MONTH)
    last = CharFilter(label=_("To month"), field_name="period__label", lookup_expr="lte", **_MONTH)

    def filter_state(self, queryset: QuerySet[Invoice], _name: str, value: str) -> QuerySet[Invoice]:
        if value == "overdue":
            return queryset.filter(state=InvoiceState.OPEN, due_at__lte=timezone.now())
        return queryset.filter(state=value)

    class Meta:
        model = Invoice
        fields: tuple[str, ...] = ()
