"""Forms of the pages of payments; the services check the amounts."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from apps.core.forms import ChangeForm, OnceForm, PlainDecimalField
from apps.payments.models import Difference, RefundDestination


def _amount(label: Any, help_text: Any = "", *, required: bool = True) -> PlainDecimalField:
    return PlainDecimalField(
        required=required,
        label=label,
        help_text=help_text,
        max_digits=18,
        decimal_places=6,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )


class TopUpForm(forms.Form):
    """How much credit to buy."""

    amount = _amount(_("Amount"))


class AutoTopUpForm(ChangeForm):
    """When the default card is charged by itself."""

    threshold = _amount(_("When available credit falls below"))
    amount = _amount(_("Charge"))
    monthly_cap = _amount(_("At most in a month"))


class PayInvoiceForm(OnceForm):
    """How much of an invoice to pay; nothing means all that is left, or as much as the credit covers."""

    amount = _amount(_("Amount"), _("All that is left, or a part of it."), required=False)


class RefundForm(OnceForm):
    """What to ask back of a payment, and why."""

    amount = _amount(_("Amount"), _("All of that, unless you say less."), required=False)
    reason = forms.CharField(label=_("Why"), max_length=500)


class StaffRefundForm(OnceForm):
    """What staff give back of a payment, where to, and why."""

    amount = _amount(_("Amount"), _("All that can go back, unless you say less."), required=False)
    destination = forms.ChoiceField(
        label=_("Where to"),
        choices=RefundDestination.choices,
        help_text=_("To the card goes what is not spent. Credit can make up for what is."),
    )
    reason = forms.CharField(label=_("Why"), help_text=_("The customer reads it."), max_length=500)


class BankReceiptForm(forms.Form):
    """What came to the bank for an invoice."""

    amount = _amount(
        _("Amount"), _("All that is left to pay, unless you say another amount."), required=False
    )
    reference = forms.CharField(
        label=_("Reference"),
        help_text=_("The bank's reference of the transfer; it counts once."),
        max_length=200,
    )


class ResolveForm(forms.Form):
    """Which difference with Stripe stays as it is, and why."""

    difference = forms.ModelChoiceField(Difference.objects.all())
    reason = forms.CharField(max_length=500)
