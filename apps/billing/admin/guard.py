"""What guards spending, in the staff admin: holds, budgets, and what staff allow an organization."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from apps.billing import selectors, services
from apps.billing.forms import SpendGuardForm
from apps.billing.models import BillingTransition, Budget, BudgetNotice, Hold, SpendGuard, StopRequest
from apps.core.money import from_micros, to_micros
from apps.core.staff import (
    EVERYWHERE,
    OrganizationLink,
    ReadOnlyAdmin,
    ReasonActionForm,
    act_on_each,
    micros_column,
    staff_actor,
    take_step,
    with_reason,
)
from apps.organizations.models import Organization


@admin.register(Hold)
class HoldAdmin(OrganizationLink, ReadOnlyAdmin):
    list_display = (
        "subject", "source", "organization_link", "amount", "currency", "expires_at", "released_at", "release",
        "created_at",
    )  # fmt: skip
    list_filter = (("released_at", admin.EmptyFieldListFilter), "release")
    list_select_related = ("organization",)
    search_fields = ("id", "subject", "organization__slug")
    ordering = ("-created_at", "-id")
    action_form = ReasonActionForm
    actions = ("release_selected",)
    amount = micros_column("amount_micros", _("Amount"))

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Return whether the staff member may give reserved credit back."""
        return request.user.has_perm("billing.change_hold")

    @admin.action(
        description=_("Release: give the reserved credit back"), permissions=["decide"], location=EVERYWHERE
    )
    @with_reason
    def release_selected(self, request: HttpRequest, queryset: QuerySet[Hold], reason: str) -> None:
        def release(hold: Hold) -> str:
            services.release_hold(actor=staff_actor(request), hold=hold, reason=reason, now=timezone.now())
            return _("%(hold)s reserves nothing.") % {"hold": hold}

        act_on_each(self, request, queryset, release)


@admin.register(SpendGuard)
class SpendGuardAdmin(OrganizationLink, ReadOnlyAdmin):
    list_display = (
        "organization_link", "state", "credit_limit", "warn_below", "suspended_at", "depleted_at", "reason", "step",
    )  # fmt: skip
    list_filter = ("organization__billing_state", ("suspended_at", admin.EmptyFieldListFilter))
    list_select_related = ("organization",)
    search_fields = ("organization__slug", "organization__name", "=organization__id")
    ordering = ("organization__slug",)
    credit_limit = micros_column("credit_limit_micros", _("Credit limit"))
    warn_below = micros_column("warn_below_micros", _("Warned below"))

    def get_urls(self) -> list[Any]:
        """Add the page on which staff decide what an organization may spend."""
        return [
            path(
                "decide/<uuid:organization_id>/",
                self.admin_site.admin_view(self.decide),
                name="billing_spendguard_decide",
            ),
            *super().get_urls(),
        ]

    def decide(self, request: HttpRequest, organization_id: UUID) -> HttpResponse:
        """Ask for the credit limit, the warning, whether new usage is blocked, and why; then change what differs."""
        if not request.user.has_perm("billing.change_spendguard"):
            raise PermissionDenied
        organization = get_object_or_404(Organization, pk=organization_id)
        guard = selectors.guard_of(organization.id)
        form = SpendGuardForm(
            request.POST or None,
            initial={
                "credit_limit": from_micros(guard.credit_limit_micros),
                "warn_below": from_micros(guard.warn_below_micros),
                "blocked": guard.suspended_at is not None,
            },
        )

        def step() -> str:
            services.decide_spending(
                actor=staff_actor(request),
                organization=organization,
                credit_limit_micros=to_micros(form.cleaned_data["credit_limit"]),
                warn_below_micros=to_micros(form.cleaned_data["warn_below"]),
                suspended=form.cleaned_data["blocked"],
                reason=form.cleaned_data["reason"],
                now=timezone.now(),
            )
            return _("What %(name)s may spend is decided.") % {"name": organization}

        return take_step(
            self,
            request,
            row=organization,
            row_url=reverse("admin:organizations_organization_change", args=[organization.pk]),
            title=str(_("Decide what it may spend")),
            form=form,
            step=step,
        )

    @admin.display(description=_("Billing state"), ordering="organization__billing_state")
    def state(self, guard: SpendGuard) -> str:
        return guard.organization.get_billing_state_display()

    @admin.display(description=_("Next step"))
    def step(self, guard: SpendGuard) -> SafeString:
        url = reverse("admin:billing_spendguard_decide", args=[guard.organization_id])
        return format_html('<a href="{}">{}</a>', url, _("Decide"))


@admin.register(BillingTransition)
class BillingTransitionAdmin(OrganizationLink, ReadOnlyAdmin):
    list_display = ("occurred_at", "organization_link", "before", "after", "available", "currency", "number")
    list_filter = ("after", "before")
    list_select_related = ("organization",)
    search_fields = ("id", "organization__slug")
    date_hierarchy = "occurred_at"
    ordering = ("-occurred_at", "-id")
    available = micros_column("available_micros", _("Available"))


@admin.register(StopRequest)
class StopRequestAdmin(OrganizationLink, ReadOnlyAdmin):
    list_display = ("requested_at", "organization_link", "source", "subject")
    list_select_related = ("organization",)
    search_fields = ("id", "organization__slug", "=subject")
    date_hierarchy = "requested_at"
    ordering = ("-requested_at", "-id")


@admin.register(Budget)
class BudgetAdmin(OrganizationLink, ReadOnlyAdmin):
    list_display = (
        "name", "organization_link", "scope", "amount", "currency", "thresholds", "action", "created_at", "ended_at",
    )  # fmt: skip
    list_filter = ("scope", "action", ("ended_at", admin.EmptyFieldListFilter))
    list_select_related = ("organization",)
    search_fields = ("id", "name", "organization__slug")
    ordering = ("-created_at", "-id")
    amount = micros_column("amount_micros", _("Amount"))


@admin.register(BudgetNotice)
class BudgetNoticeAdmin(ReadOnlyAdmin):
    list_display = ("noticed_at", "budget", "period", "percent", "spent")
    list_select_related = ("budget", "period")
    search_fields = ("budget__name", "organization__slug", "=budget__id")
    ordering = ("-noticed_at", "-id")
    spent = micros_column("spent_micros", _("Spent"))
