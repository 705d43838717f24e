"""Organizations in the staff admin; rows are made by services and changed by nothing else."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy as _

from apps.core.staff import ReadOnlyAdmin, link_to, list_link, staff_actor
from apps.organizations import services
from apps.organizations.forms import OrganizationForm
from apps.organizations.models import (
    BillingPeriod,
    Membership,
    Organization,
    OrganizationSlug,
    Project,
)


class ReadOnlyInline(admin.TabularInline):  # type: ignore[type-arg]
    """Rows shown beneath another."""

    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002
        return False


class MembershipInline(ReadOnlyInline):
    model = Membership
    fields = ("user", "role", "is_default", "suspended_at", "expires_at")


class ProjectInline(ReadOnlyInline):
    model = Project
    fields = ("slug", "name", "archived_at", "created_at")


class BillingPeriodInline(ReadOnlyInline):
    model = BillingPeriod
    fields = ("label", "starts_at", "ends_at", "state", "finalized_at")
    ordering = ("-starts_at",)


class OrganizationSlugInline(ReadOnlyInline):
    model = OrganizationSlug
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
    inlines = (MembershipInline, ProjectInline, BillingPeriodInline, OrganizationSlugInline)
    readonly_fields = ("related",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return admin.ModelAdmin.has_add_permission(self, request)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **kwargs) if change else OrganizationForm

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return super().get_fields(request, obj) if obj else OrganizationForm.Meta.fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return super().get_readonly_fields(request, obj) if obj else ()

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return super().get_inlines(request, obj) if obj else ()

    def save_model(self, request: HttpRequest, obj: Organization, form: Any, change: bool) -> None:  # noqa: ARG002
        facts = form.cleaned_data | {"slug": form.cleaned_data["slug"] or None}
        made = services.create_organization(actor=staff_actor(request), now=timezone.now(), **facts)
        obj.__dict__ |= made.__dict__

    def get_queryset(self, request: HttpRequest) -> QuerySet[Organization]:
        rows: QuerySet[Organization] = super().get_queryset(request)
        return rows.annotate(member_count=Count("memberships", distinct=True))

    @admin.display(description=_("Members"), ordering="member_count")
    def members(self, organization: Organization) -> SafeString:
        count = organization.member_count  # type: ignore[attr-defined]
        return list_link("organizations_membership", str(count), organization__id__exact=organization.id)

    @admin.display(description=_("Related"))
    def related(self, organization: Organization) -> SafeString:
        pk = organization.id
        links = [
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
