"""Forms of the pages about usage and money."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

DAYS_MAX = 400
HOURLY_DAYS_MAX = 14


class UsageForm(forms.Form):
    """What the explorer shows; both days are included, in the organization's time zone."""

    first = forms.DateField(label=_("From"), widget=forms.DateInput(attrs={"type": "date"}))
    last = forms.DateField(label=_("To"), widget=forms.DateInput(attrs={"type": "date"}))
    group = forms.ChoiceField(
        label=_("By"),
        choices=[
            ("sku", _("SKU")),
            ("project", _("Project")),
            ("region", _("Region")),
            ("credential", _("API key")),
            ("resource", _("Resource")),
        ],
    )
    interval = forms.ChoiceField(
        label=_("Each"), choices=[("day", _("day")), ("hour", _("hour")), ("month", _("month"))]
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        first, last = cleaned.get("first"), cleaned.get("last")
        if first is None or last is None:
            return cleaned
        if last < first:
            self.add_error("last", _("This lies before the first day."))
        elif (last - first).days >= DAYS_MAX:
            self.add_error("first", _("At most %(days)d days at once.") % {"days": DAYS_MAX})
        elif cleaned.get("interval") == "hour" and (last - first).days >= HOURLY_DAYS_MAX:
            self.add_error("interval", _("By hour at most %(days)d days.") % {"days": HOURLY_DAYS_MAX})
        return cleaned

    def range(self) -> tuple[datetime, datetime]:
        """Return the days as a half-open range of moments."""
        return _midnight(self.cleaned_data["first"]), _midnight(self.cleaned_data["last"] + timedelta(days=1))


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


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time()))
