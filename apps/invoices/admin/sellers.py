"""Sellers, tax rates, exemptions and VAT checks in the staff admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apps.core.money import plain
from apps.core.staff import (
    EVERYWHERE,
    OrganizationLink,
    ReadOnlyAdmin,
    ReasonActionForm,
    ServiceAdmin,
    act_on_each,
    staff_actor,
    with_reason,
)
from apps.invoices import services as invoices
from apps.invoices.forms import SellerForm, TaxExemptionForm, TaxRateForm
from apps.invoices.models import SellerAssignment, SellerEntity, TaxExemption, TaxRate, VatCheck
from apps.organizations.models import Organization


class AppendOnlyAdmin(ServiceAdmin):
    """Rows are added by services and stay as they are."""

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(SellerEntity)
class SellerAdmin(ServiceAdmin):
    list_display = ("legal_name", "code", "country", "vat_id", "invoice_series", "timezone", "updated_at")
    search_fields = ("code", "legal_name", "vat_id")
    ordering = ("code",)
    form = SellerForm

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("code",) if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: SellerEntity, form: Any, change: bool) -> None:
        fields = {name: form.cleaned_data[name] for name in form.cleaned_data if name != "code"}
        invoices.save_seller(actor=staff_actor(request), code=obj.code, now=timezone.now(), **fields)


@admin.register(SellerAssignment)
class SellerAssignmentAdmin(ServiceAdmin):
    list_display = ("organization", "seller")
    list_select_related = ("organization", "seller")
    search_fields = ("organization__slug", "seller__code")
    autocomplete_fields = ("organization",)
    fields = ("organization", "seller")
    ordering = ("organization__slug",)
    actions = ("back_to_default",)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_assign_permission(self, request: HttpRequest) -> bool:
        return self.has_add_permission(request)

    def save_model(self, request: HttpRequest, obj: SellerAssignment, form: Any, change: bool) -> None:
        self._assign(request, obj.organization, obj.seller)

    @admin.action(description=_("Let them buy from the default seller again"), permissions=["assign"])
    def back_to_default(self, request: HttpRequest, queryset: QuerySet[SellerAssignment]) -> None:
        for row in queryset.select_related("organization").order_by("pk"):
            self._assign(request, row.organization, None)

    def _assign(self, request: HttpRequest, organization: Organization, seller: SellerEntity | None) -> None:
        invoices.assign_seller(
            actor=staff_actor(request), organization=organization, seller=seller, now=timezone.now()
        )


@admin.register(TaxRate)
class TaxRateAdmin(AppendOnlyAdmin):
    list_display = ("country", "region", "rate", "effective_from", "source", "created_at")
    list_filter = ("country",)
    search_fields = ("country", "region")
    ordering = ("country", "region", "-effective_from")
    form = TaxRateForm

    @admin.display(description=_("Percent"), ordering="percent")
    def rate(self, row: TaxRate) -> str:
        return plain(row.percent)

    def save_model(self, request: HttpRequest, obj: TaxRate, form: Any, change: bool) -> None:
        made = invoices.add_tax_rate(actor=staff_actor(request), now=timezone.now(), **form.cleaned_data)
        obj.pk = made.pk


@admin.register(TaxExemption)
class TaxExemptionAdmin(AppendOnlyAdmin):
    list_display = (
        "organization", "country", "certificate", "reason", "valid_from", "valid_until", "revoked_at",
    )  # fmt: skip
    list_select_related = ("organization",)
    search_fields = ("organization__slug", "certificate")
    ordering = ("-created_at", "-id")
    autocomplete_fields = ("organization",)
    form = TaxExemptionForm
    action_form = ReasonActionForm
    actions = ("revoke",)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return self.has_add_permission(request)

    def save_model(self, request: HttpRequest, obj: TaxExemption, form: Any, change: bool) -> None:
        made = invoices.add_tax_exemption(actor=staff_actor(request), now=timezone.now(), **form.cleaned_data)
        obj.pk = made.pk

    @admin.action(description=_("Revoke"), permissions=["revoke"], location=EVERYWHERE)
    @with_reason
    def revoke(self, request: HttpRequest, queryset: QuerySet[TaxExemption], reason: str) -> None:
        def act(exemption: TaxExemption) -> str:
            invoices.revoke_tax_exemption(
                actor=staff_actor(request), exemption=exemption, reason=reason, now=timezone.now()
            )
            return _("%s is revoked.") % exemption

        act_on_each(self, request, queryset, act)


@admin.register(VatCheck)
class VatCheckAdmin(OrganizationLink, ReadOnlyAdmin):
    list_display = ("checked_at", "organization_link", "vat_id", "answer", "consultation", "requester")
    list_filter = ("answer",)
    list_select_related = ("organization",)
    search_fields = ("organization__slug", "vat_id", "consultation")
    ordering = ("-checked_at", "-id")
