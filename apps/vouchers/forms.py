"""Forms of the staff admin; what they check, the services check again."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apps.core import money
from apps.core.forms import PlainDecimalField
from apps.vouchers.models import Campaign, CampaignKind
from apps.vouchers.services import CODES_AT_ONCE_MAX


class CampaignForm(forms.ModelForm):
    """A new campaign; afterwards its terms are fixed."""

    amount = PlainDecimalField(label=_("Amount"), min_value=Decimal("0.01"), max_digits=12, decimal_places=2)
    allowed_domains = forms.CharField(
        label=_("Only mail domains"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("One a line, such as example.com. Empty: everybody."),
    )

    class Meta:
        model = Campaign
        fields = (
            "name", "kind", "amount", "currency", "redemptions_max", "organization_max", "starts_at", "ends_at",
            "credit_days", "new_within_days", "allowed_domains",
        )  # fmt: skip
        help_texts = {
            "credit_days": _("From the redemption on. Empty: the credit never ends."),
            "new_within_days": _("Empty: for old organizations as well."),
            "ends_at": _("Empty: until all are redeemed."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["currency"].initial = settings.DEFAULT_CURRENCY
        self.fields["starts_at"].initial = timezone.now().replace(microsecond=0)
        self.fields["kind"].initial = CampaignKind.SHARED

    def clean_currency(self) -> str:
        currency: str = self.cleaned_data["currency"].strip().upper()
        if not money.is_currency(currency):
            raise forms.ValidationError(_("This is not an ISO 4217 currency code."))
        return currency

    def facts(self) -> dict[str, Any]:
        """Return what the service takes."""
        facts = dict(self.cleaned_data)
        facts["amount_micros"] = money.to_micros(facts.pop("amount"))
        facts["allowed_domains"] = facts["allowed_domains"].replace(",", " ").split()
        facts["kind"] = CampaignKind(facts["kind"])
        return facts

    def _post_clean(self) -> None:
        """Skip the model's own checks: the service makes the row."""


class CodesForm(forms.Form):
    """How many codes."""

    count = forms.IntegerField(
        label=_("Codes"),
        min_value=1,
        max_value=CODES_AT_ONCE_MAX,
        help_text=_("They are in the file that follows, and nowhere else: keep it."),
    )


class ReasonForm(forms.Form):
    """Why."""

    reason = forms.CharField(label=_("Reason"), max_length=500, widget=forms.Textarea(attrs={"rows": 2}))
