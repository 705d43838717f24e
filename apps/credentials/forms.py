"""Forms of the pages and of the staff admin; what they check, the services check again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.core.errors import ValidationFailed
from apps.core.forms import ChangeForm, OnceForm, offer_choices, offer_rows
from apps.core.permissions import IntegrationScope, Permission
from apps.credentials.models import Integration
from apps.credentials.scopes import PEOPLE_ONLY, SCOPE_PURPOSES
from apps.credentials.services import parse_networks
from apps.organizations.models import Project

SCOPES = [
    (_("Integrations"), [(scope.value, scope.value) for scope in IntegrationScope]),
    (_("In the organization that a request names"), [(each.value, each.value) for each in Permission]),
]


class IntegrationForm(OnceForm, forms.ModelForm):
    """A new integration."""

    scopes = forms.MultipleChoiceField(label=_("Scopes"), choices=SCOPES, widget=forms.CheckboxSelectMultiple)
    allowed_addresses = forms.CharField(
        label=_("Allowed addresses"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("One address or network in each line, such as 203.0.113.0/24. Empty: any."),
    )

    class Meta:
        model = Integration
        fields = ("name", "scopes", "allowed_addresses", "expires_at")

    def clean_allowed_addresses(self) -> list[str]:
        try:
            return parse_networks(self.cleaned_data["allowed_addresses"].split())
        except ValidationFailed as refusal:
            raise forms.ValidationError([field.message for field in refusal.fields]) from refusal

    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise forms.ValidationError(_("The end must lie in the future."))
        return expires_at

    def _post_clean(self) -> None:
        """Skip the model's own checks: they know nothing of the secret that the service makes."""

    def save(self, commit: bool = True) -> Any:
        """Return the instance; the admin's `save_model` calls the service."""
        return self.instance

    def save_m2m(self) -> None:
        """Nothing to save: there are no related rows."""


# What a key's scopes are about, in the order of the page.
SCOPE_GROUPS: tuple[tuple[str | Promise, tuple[str, ...]], ...] = (
    (_("Usage and projects"), ("usage", "projects", "quotas")),
    (_("Money"), ("billing", "budgets")),
    (_("Keys"), ("api_keys",)),
    (_("The organization"), ("organization", "members", "audit")),
)


def _as_days(text: str) -> int | None:
    return int(text) if text else None


class KeyForm(OnceForm):
    """A new key: `days` until it expires, None for never."""

    name = forms.CharField(label=_("Name"), help_text=_("What will use it, such as training-cluster."))
    scopes = forms.MultipleChoiceField(label=_("What it may do"), widget=forms.CheckboxSelectMultiple)
    days = forms.TypedChoiceField(
        label=_("Expires"),
        choices=[
            ("7", _("in 7 days")),
            ("30", _("in 30 days")),
            ("90", _("in 90 days")),
            ("365", _("in a year")),
            ("", _("never")),
        ],
        coerce=_as_days,
        empty_value=None,
        required=False,
        initial="90",
    )
    project: forms.ModelChoiceField[Project] = forms.ModelChoiceField(
        label=_("Project"), queryset=None, required=False, to_field_name="slug", empty_label=_("none")
    )
    allowed_ips = forms.CharField(
        label=_("Allowed addresses"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_("One address or network in each line, such as 203.0.113.0/24. Empty: any."),
    )

    def __init__(self, *args: Any, own: Collection[str], projects: QuerySet[Project], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._offered = [scope for scope in Permission if scope in own and scope not in PEOPLE_ONLY]
        offer_choices(self, "scopes", [(str(scope), str(scope)) for scope in self._offered])
        offer_rows(self, "project", projects)

    def scope_groups(self) -> Iterator[tuple[str | Promise, list[tuple[str, str | Promise, bool]]]]:
        """Yield each group with its scopes: name, what it means, and whether it is ticked."""
        ticked = set(self["scopes"].value() or ())
        for label, resources in SCOPE_GROUPS:
            scopes = [scope for scope in self._offered if scope.split(".")[0] in resources]
            if scopes:
                yield label, [(str(scope), SCOPE_PURPOSES[scope], str(scope) in ticked) for scope in scopes]


class KeyChangeForm(ChangeForm):
    """What may be changed of a key."""

    name = forms.CharField(label=_("Name"))
    is_active = forms.BooleanField(
        label=_("On"), required=False, help_text=_("Off, it is refused until it is switched on again.")
    )


class RotateForm(OnceForm):
    """How many hours the old secret works on."""

    hours = forms.TypedChoiceField(
        label=_("The old secret works"),
        choices=[
            ("0", _("no longer")),
            ("1", _("for another hour")),
            ("24", _("for another day")),
            ("168", _("for another 7 days")),
        ],
        coerce=int,
        initial="24",
        help_text=_("Long enough to put the new one wherever the old one is."),
    )
