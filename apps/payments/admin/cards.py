"""Cards and what is charged to them without being asked."""

from __future__ import annotations

from django.contrib import admin

from apps.payments.admin.common import StaffAdmin
from apps.payments.models import AutoTopUp, CardSetup, PaymentMethod, StripeCustomer


@admin.register(PaymentMethod)
class PaymentMethodAdmin(StaffAdmin):
    list_display = (
        "organization_link",
        "brand",
        "last4",
        "exp_month",
        "exp_year",
        "is_default",
        "removed_at",
    )
    list_filter = ("is_default", ("removed_at", admin.EmptyFieldListFilter))
    list_select_related = ("organization",)
    search_fields = ("method_id", "organization__slug", "last4")
    ordering = ("-created_at", "-id")


@admin.register(AutoTopUp)
class AutoTopUpAdmin(StaffAdmin):
    list_display = ("organization_link", "state", "failures_in_a_row", "next_attempt_at", "updated_at")
    list_filter = ("state",)
    list_select_related = ("organization",)
    search_fields = ("organization__slug",)
    ordering = ("-updated_at",)


@admin.register(StripeCustomer)
class StripeCustomerAdmin(StaffAdmin):
    list_display = ("organization_link", "customer_id", "created_at")
    list_select_related = ("organization",)
    search_fields = ("customer_id", "organization__slug")
    ordering = ("-created_at", "-id")


@admin.register(CardSetup)
class CardSetupAdmin(StaffAdmin):
    list_display = ("created_at", "organization_link", "state", "session_id")
    list_filter = ("state",)
    list_select_related = ("organization",)
    search_fields = ("session_id", "organization__slug")
    ordering = ("-created_at", "-id")
