"""Organizations in the staff admin; rows are made by services and changed by nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.forms import BaseInlineFormSet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy as _

from apps.core.staff import (
    EVERYWHERE,
    ReadOnlyAdmin,
    ReadOnlyInline,
    ReasonActionForm,
    act_on_each,
    link_to,
    list_link,
    staff_actor,
    take_step,
    with_reason,
)
from apps.organizations import services
from apps.organizations.forms import OrganizationForm, TimeZoneForm
from apps.organizations.models import (
    BillingPeriod,
    Invite,
    Membership,
    Organization,
    OrganizationSlug,
    OwnershipOffer,
    Project,
)

NEWEST_ROWS = 50


class _Newest(BaseInlineFormSet):
    """The first rows by the inline's order: whoever has thousands of members has a page all the same."""

    def get_queryset(self) -> Any:
        if not hasattr(self, "_newest"):
            self._newest = super().get_queryset()[:NEWEST_ROWS]
        return self._newest


class _Inline(ReadOnlyInline):
    show_change_link = True
    formset = _Newest
    ordering = ("-created_at", "-pk")


class MembershipInline(_Inline):
    model = Membership
    verbose_name_plural = _("Memberships, the newest 50")
    fields = ("user", "role", "is_default", "suspended_at", "expires_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("user", "organization")


class ProjectInline(_Inline):
    model = Project
    verbose_name_plural = _("Projects, the newest 50")
    fields = ("slug", "name", "archived_at", "created_at")


class BillingPeriodInline(_Inline):
    model = BillingPeriod
    verbose_name_plural = _("Billing periods, the newest 50")
    fields = ("label", "starts_at", "ends_at", "state", "finalized_at")
    ordering = ("-starts_at", "-pk")


class OwnershipOfferInline(_Inline):
    model = OwnershipOffer
    fields = ("member", "offered_by", "created_at", "expires_at")
    show_change_link = False


class InviteInline(_Inline):
    model = Invite
    verbose_name_plural = _("Invites, the newest 50")
    fields = ("email", "role", "invited_by", "expires_at", "accepted_at", "declined_at", "revoked_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("invited_by")

    show_change_link = False


class OrganizationSlugInline(_Inline):
    model = OrganizationSlug
    ordering = ("-retired_at", "slug")
    fields = ("slug", "retired_at")
    show_change_link = False


@admin.register(Organization)
class OrganizationAdmin(ReadOnlyAdmin):
    list_display = (
        "slug",
        "name",
        "status",
        "billing_state",
        "plan",
        "currency",
        "timezone",
        "members",
        "created_at",
    )
    list_filter = (
        "status",
        "billing_state",
        "plan",
        "currency",
        "is_demonstration",
        "require_mfa",
        "created_at",
    )
    search_fields = ("slugs__slug", "name", "billing_email", "=id")
    search_help_text = _("Slug (retired ones too), name, billing e-mail or id")
    ordering = ("-created_at", "-id")
    action_form = ReasonActionForm
    actions = ("restore_selected", "suspend_selected", "resume_selected")
    inlines = (
        MembershipInline,
        InviteInline,
        OwnershipOfferInline,
        ProjectInline,
        BillingPeriodInline,
        OrganizationSlugInline,
    )
    readonly_fields = ("related",)
    shown = (
        "name", "slug", "status", "deleted_at", "plan", "billing_state", "currency", "timezone", "billing_email",
        "require_mfa", "mfa_grace_ends_at", "is_demonstration", "created_at", "related",
    )  # fmt: skip

    def has_add_permission(self, request: HttpRequest) -> bool:
        return admin.ModelAdmin.has_add_permission(self, request)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **kwargs) if obj else OrganizationForm

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.shown if obj else OrganizationForm.Meta.fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return super().get_readonly_fields(request, obj) if obj else ()

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return super().get_inlines(request, obj) if obj else ()

    def save_model(self, request: HttpRequest, obj: Organization, form: Any, change: bool) -> None:
        facts = form.cleaned_data | {"slug": form.cleaned_data["slug"] or None}
        made = services.create_organization(actor=staff_actor(request), now=timezone.now(), **facts)
        obj.__dict__ |= made.__dict__

    def get_queryset(self, request: HttpRequest) -> QuerySet[Organization]:
        rows: QuerySet[Organization] = super().get_queryset(request)
        return rows.annotate(member_count=Count("memberships", distinct=True))

    def get_urls(self) -> list[Any]:
        step = self.admin_site.admin_view(self.change_time_zone)
        return [
            path("<uuid:organization_id>/time-zone/", step, name="organizations_change_time_zone"),
            *super().get_urls(),
        ]

    def change_time_zone(self, request: HttpRequest, organization_id: Any) -> HttpResponse:
        """Ask for the zone and why, then let the coming months end there."""
        if not self.has_decide_permission(request):
            raise PermissionDenied
        organization = get_object_or_404(Organization, pk=organization_id)
        form = TimeZoneForm(request.POST or None, initial={"timezone": organization.timezone})

        def step() -> str:
            changed = services.change_timezone(
                actor=staff_actor(request), organization=organization, now=timezone.now(), **form.cleaned_data
            )
            told = {"name": organization, "zone": changed.timezone}
            return _("The months of %(name)s end in the time zone %(zone)s.") % told

        return take_step(
            self,
            request,
            row=organization,
            row_url=reverse("admin:organizations_organization_change", args=[organization.pk]),
            title=str(_("Change the time zone")),
            form=form,
            step=step,
        )

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Whoever may change organizations may block and restore them."""
        return admin.ModelAdmin.has_change_permission(self, request)

    @admin.action(
        description=_("Suspend: block members and keys"), permissions=["decide"], location=EVERYWHERE
    )
    @with_reason
    def suspend_selected(self, request: HttpRequest, queryset: QuerySet[Organization], reason: str) -> None:
        suspend = partial(services.suspend_organization, suspended=True)
        self._decide(request, queryset, suspend, reason, _("suspended"))

    @admin.action(
        description=_("Resume: let members and keys in again"), permissions=["decide"], location=EVERYWHERE
    )
    @with_reason
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Organization], reason: str) -> None:
        resume = partial(services.suspend_organization, suspended=False)
        self._decide(request, queryset, resume, reason, _("active"))

    @admin.action(description=_("Restore after deletion"), permissions=["decide"], location=EVERYWHERE)
    @with_reason
    def restore_selected(self, request: HttpRequest, queryset: QuerySet[Organization], reason: str) -> None:
        restore = partial(services.restore_organization, now=timezone.now())
        self._decide(request, queryset, restore, reason, _("active"))

    def _decide(
        self,
        request: HttpRequest,
        queryset: QuerySet[Organization],
        decide: Callable[..., Organization],
        reason: str,
        outcome: Any,
    ) -> None:
        def act(organization: Organization) -> str:
            decide(actor=staff_actor(request), organization=organization, reason=reason)
            return _("%(name)s is %(outcome)s.") % {"name": organization.name, "outcome": outcome}

        act_on_each(self, request, queryset, act)

    @admin.display(description=_("Members"), ordering="member_count")
    def members(self, organization: Organization) -> SafeString:
        count = organization.member_count  # type: ignore[attr-defined]  # Of `get_queryset`.
        return list_link("organizations_membership", str(count), organization__id__exact=organization.id)

    @admin.display(description=_("Related"))
    def related(self, organization: Organization) -> SafeString:
        pk = organization.id
        links = [
            format_html('<a href="{}">{}</a>', reverse("admin:quotas_assign_plan", args=[pk]), _("Plan")),
            format_html(
                '<a href="{}">{}</a>', reverse("admin:billing_spendguard_decide", args=[pk]), _("Spending")
            ),
            format_html(
                '<a href="{}">{}</a>', reverse("admin:billing_grant_credit", args=[pk]), _("Grant credit")
            ),
            list_link("organizations_membership", str(_("Members")), organization__id__exact=pk),
            list_link("organizations_project", str(_("Projects")), organization__id__exact=pk),
            list_link("billing_creditlot", str(_("Credit")), organization__id__exact=pk),
            list_link("invoices_invoice", str(_("Invoices")), organization__id__exact=pk),
            list_link("payments_payment", str(_("Payments")), organization__id__exact=pk),
            format_html(
                '<a href="{}">{}</a>',
                reverse("admin:organizations_change_time_zone", args=[pk]),
                _("Time zone"),
            ),
            list_link("quotas_limitoverride", str(_("Limits")), organization__id__exact=pk),
            list_link("quotas_quotarequest", str(_("Quota requests")), organization__id__exact=pk),
            list_link("credentials_apikey", str(_("API keys")), organization__id__exact=pk),
            list_link("organizations_billingperiod", str(_("Periods")), organization__id__exact=pk),
            list_link("ledger_account", str(_("Accounts")), organization_id__exact=pk),
            list_link("audit_auditevent", str(_("Audit")), q=pk),
        ]
        return mark_safe(" · ".join(links))  # noqa: S308  Each link is escaped already.


@admin.register(Membership)
class MembershipAdmin(ReadOnlyAdmin):
    list_display = (
        "user",
        "in_organization",
        "role",
        "is_default",
        "suspended_at",
        "expires_at",
        "created_at",
    )
    list_display_links = ("user",)
    list_filter = ("role", ("suspended_at", admin.EmptyFieldListFilter), "created_at")
    list_select_related = ("user", "organization")
    search_fields = ("user__email", "user__name", "organization__slug", "=organization__id")
    ordering = ("-created_at", "-id")

    @admin.display(description=_("Organization"), ordering="organization__slug")
    def in_organization(self, row: Membership) -> SafeString | str:
        return link_to("organizations_organization", row.organization_id, row.organization.slug)


@admin.register(Project)
class ProjectAdmin(ReadOnlyAdmin):
    list_display = ("slug", "name", "of_organization", "archived_at", "created_at")
    list_filter = (("archived_at", admin.EmptyFieldListFilter), "created_at")
    list_select_related = ("organization",)
    search_fields = ("slug", "name", "organization__slug", "=id")
    ordering = ("-created_at", "-id")

    @admin.display(description=_("Organization"), ordering="organization__slug")
    def of_organization(self, row: Project) -> SafeString | str:
        return link_to("organizations_organization", row.organization_id, row.organization.slug)


@admin.register(BillingPeriod)
class BillingPeriodAdmin(ReadOnlyAdmin):
    list_display = ("label", "of_organization", "state", "starts_at", "ends_at", "finalized_at")
    list_filter = ("state", "label")
    list_select_related = ("organization",)
    search_fields = ("=label", "organization__slug", "=organization__id")
    ordering = ("-starts_at", "-id")

    @admin.display(description=_("Organization"), ordering="organization__slug")
    def of_organization(self, row: BillingPeriod) -> SafeString | str:
        return link_to("organizations_organization", row.organization_id, row.organization.slug)
