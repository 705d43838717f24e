"""The form that narrows the audit log."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _


class AuditForm(forms.Form):
    """Who, what and when; both days are included, in the organization's time zone."""

    who = forms.CharField(
        label=_("Who"), required=False, max_length=254, widget=forms.TextInput(attrs={"type": "search"})
    )
    what = forms.CharField(
        label=_("What"),
        required=False,
        max_length=64,
        widget=forms.TextInput(attrs={"placeholder": "api_key.created", "type": "search"}),
    )
    first = forms.DateField(label=_("From"), required=False, widget=forms.DateInput(attrs={"type": "date"}))
    last = forms.DateField(label=_("To"), required=False, widget=forms.DateInput(attrs={"type": "date"}))
