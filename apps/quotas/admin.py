"""Plans, limits of single organizations and requests in the staff admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core.money import plain
from apps.core.staff import (
    EVERYWHERE,
    OrganizationLink,
    ReadOnlyAdmin,
    ReasonActionForm,
    ServiceAdmin,
    act_on_each,
    link_to,
    list_link,
    staff_actor,
    take_step,
    with_reason,
)
from apps.organizations.models import Organization
from apps.quotas import selectors, services
from apps.quotas.forms import APPROVE, DecisionForm, OverrideForm, PlanChoiceForm, PlanLimitForm
from apps.quotas.models import LimitOverride, Plan, PlanLimit, Quota, QuotaRequest, Target


class PlanLimitInline(admin.TabularInline):
    model = PlanLimit
    form = PlanLimitForm
    extra = 1
    ordering = ("pk",)


@admin.register(Plan)
class PlanAdmin(ServiceAdmin):
    """Plans are changed here with all their limits; whoever is on them has the new ones at once."""

    list_display = (
        "name", "code", "requests", "burst", "gpu_hours", "gpus", "seats", "is_negotiated", "is_public", "on_it",
    )  # fmt: skip
    search_fields = ("code", "name")
    ordering = ("position", "pk")
    fields = ("code", "name", "description", "position", "is_negotiated", "is_public")
    inlines = (PlanLimitInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        return super().get_queryset(request).prefetch_related("limits")

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("code",) if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Plan, form: Any, change: bool) -> None:
        services.save_plan(actor=staff_actor(request), plan=obj)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        kept = [
            row
            for row in formset.forms
            if row.cleaned_data.get("quota") and not row.cleaned_data.get("DELETE")
        ]
        services.set_plan_limits(
            actor=staff_actor(request),
            plan=form.instance,
            limits={row.target: row.cleaned_data["value"] for row in kept},
        )
        formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []

    def get_urls(self) -> list[URLPattern]:
        """Add the page that puts an organization on another plan."""
        page = path(
            "assign/<uuid:organization_id>/",
            self.admin_site.admin_view(self.assign),
            name="quotas_assign_plan",
        )
        return [page, *super().get_urls()]

    def assign(self, request: HttpRequest, organization_id: Any) -> HttpResponse:
        """Ask for the plan and why, beside what the organization uses, then change it."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        organization = get_object_or_404(Organization, pk=organization_id)
        form = PlanChoiceForm(request.POST or None, initial={"plan": organization.plan})

        def step() -> str:
            services.assign_plan(
                actor=staff_actor(request),
                organization=organization,
                plan_code=form.cleaned_data["plan"].code,
                reason=form.cleaned_data["reason"],
                now=timezone.now(),
            )
            return _now("%(name)s is on %(plan)s now.") % {
                "name": organization,
                "plan": form.cleaned_data["plan"],
            }

        return take_step(
            self,
            request,
            row=organization,
            row_url=reverse("admin:organizations_organization_change", args=[organization.pk]),
            title=_now("Change the plan"),
            form=form,
            step=step,
            template="quotas/assign.html",
            **_comparison(organization),
        )

    @admin.display(description=_("Requests a minute"))
    def requests(self, plan: Plan) -> str:
        return _limit_text(plan, Quota.REQUESTS_PER_MINUTE)

    @admin.display(description=_("At once"))
    def burst(self, plan: Plan) -> str:
        return _limit_text(plan, Quota.REQUEST_BURST)

    @admin.display(description=_("GPU-hours a month"))
    def gpu_hours(self, plan: Plan) -> str:
        return _limit_text(plan, Quota.GPU_HOURS_PER_MONTH)

    @admin.display(description=_("GPUs at once"))
    def gpus(self, plan: Plan) -> str:
        return _limit_text(plan, Quota.CONCURRENT_GPUS)

    @admin.display(description=_("Members"))
    def seats(self, plan: Plan) -> str:
        return _limit_text(plan, Quota.MEMBERS)

    @admin.display(description=_("Organizations"))
    def on_it(self, plan: Plan) -> SafeString:
        return list_link("organizations_organization", _now("Organizations"), plan__exact=plan.code)


