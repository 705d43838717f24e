"""The forms of billing's pages."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _


class SpendGuardForm(forms.Form):
    """What staff decide about an organization's spending."""

    credit_limit = forms.DecimalField(
        label=_("Credit limit"),
        max_digits=16,
        decimal_places=6,
        min_value=0,
        help_text=_("What may be owed before new usage is blocked. Only for plans that pay by invoice."),
    )
    warn_below = forms.DecimalField(
        label=_("Warn below"),
        max_digits=16,
        decimal_places=6,
        min_value=0,
        help_text=_("Credit at or below it is low, besides when it lasts no longer than a day."),
    )
    blocked = forms.BooleanField(
        label=_("Block new usage"), required=False, help_text=_("Whatever the credit. What runs goes on.")
    )
    reason = forms.CharField(label=_("Reason"), max_length=500)
