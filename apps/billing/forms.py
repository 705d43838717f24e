"""Forms of the pages about usage and money."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apps.billing.models import Pot
from apps.billing.models.budgets import NAME_LENGTH_MAX
from apps.billing.usage import DAYS_MAX
from apps.core.forms import ChangeForm, OnceForm, PlainDecimalField, offer_choices
from apps.credentials.models import ApiKey
from apps.organizations.models import Project

HOURLY_DAYS_MAX = 14  # More hours than these cannot be told apart in a chart.


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
            message = _("Hours are shown of at most %(days)d days. Choose fewer days, or each day.")
            self.add_error("interval", message % {"days": HOURLY_DAYS_MAX})
        return cleaned

    def range(self) -> tuple[datetime, datetime]:
        """Return the days as a half-open range of moments."""
        return _midnight(self.cleaned_data["first"]), _midnight(self.cleaned_data["last"] + timedelta(days=1))


class SpendGuardForm(forms.Form):
    """What staff decide about an organization's spending."""

    credit_limit = PlainDecimalField(
        label=_("Credit limit"),
        max_digits=16,
        decimal_places=6,
        min_value=0,
        help_text=_("What may be owed before new usage is blocked. Only for plans that pay by invoice."),
    )
    warn_below = PlainDecimalField(
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


class GrantForm(OnceForm):
    """Credit that staff give an organization."""

    pot = forms.ChoiceField(
        label=_("Pot"),
        choices=Pot.choices,
        initial=Pot.PROMO,
        help_text=_("Paid is money that came to the bank: it settles what is owed first."),
    )
    amount = PlainDecimalField(label=_("Amount"), max_digits=16, decimal_places=6)
    expires_at = forms.DateTimeField(
        label=_("Ends"),
        required=False,
        help_text=_("A whole UTC hour, such as 2027-01-31 00:00. Empty: never."),
    )
    priority = forms.IntegerField(
        label=_("Priority"), initial=50, min_value=0, max_value=100, help_text=_("0 burns first, 100 last.")
    )
    reason = forms.CharField(
        label=_("Reason"), max_length=255, help_text=_("The customer reads it on their statement.")
    )


class WithdrawForm(OnceForm):
    """Credit that staff take back."""

    amount = PlainDecimalField(
        label=_("Amount"),
        max_digits=16,
        decimal_places=6,
        required=False,
        help_text=_("Empty: all that is left."),
    )
    reason = forms.CharField(
        label=_("Reason"), max_length=255, help_text=_("The customer reads it on their statement.")
    )


class _BudgetFields(forms.Form):
    """What a budget says."""

    name = forms.CharField(label=_("Name"), max_length=NAME_LENGTH_MAX)
    amount = PlainDecimalField(
        label=_("Amount a month"), max_digits=16, decimal_places=6, help_text=_("Net of tax.")
    )
    thresholds = forms.CharField(
        label=_("Tell us at"), initial="50, 80, 100", help_text=_("Percent of the amount, once a month each.")
    )
    blocks = forms.BooleanField(
        label=_("Block new usage when it is used up"), required=False, help_text=_("What runs goes on.")
    )

    def clean_thresholds(self) -> list[int]:
        """Return the percents that were written, however they are separated."""
        texts = self.cleaned_data["thresholds"].replace("%", " ").replace(",", " ").split()
        if not all(text.isascii() and text.isdecimal() and len(text) <= 4 for text in texts):
            raise forms.ValidationError(_("Write whole percents, such as 50, 80, 100."))
        return [int(text) for text in texts]


class BudgetChangeForm(_BudgetFields, ChangeForm):
    """What can be changed of a budget."""


class BudgetForm(_BudgetFields):
    """A new budget. about: empty for the organization, else a project's or a key's id."""

    about = forms.ChoiceField(label=_("Counts the spending of"), required=False)
    field_order = ("name", "about", "amount", "thresholds", "blocks")

    def __init__(
        self, *arguments: Any, projects: Iterable[Project], keys: Iterable[ApiKey], **more: Any
    ) -> None:
        super().__init__(*arguments, **more)
        self.projects = {f"project:{project.pk}": project for project in projects}
        self.keys = {f"key:{key.pk}": key for key in keys}
        choices: list[Any] = [("", _("the whole organization"))]
        if self.projects:
            choices.append((_("Project"), [(value, row.slug) for value, row in self.projects.items()]))
        if self.keys:
            choices.append((_("API key"), [(value, row.name) for value, row in self.keys.items()]))
        offer_choices(self, "about", choices)


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time()))
