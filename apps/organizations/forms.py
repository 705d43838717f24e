"""Forms of the pages and of the staff admin; what they check, the services check again."""

from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from apps.core import money
from apps.organizations.models import Organization, OrganizationSlug
from apps.organizations.services import wrong_name, wrong_organization_slug


class OrganizationForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new organization."""

    slug = forms.CharField(
        label=_("Slug"),
        required=False,
        help_text=_("Empty: made from the name. A slug is never issued twice."),
    )
    timezone = forms.ChoiceField(
        label=_("Time zone"),
        initial="UTC",
        choices=lambda: [(name, name) for name in sorted(available_timezones())],
    )

    class Meta:
        model = Organization
        fields = ("name", "slug", "currency", "timezone", "billing_email")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["currency"].initial = settings.DEFAULT_CURRENCY

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if problem := wrong_name(name):
            raise forms.ValidationError(str(problem))
        return name

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        if slug and (problem := wrong_organization_slug(slug)):
            raise forms.ValidationError(str(problem))
        if OrganizationSlug.objects.filter(slug=slug).exists():
            raise forms.ValidationError(_("This slug is taken. Choose another one."))
        return slug

    def clean_currency(self) -> str:
        currency: str = self.cleaned_data["currency"]
        if not money.is_currency(currency):
            raise forms.ValidationError(_("This is not an ISO 4217 currency code."))
        return currency

    def _post_clean(self) -> None:
        """Skip the model's own checks: they know nothing of a slug that the service still has to make."""


class NewOrganizationForm(forms.Form):
    """A new organization, as the person who makes it names it."""

    name = forms.CharField(
        label=_("Name"), help_text=_("As your colleagues and your invoices know it. You can change it later.")
    )
    slug = forms.CharField(
        label=_("Slug"),
        required=False,
        help_text=_("In addresses and in usage events, such as acme-research. Empty: made from the name."),
    )
