"""Pages: an organization's own facts, its billing details, its MFA policy, handing it over and deleting it."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from apps.core.countries import EU_MEMBERS
from apps.core.forms import NamedForm
from apps.core.http.pages import FormMixin, OrganizationPage, Undo
from apps.core.http.views import AUTHENTICATED
from apps.core.permissions import Permission
from apps.organizations import selectors
from apps.organizations import services as organizations
from apps.organizations.forms import BillingDetailsForm, SettingsForm, TransferForm
from apps.organizations.models import BillingProfile


class Settings(FormMixin, OrganizationPage):
    """Name, slug, billing address and time zone; and the ways to what is more serious."""

    permission = {"GET": Permission.ORGANIZATION_READ, "POST": Permission.ORGANIZATION_UPDATE}
    section = "settings"
    template_name = "organizations/settings.html"
    form_class = SettingsForm

    def form_arguments(self) -> dict[str, Any]:
        """Show the organization as it is."""
        names = ("name", "slug", "billing_email", "timezone")
        return {"initial": {name: getattr(self.organization, name) for name in names}}

    def context(self) -> dict[str, Any]:
        """Say who would be stopped by the MFA policy."""
        shown: dict[str, Any] = {"offer": selectors.offer_of(self.organization, now=self.now)}
        if self.actor.can(Permission.MEMBERS_READ):
            shown["unprotected"] = selectors.members_without_second_factor(self.organization, now=self.now)
        return shown

    def act(self, form: Any) -> HttpResponse:
        """Change what is different; a new slug leads to the new address."""
        changes = form.changes()
        self.organization = organizations.change_organization(
            actor=self.actor, organization=self.organization, now=self.now, **changes
        )
        # A slug that was given up stays so: it may be in addresses that others keep.
        undo = None if "slug" in changes else self.undo(form)
        return self.done(_("The settings are saved."), to=self.url("settings"), undo=undo)


class SecondFactorPolicy(OrganizationPage):
    """Whether members need a second factor."""

    permission = Permission.ORGANIZATION_UPDATE
    step_up = frozenset({"POST"})
    section = "settings"

    def post(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        """Require it from the end of a grace period on, or no longer."""
        required = request.POST.get("require") == "yes"
        organizations.change_organization(
            actor=self.actor, organization=self.organization, require_mfa=required, now=self.now
        )
        said = (
            _("Members have 7 days to set up a second factor.")
            if required
            else _("A password is enough now.")
        )
        # Requiring it again would begin another grace, so only the requirement itself is taken back.
        undo = Undo(url=request.path, fields={"require": "no"}) if required else None
        return self.done(said, undo=undo)

    def back_url(self) -> str:
        """Return the settings."""
        return self.url("settings")


class BillingDetails(FormMixin, OrganizationPage):
    """Who invoices are made out to."""

    permission = {"GET": Permission.BILLING_READ, "POST": Permission.BILLING_MANAGE}
    section = "settings"
    template_name = "organizations/billing_details.html"
    form_class = BillingDetailsForm

    def form_arguments(self) -> dict[str, Any]:
        """Show the profile as it is."""
        return {"profile": self._profile()}

    def context(self) -> dict[str, Any]:
        """Return the profile, with what the registry says of the VAT id."""
        profile = self._profile()
        return {"profile": profile, "is_in_registry": profile.country in EU_MEMBERS}

    def act(self, form: Any) -> HttpResponse:
        """Save it; invoices that are final keep what they say."""
        organizations.change_billing_profile(
            actor=self.actor, organization=self.organization, now=self.now, **form.changes()
        )
        message = _("The next invoice says this.")
        return self.done(message, to=self.url("billing-details"), undo=self.undo(form))

    def _profile(self) -> BillingProfile:
        found = BillingProfile.objects.filter(organization=self.organization).first()
        return found or BillingProfile(organization=self.organization)


class Transfer(FormMixin, OrganizationPage):
    """Offering the ownership to another member, and taking the offer back."""

    permission = Permission.ORGANIZATION_TRANSFER
    step_up = frozenset({"POST"})
    section = "settings"
    template_name = "organizations/transfer.html"
    form_class = TransferForm

    def form_arguments(self) -> dict[str, Any]:
        """Offer the other members."""
        return {"members": selectors.other_members(self.actor, now=self.now)}

    def context(self) -> dict[str, Any]:
        """Return the offer that waits, if there is one, and whether there is anybody to make one to."""
        return {
            "offer": selectors.offer_of(self.organization, now=self.now),
            "has_others": bool(self.form_arguments()["members"]),
        }

    def act(self, form: Any) -> HttpResponse:
        """Offer it."""
        offer = organizations.offer_ownership(
            actor=self.actor, membership=form.cleaned_data["member"], now=self.now
        )
        name = offer.member.user.get_full_name()
        return self.done(_("%(name)s has 7 days to accept.") % {"name": name}, to=self.url("transfer"))


class WithdrawTransfer(OrganizationPage):
    """Taking the offer of ownership back."""

    permission = Permission.ORGANIZATION_TRANSFER
    section = "settings"

    def post(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        """Withdraw it."""
        organizations.withdraw_offer(actor=self.actor, organization=self.organization, now=self.now)
        return self.done(_("The offer is taken back."), to=self.url("transfer"))


class AcceptTransfer(OrganizationPage):
    """Becoming the owner, by an offer to oneself; for anybody else, and later, the page says that there is none."""

    permission = AUTHENTICATED
    step_up = frozenset({"POST"})
    template_name = "organizations/accept_transfer.html"
    missing_template_name = "organizations/offer_gone.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        """Say what accepting does."""
        offer = selectors.offer_of(self.organization, now=self.now)
        if offer is None or offer.member.user_id != self.actor.id:
            raise Http404
        return self.render({"offer": offer})

    def post(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        """Accept."""
        organizations.accept_ownership(actor=self.actor, organization=self.organization, now=self.now)
        said = _("You own %(name)s now.") % {"name": self.organization.name}
        return self.done(said, to=self.url("overview"))


class DeclineTransfer(OrganizationPage):
    """Declining the offer."""

    permission = AUTHENTICATED

    def post(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        """Decline; whoever offered it is told."""
        organizations.decline_ownership(actor=self.actor, organization=self.organization, now=self.now)
        return self.done(_("You declined. Nothing has changed."), to=self.url("overview"))


class Deletion(FormMixin, OrganizationPage):
    """Deleting the organization, with its name typed."""

    permission = Permission.ORGANIZATION_DELETE
    step_up = frozenset({"POST"})
    section = "settings"
    template_name = "organizations/deletion.html"
    form_class = NamedForm

    def form_arguments(self) -> dict[str, Any]:
        """Say which name is to be typed."""
        return {"name": self.organization.name}

    def context(self) -> dict[str, Any]:
        """Return what stands against it, each with the page where it is settled."""
        usage, invoices, payments = self.url("usage"), self.url("invoices"), self.url("payments")
        by_invoice = (_("Invoices"), invoices)
        settled_at = {"usage": (_("Usage"), usage), "invoice": by_invoice, "tax": by_invoice}
        blockers = [
            (
                blocker["message"],
                *settled_at.get(blocker["code"].partition("_")[0], (_("Payments"), payments)),
            )
            for blocker in organizations.open_business(organization=self.organization, now=self.now)
        ]
        return {"blockers": blockers, "invoices_url": invoices}

    def act(self, form: Any) -> HttpResponse:
        """Delete it, if nothing is open."""
        organizations.delete_organization(actor=self.actor, organization=self.organization, now=self.now)
        said = _("%(name)s is deleted. Support can bring it back within 30 days.")
        return self.done(said % {"name": self.organization.name}, to=reverse("home"))
