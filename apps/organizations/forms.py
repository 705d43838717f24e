"""Forms of the pages and of the staff admin; what they check, the services check again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, time, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apps.core import countries, money, periods
from apps.core.forms import ChangeForm, NamedForm, offer_choices, read_addresses
from apps.core.permissions import ROLE_PERMISSIONS, Role
from apps.organizations.models import BillingProfile, Membership, Organization, OrganizationSlug
from apps.organizations.services import wrong_name, wrong_organization_slug


class OrganizationForm(forms.ModelForm):
    """A new organization."""

    slug = forms.CharField(
        label=_("Slug"),
        required=False,
        help_text=_("Empty: made from the name. A slug is never issued twice."),
    )
    timezone = forms.ChoiceField(
        label=_("Time zone"),
        initial="UTC",
        choices=lambda: [(name, name) for name in sorted(periods.zone_names())],
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
        offer_choices(self, "role", _roles_within(own))
        self.fields["role"].initial = Role.DEVELOPER


class MemberForm(ChangeForm):
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
        offer_choices(self, "role", _roles_within(own))
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


class LeaverForm(NamedForm):
    """What becomes of the API keys of somebody who leaves, if they have any; see `heir`.

    heirs: who could take them, None where there are none. name: of the member who is removed, or of the organization
    that is left.
    """

    keys = forms.ChoiceField(label=_("Their API keys"), widget=forms.RadioSelect, initial=REVOKE)
    field_order = ("keys", "typed")

    def __init__(
        self, *args: Any, heirs: Sequence[Membership] | None, label: str = "", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if heirs is None:
            del self.fields["keys"]
            return
        self.fields["keys"].label = label or self.fields["keys"].label
        self._heirs = {str(heir.pk): heir for heir in heirs}
        hand_over = _("Hand over to %(name)s")
        offer_choices(
            self,
            "keys",
            [
                (REVOKE, _("Revoke at once")),
                *((pk, hand_over % {"name": heir.user.get_full_name()}) for pk, heir in self._heirs.items()),
            ],
        )

    def clean_keys(self) -> Membership | None:
        return self._heirs.get(self.cleaned_data["keys"])

    @property
    def heir(self) -> Membership | None:
        """Who takes the keys; None to revoke whatever there is."""
        return self.cleaned_data.get("keys")


def _roles_within(own: Collection[str]) -> list[tuple[str, str]]:
    """Return the roles that have no permission beyond these."""
    return [(role.value, str(role.label)) for role in Role if ROLE_PERMISSIONS[role] <= set(own)]


class NewProjectForm(forms.Form):
    """A new project."""

    name = forms.CharField(label=_("Name"))
    slug = forms.CharField(
        label=_("Slug"),
        required=False,
        help_text=_("As usage events name it, for good. Empty: from the name."),
    )


class ProjectForm(ChangeForm):
    """What may be changed of a project."""

    name = forms.CharField(label=_("Name"))
    archived = forms.BooleanField(
        label=_("Archived"),
        required=False,
        help_text=_("No new keys are made for it; usage that names it still counts."),
    )


class SettingsForm(ChangeForm):
    """What an organization is called and where."""

    name = forms.CharField(label=_("Name"))
    slug = forms.CharField(
        label=_("Slug"), help_text=_("In addresses and usage events. The old one stays yours and leads here.")
    )
    billing_email = forms.EmailField(
        label=_("Billing e-mail"), required=False, help_text=_("Where questions about money go.")
    )
    timezone = forms.ChoiceField(
        label=_("Time zone"),
        choices=lambda: [(name, name) for name in sorted(periods.zone_names())],
        help_text=_(
            "In which months end and pages tell the time. A change begins with the running month's end."
        ),
    )


class BillingDetailsForm(ChangeForm):
    """Who invoices are made out to; `billing_emails` becomes a list."""

    legal_name = forms.CharField(label=_("Legal name"), required=False, max_length=200)
    line1 = forms.CharField(label=_("Street and number"), required=False, max_length=200)
    line2 = forms.CharField(label=_("Address, second line"), required=False, max_length=200)
    postal_code = forms.CharField(label=_("Postal code"), required=False, max_length=20)
    city = forms.CharField(label=_("City"), required=False, max_length=100)
    region = forms.CharField(label=_("State or region"), required=False, max_length=100)
    country = forms.ChoiceField(
        label=_("Country"), required=False, choices=lambda: [("", _("Choose …")), *countries.all_countries()]
    )
    vat_id = forms.CharField(
        label=_("VAT id"),
        required=False,
        max_length=32,
        help_text=_("With it, an invoice across a border of the European Union leaves the tax to you."),
    )
    billing_emails = forms.CharField(
        label=_("Invoices go to"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_("One address in each line."),
    )
    po_number = forms.CharField(
        label=_("Purchase order"), required=False, max_length=60, help_text=_("Printed on each invoice.")
    )

    def __init__(self, *args: Any, profile: BillingProfile, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial = {name: getattr(profile, name) for name in self.fields}
        self.initial["billing_emails"] = "\n".join(profile.billing_emails)

    def clean_billing_emails(self) -> list[str]:
        return read_addresses(self.cleaned_data["billing_emails"])


class TransferForm(forms.Form):
    """The member who is to own the organization; `member` becomes the membership."""

    member = forms.ChoiceField(label=_("New owner"))

    def __init__(self, *args: Any, members: Sequence[Membership], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._members = {str(row.pk): row for row in members}
        offer_choices(
            self,
            "member",
            [
                ("", _("Choose …")),
                *(
                    (pk, f"{row.user.get_full_name()} ({row.get_role_display()})")
                    for pk, row in self._members.items()
                ),
            ],
        )

    def clean_member(self) -> Membership:
        return self._members[self.cleaned_data["member"]]


class TimeZoneForm(forms.Form):
    """Another time zone of an organization, and why staff change it."""

    timezone = forms.ChoiceField(
        label=_("Time zone"),
        choices=lambda: [(name, name) for name in sorted(periods.zone_names())],
        help_text=_(
            "Months that are over keep their ends; a running one whose new end is past keeps its own."
        ),
    )
    reason = forms.CharField(label=_("Reason"), max_length=500, widget=forms.Textarea(attrs={"rows": 2}))
