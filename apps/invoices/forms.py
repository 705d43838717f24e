"""Forms of the staff admin and the portal; what they check, the services check again."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from apps.core import money, periods
from apps.core.forms import OnceForm, PlainDecimalField, read_addresses
from apps.invoices.models import Invoice, SellerEntity, TaxExemption, TaxRate


class ReasonForm(forms.Form):
    """Why a step is taken; it is kept."""

    reason = forms.CharField(label=_("Reason"), max_length=500, widget=forms.Textarea(attrs={"rows": 3}))


class CorrectionForm(ReasonForm):
    """Why an invoice is corrected."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].help_text = _("The customer reads it, on the document or on the statement.")


class ConfirmForm(forms.Form):
    """A step that needs no word."""


class SendForm(forms.Form):
    """Where a document goes; `to` becomes a list of addresses."""

    to = forms.CharField(
        label=_("To"),
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_(
            "One address in each line, at most 10. The mail links to the document; it opens for members."
        ),
    )

    def clean_to(self) -> list[str]:
        return read_addresses(self.cleaned_data["to"])


class CreditForm(CorrectionForm, OnceForm):
    """How much of an invoice to waive: an amount with tax, net amounts of lines, or all that is left."""

    amount = PlainDecimalField(
        label=_("Amount with tax"),
        required=False,
        min_value=Decimal("0.001"),
        help_text=_("Empty, with no line filled in: all that is left."),
    )

    def __init__(self, *args: Any, invoice: Invoice, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.currency = invoice.currency
        self.lines = list(invoice.lines.order_by("position"))
        for line in self.lines:
            net = money.from_minor(line.amount_minor - line.discount_minor, self.currency)
            if net > 0:
                self.fields[f"line_{line.position}"] = PlainDecimalField(
                    label=_("Net of line %(position)s, %(name)s")
                    % {"position": line.position, "name": f"{line.sku or line.meter} {line.region}"},
                    required=False,
                    min_value=Decimal("0.001"),
                    max_value=net,
                    help_text=_("Up to %s, less what was credited before.") % f"{net:,f}",
                )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        given = [name for name in self.fields if name.startswith("line_") and cleaned.get(name)]
        if cleaned.get("amount") and given:
            raise forms.ValidationError(_("Give an amount or net amounts of lines, not both."))
        for name in ("amount", *given):
            value = cleaned.get(name)
            if value and -value.as_tuple().exponent > money.exponent(self.currency):
                self.add_error(name, _("This is finer than the currency's smallest unit."))
        return cleaned

    def what(self) -> dict[str, Any]:
        """Return the amounts as arguments of `credit_invoice`."""
        amount = self.cleaned_data.get("amount")
        nets = {
            line.id: self._minor(value)
            for line in self.lines
            if (value := self.cleaned_data.get(f"line_{line.position}"))
        }
        if nets:
            return {"lines_minor": nets}
        return {"amount_minor": self._minor(amount)} if amount else {}

    def _minor(self, amount: Decimal) -> int:
        return int(amount.scaleb(money.exponent(self.currency)))


class ServiceForm(forms.ModelForm):
    """A row that a service writes: it says in words what the table's constraints refuse."""

    def validate_constraints(self) -> None:
        """Leave the constraints to the service."""


class SellerForm(ServiceForm):
    """A legal entity that issues invoices."""

    timezone = forms.ChoiceField(
        label=_("Time zone"), choices=lambda: [(name, name) for name in sorted(periods.zone_names())]
    )
    tax_registrations = forms.CharField(
        label=_("Registered for tax in"),
        required=False,
        help_text=_("Countries besides its own, by code, with commas; EU for the One-Stop Shop."),
    )

    class Meta:
        model = SellerEntity
        fields = (
            "code", "legal_name", "line1", "line2", "postal_code", "city", "region", "country", "vat_id", "tax_number",
            "registration_number", "tax_registrations", "email", "website", "account_holder", "bank_name", "iban",
            "bic", "payment_days", "terms", "timezone", "invoice_series", "credit_note_series", "logo",
        )  # fmt: skip
        help_texts = {
            "code": _("`default` sells to every organization that has no other seller."),
            "logo": _("SVG source of plain shapes, up to 100 kB."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["tax_registrations"] = ", ".join(self.instance.tax_registrations)

    def clean_tax_registrations(self) -> list[str]:
        return [part.strip() for part in self.cleaned_data["tax_registrations"].split(",") if part.strip()]


class TaxRateForm(ServiceForm):
    """A rate from a day on."""

    class Meta:
        model = TaxRate
        fields = ("country", "region", "percent", "effective_from", "source")
        help_texts = {
            "region": _("As customers write it in their address; empty for the rest of the country."),
            "source": _("Where the rate comes from, such as a law."),
        }


class TaxExemptionForm(ServiceForm):
    """A certificate that frees an organization from one country's tax."""

    class Meta:
        model = TaxExemption
        fields = ("organization", "country", "certificate", "reason", "valid_from", "valid_until")
        help_texts = {
            "country": _("Whose tax it frees from, by code."),
            "valid_until": _("The first day without it; empty while no end is known."),
        }
