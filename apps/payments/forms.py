"""Forms of the pages of payments; the services check the amounts."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _


def _amount(label: Any, help_text: Any = "") -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        help_text=help_text,
        max_digits=18,
        decimal_places=6,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )


class TopUpForm(forms.Form):
    """How much credit to buy."""

    amount = _amount(_("Amount"))


class AutoTopUpForm(forms.Form):
    """When the default card is charged by itself."""

    threshold = _amount(_("When available credit falls below"))
    amount = _amount(_("Charge"))
    monthly_cap = _amount(_("At most in a month"))


class RefundForm(forms.Form):
    """What to ask back of a payment, and why."""

    amount = _amount(_("Amount"))
    reason = forms.CharField(label=_("Why"), max_length=500)
