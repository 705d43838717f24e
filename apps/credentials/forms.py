"""Forms of the staff admin; what they check, the services check again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apps.core.errors import ValidationFailed
from apps.core.permissions import IntegrationScope, Permission
from apps.credentials.models import Integration
from apps.credentials.services import parse_networks

SCOPES = [
    (_("Integrations"), [(scope.value, scope.value) for scope in IntegrationScope]),
    (_("In the organization that a request names"), [(each.value, each.value) for each in Permission]),
]


class IntegrationForm(forms.ModelForm):  # type: ignore[type-arg]
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

    def save(self, commit: bool = True) -> Any:  # noqa: ARG002  Django's signature.
        """Return the instance; the admin's `save_model` calls the service."""
        return self.instance

    def save_m2m(self) -> None:
        """Nothing to save: there are no related rows."""
