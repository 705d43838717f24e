"""Pages: what an organization may use beside what it uses, and asking for more."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core.forms import offer_choices
from apps.core.http.pages import FormMixin, OrganizationPage, slice_of
from apps.core.money import plain
from apps.core.permissions import Permission
from apps.quotas import selectors, services
from apps.quotas.forms import places
from apps.quotas.models import ANY, Quota, QuotaRequest, Target
from apps.quotas.selectors import QuotaUse

# Counted in fractions, shown with two decimals.
MEASURED = (Quota.GPU_HOURS_PER_MONTH, Quota.DATA_GB_PER_MONTH)


class AskForm(forms.Form):
    """What is asked for; a family and region only for GPUs at once."""

    quota = forms.ChoiceField(label=_("Quota"))
    family = forms.ChoiceField(label=_("SKU family"), required=False)
    region = forms.ChoiceField(label=_("Region"), required=False)
    requested = forms.IntegerField(label=_("New limit"), min_value=1)
    reason = forms.CharField(
        label=_("What for"),
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("Staff read it; when you need it and for how long helps."),
    )

    def __init__(self, *args: Any, limited: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(quota.value, quota.label) for quota in Quota if quota in limited]
        offer_choices(self, "quota", choices)
        families, regions = places()
        for name, codes in (("family", families), ("region", regions)):
            offer_choices(self, name, [(ANY, _("Every one")), *((code, code) for code in codes)])


class Quotas(FormMixin, OrganizationPage):
    """Limits with their use, the requests so far, and the form for another."""

    permission = {"GET": Permission.QUOTAS_READ, "POST": Permission.QUOTAS_REQUEST}
    section = "quotas"
    template_name = "quotas/quotas.html"
    form_class = AskForm

    def form_arguments(self) -> dict[str, Any]:
        """Offer what has a limit, and begin with the quota of the link."""
        found = selectors.limits(organization_id=self.organization_id, now=self.now)
        asked = {name: self.request.GET.get(name, "") for name in ("quota", "family", "region")}
        return {
            "limited": [target.quota for target, limit in found.items() if limit.value is not None],
            "initial": {name: value for name, value in asked.items() if value},
        }

    def context(self) -> dict[str, Any]:
        """Return limits and requests."""
        rows = QuotaRequest.objects.visible_to(self.actor)
        uses = selectors.uses(organization_id=self.organization_id, now=self.now)
        return {
            "plan": selectors.plan_of(self.organization_id),
            "uses": [_row(use) for use in uses],
            "requests": slice_of(self.request, rows, size=20),
        }

    def act(self, form: Any) -> HttpResponse:
        """Ask."""
        made = services.request_quota(
            actor=self.actor, organization=self.organization, now=self.now, **form.cleaned_data
        )
        message = _now("Asked for %(limit)s: %(quota)s. You get a mail once it is decided.") % {
            "limit": f"{made.requested:,}",
            "quota": str(made.target),
        }
        return self.done(message, to=self.url("quotas"))


class WithdrawRequest(OrganizationPage):
    """Taking a request back."""

    permission = Permission.QUOTAS_REQUEST
    section = "quotas"

    def post(self, request: HttpRequest, **path: Any) -> HttpResponse:
        """Withdraw a request that is not decided."""
        found = get_object_or_404(QuotaRequest.objects.visible_to(self.actor), pk=path["request_id"])
        services.withdraw_request(actor=self.actor, request=found, now=self.now)
        return self.done(_now("The request is withdrawn."), to=self.url("quotas"))

    def back_url(self) -> str:
        """Return the list."""
        return self.url("quotas")


def _row(use: QuotaUse) -> dict[str, Any]:
    target: Target = use.limit.target
    is_over = use.limit.value is not None and use.used is not None and use.used >= use.limit.value
    return {
        "name": str(target),
        "target": target,
        "limit": use.limit,
        "used": use.used,
        "used_exact": "" if use.used is None else plain(selectors.shown(use.used)),
        "is_measured": target.quota in MEASURED,
        "is_over": is_over,
    }
