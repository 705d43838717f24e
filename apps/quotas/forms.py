"""Forms of the staff admin; what they check, the services check again."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from apps.core.errors import DomainError
from apps.core.forms import offer_choices
from apps.pricing.models import Region, Sku
from apps.quotas.models import ANY, LimitOverride, Plan, PlanLimit, QuotaRequest, Target
from apps.quotas.services import target_of

APPROVE, DENY = "approve", "deny"


class PlaceForm(forms.ModelForm):
    """A limit with its family and region, chosen from those that exist."""

    family = forms.ChoiceField(label=_("SKU family"), initial=ANY)
    region = forms.ChoiceField(label=_("Region"), initial=ANY)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = (self.instance.family, self.instance.region)
        for name, codes, kept in zip(("family", "region"), places(), own, strict=True):
            # What was chosen once stays to choose, also when nothing is sold under it any more.
            choices = sorted({*codes, kept} - {ANY})
            offer_choices(self, name, [(ANY, _("Every one")), *((code, code) for code in choices)])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            try:
                target_of(cleaned["quota"], cleaned["family"], cleaned["region"])
            except DomainError as error:
                for field in error.details["fields"]:
                    self.add_error(field["path"], field["message"])
        return cleaned

    @property
    def target(self) -> Target:
        """What the limit is about."""
        return Target(*(self.cleaned_data[name] for name in ("quota", "family", "region")))


class PlanLimitForm(PlaceForm):
    """One limit of a plan."""

    class Meta:
        model = PlanLimit
        fields = ("quota", "family", "region", "value")


class OverrideForm(PlaceForm):
    """A limit of one organization."""

    class Meta:
        model = LimitOverride
        fields = ("organization", "quota", "family", "region", "value", "expires_at", "reason")
        widgets = {"reason": forms.Textarea(attrs={"rows": 2})}

    def validate_constraints(self) -> None:
        """Check nothing here: the service ends the override before this one first."""


class PlanChoiceForm(forms.Form):
    """Another plan for an organization."""

    plan = forms.ModelChoiceField(
        queryset=Plan.objects.order_by("position", "pk"),
        to_field_name="code",
        label=_("Plan"),
        empty_label=None,
    )
    reason = forms.CharField(label=_("Reason"), max_length=500, widget=forms.Textarea(attrs={"rows": 2}))


class DecisionForm(forms.Form):
    """What becomes of a quota request."""

    decision = forms.ChoiceField(
        label=_("Decision"),
        choices=[(APPROVE, _("Approve")), (DENY, _("Deny"))],
        widget=forms.RadioSelect,
    )
    granted = forms.IntegerField(
        label=_("Limit from now on"), min_value=0, required=False, help_text=_("Only to approve.")
    )
    expires_at = forms.SplitDateTimeField(
        label=_("Until (UTC)"), required=False, help_text=_("Empty: until it is changed.")
    )
    message = forms.CharField(
        label=_("Message to the customer"),
        required=False,
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("Mailed with the decision; needed to deny."),
    )

    def __init__(self, *args: Any, request: QuotaRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["granted"].initial = request.requested
        date, time = self.fields["expires_at"].widget.widgets
        date.input_type, time.input_type = "date", "time"
        date.attrs["aria-label"], time.attrs["aria-label"] = _("Day, UTC"), _("Hour, UTC")


def places() -> tuple[list[str], list[str]]:
    """Return the families and the regions that GPUs are limited by."""
    families = {(family or code).lower() for family, code in Sku.objects.values_list("family", "code")}
    return sorted(families), list(Region.objects.order_by("code").values_list("code", flat=True))
