"""Forms of the pages and of the staff admin; what they check, the services check again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apps.core import money
from apps.core.permissions import ROLE_PERMISSIONS, Role
from apps.organizations.models import Membership, Organization, OrganizationSlug
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


REVOKE = "revoke"


class InviteForm(forms.Form):
    """Whom to invite, and to which role."""

    email = forms.EmailField(label=_("E-mail address"))
    role = forms.ChoiceField(label=_("Role"))

    def __init__(self, *args: Any, own: Collection[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["role"].choices = _roles_within(own)  # type: ignore[attr-defined]
        self.fields["role"].initial = Role.DEVELOPER


class MemberForm(forms.Form):
    """What may be changed of a member. `until` becomes the moment at which the membership ends."""

    role = forms.ChoiceField(label=_("Role"))
    until = forms.DateField(
        label=_("Member until"),
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text=_("The last day, in the organization's time zone. Empty: without end."),
    )
    suspended = forms.BooleanField(
        label=_("Suspended"),
        required=False,
        help_text=_("Keeps the membership but blocks it: pages, logins over REST and the member's API keys."),
    )

    def __init__(self, *args: Any, member: Membership, own: Collection[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["role"].choices = _roles_within(own)  # type: ignore[attr-defined]
        self.initial = {
            "role": member.role,
            "until": member.expires_at and timezone.localdate(member.expires_at - timedelta(microseconds=1)),
            "suspended": member.suspended_at is not None,
        }

    def clean_until(self) -> datetime | None:
        last = self.cleaned_data["until"]
        if last is None:
            return None
        return timezone.make_aware(datetime.combine(last + timedelta(days=1), time()))


class LeaverForm(forms.Form):
    """What becomes of the API keys of somebody who leaves; `keys` becomes the heir, or None to revoke them."""

    keys = forms.ChoiceField(label=_("Their API keys"), widget=forms.RadioSelect, initial=REVOKE)

    def __init__(self, *args: Any, heirs: Sequence[Membership], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heirs = {str(heir.pk): heir for heir in heirs}
        hand_over = _("Hand over to %(name)s")
        self.fields["keys"].choices = [  # type: ignore[attr-defined]
            (REVOKE, _("Revoke at once")),
            *((pk, hand_over % {"name": heir.user.get_full_name()}) for pk, heir in self._heirs.items()),
        ]

    def clean_keys(self) -> Membership | None:
        return self._heirs.get(self.cleaned_data["keys"])


def _roles_within(own: Collection[str]) -> list[tuple[str, str]]:
    """Return the roles that have no permission beyond these."""
    return [(role.value, str(role.label)) for role in Role if ROLE_PERMISSIONS[role] <= set(own)]
