"""The page of an organization's credit, with the codes that add to it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpResponse
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.billing import selectors as billing
from apps.billing.credits import credit_of
from apps.core.http.pages import FormMixin, OrganizationPage
from apps.core.money import plain_micros
from apps.core.permissions import Permission
from apps.ledger.services import CurrencyMismatch
from apps.vouchers import services


class RedeemForm(forms.Form):
    """A voucher's code."""

    code = forms.CharField(
        label=_("Voucher code"),
        help_text=_("Sixteen letters and digits; case, spaces and hyphens do not matter."),
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "autocapitalize": "characters", "spellcheck": "false"}
        ),
    )


class Credits(FormMixin, OrganizationPage):
    """The lots in the order in which they burn, with the form that redeems a code."""

    permission = {"GET": Permission.BILLING_READ, "POST": Permission.BILLING_TOP_UP}
    section = "credits"
    template_name = "vouchers/credits.html"
    form_class = RedeemForm

    def context(self) -> dict[str, Any]:
        """Return the credit, and what is left of it once everything is counted."""
        return {
            "credit": credit_of(self.organization_id, now=self.now),
            "balance": billing.balance(self.organization, now=self.now),
        }

    def act(self, form: Any) -> HttpResponse:
        """Redeem the code."""
        services.count_guess(actor=self.actor)
        try:
            made = services.redeem(
                actor=self.actor,
                organization=self.organization,
                code=form.cleaned_data["code"],
                now=self.now,
            )
        except (services.VoucherInvalid, services.AlreadyRedeemed, CurrencyMismatch) as refusal:
            # Of what was typed, so beside the field; a wrong code is elsewhere a page that is not found.
            form.add_error("code", str(refusal))
            return self.render({"form": form, **self.context()}, status=422)
        message = _now("%(amount)s %(currency)s are in your account: %(campaign)s.") % {
            "amount": plain_micros(made.lot.amount_micros),
            "currency": made.lot.currency,
            "campaign": made.campaign.name,
        }
        return self.done(message, to=self.url("credits"))