@admin.register(LimitOverride)
class LimitOverrideAdmin(OrganizationLink, ServiceAdmin):
    """Limits of single organizations are added and ended; a change is a new one that ends the one before it."""

    list_display = ("organization_link", "target", "limit", "state", "created_at", "expires_at", "reason")
    list_display_links = ("target",)
    list_filter = (("ended_at", admin.EmptyFieldListFilter), "quota", "expires_at")
    list_select_related = ("organization",)
    search_fields = ("organization__slug", "organization__name", "reason", "=id", "=organization__id")
    ordering = ("-created_at", "-id")
    raw_id_fields = ("organization",)
    action_form = ReasonActionForm
    actions = ("end_selected",)
    fields = ("organization", "quota", "family", "region", "value", "expires_at", "reason")
    shown = (
        "organization_link", "target", "limit", "state", "reason", "created_by_label", "created_at", "expires_at",
        "ended_at", "request_link",
    )  # fmt: skip

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.shown if obj else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.shown if obj else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Give the form to new limits only; an old one is all text."""
        form = forms.ModelForm if obj else OverrideForm
        return super().get_form(request, obj, change, **{**kwargs, "form": form})

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_end_permission(self, request: HttpRequest) -> bool:
        """Whoever may add limits may end them."""
        return self.has_add_permission(request)

    def save_model(self, request: HttpRequest, obj: LimitOverride, form: Any, change: bool) -> None:
        made = services.override_limit(
            actor=staff_actor(request),
            organization=obj.organization,
            target=form.target,
            value=obj.value,
            reason=obj.reason,
            expires_at=obj.expires_at,
            now=timezone.now(),
        )
        obj.pk = made.pk

    @admin.action(
        description=_("End: the plan's limit holds again"), permissions=["end"], location=EVERYWHERE
    )
    @with_reason
    def end_selected(self, request: HttpRequest, queryset: QuerySet[LimitOverride], reason: str) -> None:
        def end(override: LimitOverride) -> str:
            services.end_limit_override(
                actor=staff_actor(request), override=override, reason=reason, now=timezone.now()
            )
            return _now("%s is ended.") % override

        act_on_each(self, request, queryset, end)

    @admin.display(description=_("Quota"), ordering="quota")
    def target(self, row: LimitOverride) -> str:
        return str(row.target)

    @admin.display(description=_("Limit"), ordering="value")
    def limit(self, row: LimitOverride) -> str:
        return _value_text(row.value)

    @admin.display(description=_("State"))
    def state(self, row: LimitOverride) -> str:
        if row.ended_at is not None:
            return _now("ended")
        has_expired = row.expires_at is not None and row.expires_at <= timezone.now()
        return _now("expired") if has_expired else _now("in force")

    @admin.display(description=_("Request"))
    def request_link(self, row: LimitOverride) -> SafeString | str:
        return link_to("quotas_quotarequest", row.request_id, str(row.request))


@admin.register(QuotaRequest)
class QuotaRequestAdmin(OrganizationLink, ReadOnlyAdmin):
    list_display = (
        "organization_link", "target", "limit_then", "requested", "state", "granted", "requested_by_label",
        "created_at", "steps",
    )  # fmt: skip
    list_display_links = ("target",)
    list_filter = ("state", "quota", "created_at")
    list_select_related = ("organization",)
    search_fields = ("organization__slug", "organization__name", "reason", "=id", "=organization__id")
    ordering = ("-created_at", "-id")
    fields = (
        "organization_link", "target", "limit_then", "requested", "reason", "requested_by_label", "created_at",
        "state", "granted", "expires_at", "message", "decided_by_label", "decided_at", "steps",
    )  # fmt: skip
    readonly_fields = fields

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Whoever may change requests decides them."""
        return admin.ModelAdmin.has_change_permission(self, request)

    def get_urls(self) -> list[URLPattern]:
        """Add the page that decides a request."""
        page = path(
            "<uuid:request_id>/decide/",
            self.admin_site.admin_view(self.decide),
            name="quotas_decide_request",
        )
        return [page, *super().get_urls()]

    def decide(self, request: HttpRequest, request_id: Any) -> HttpResponse:
        """Show what is asked for beside what is used, then approve or deny."""
        if not self.has_decide_permission(request):
            raise PermissionDenied
        asked = get_object_or_404(QuotaRequest.objects.select_related("organization"), pk=request_id)
        form = DecisionForm(request.POST or None, request=asked)

        def step() -> str:
            facts = form.cleaned_data
            actor, now = staff_actor(request), timezone.now()
            if facts["decision"] == APPROVE:
                services.approve_request(
                    actor=actor,
                    request=asked,
                    granted=facts["granted"],
                    expires_at=facts["expires_at"],
                    message=facts["message"],
                    now=now,
                )
                return _now("Approved; it holds at once.")
            services.deny_request(actor=actor, request=asked, message=facts["message"], now=now)
            return _now("Denied.")

        return take_step(
            self,
            request,
            row=asked,
            row_url=reverse("admin:quotas_quotarequest_change", args=[asked.pk]),
            title=_now("Decide"),
            form=form,
            step=step,
            template="quotas/decide.html",
            asked=asked,
            target=str(asked.target),
            **_comparison(asked.organization),
        )

    @admin.display(description=_("Quota"), ordering="quota")
    def target(self, row: QuotaRequest) -> str:
        return str(row.target)

    @admin.display(description=_("Next steps"))
    def steps(self, row: QuotaRequest) -> SafeString | str:
        if row.decided_at is not None:
            return "–"
        url = reverse("admin:quotas_decide_request", args=[row.pk])
        return format_html('<a href="{}">{}</a>', url, _now("Decide…"))


def _limit_text(plan: Plan, quota: Quota) -> str:
    own = [row.value for row in plan.limits.all() if row.target == Target(quota)]
    return _value_text(own[0] if own else None)


def _value_text(value: int | None) -> str:
    return _now("no limit") if value is None else f"{value:,}"


def _comparison(organization: Organization) -> dict[str, Any]:
    """Return the organization's limits beside what it uses, as the rows of a table."""
    now = timezone.now()
    rows = [
        {
            "name": str(use.limit.target),
            "limit": _value_text(use.limit.value),
            "used": "–" if use.used is None else plain(selectors.shown(use.used)),
            "origin": _now("its own") if use.limit.is_own else _now("plan"),
            "expires_at": use.limit.expires_at,
        }
        for use in selectors.uses(organization_id=organization.id, now=now)
    ]
    return {"organization": organization, "plan": selectors.plan_of(organization.id), "rows": rows}
