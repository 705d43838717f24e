"""What single organizations pay: the book assigned to them, and their own prices or percentage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core.staff import OrganizationLink, ServiceAdmin, link_to, staff_actor, take_step
from apps.pricing import services
from apps.pricing.diffs import describe
from apps.pricing.forms import HourForm, OverrideForm
from apps.pricing.models import (
    BookAssignment,
    PriceOverride,
)
from apps.pricing.rows import row_of


@admin.register(BookAssignment)
class BookAssignmentAdmin(OrganizationLink, ServiceAdmin):
    list_display = ("organization_link", "book_link", "effective_from", "effective_to", "created_at")
    list_filter = (("book", admin.RelatedOnlyFieldListFilter),)
    list_select_related = ("organization", "book")
    search_fields = ("organization__slug", "organization__name", "book__name")
    ordering = ("organization__slug", "-effective_from")
    autocomplete_fields = ("book",)
    raw_id_fields = ("organization",)
    fields = ("organization", "book", "effective_from")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: BookAssignment, form: Any, change: bool) -> None:
        made = services.assign_book(
            actor=staff_actor(request),
            organization=obj.organization,
            book=obj.book,
            effective_from=obj.effective_from,
            now=timezone.now(),
        )
        obj.pk = made.pk

    @admin.display(description=_("Price book"), ordering="book__name")
    def book_link(self, assignment: BookAssignment) -> SafeString | str:
        return link_to("pricing_pricebook", assignment.book_id, assignment.book.name)


@admin.register(PriceOverride)
class PriceOverrideAdmin(OrganizationLink, ServiceAdmin):
    """Overrides are added and ended; a change is a new one that ends the one before it."""

    list_display = ("target", "organization_link", "cost", "effective_from", "effective_to", "created_at")
    list_filter = (("percent", admin.EmptyFieldListFilter), ("meter", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("organization", "meter")
    search_fields = ("organization__slug", "organization__name", "sku", "region", "id")
    ordering = ("organization__slug", "-effective_from", "pk")
    raw_id_fields = ("organization",)
    fieldsets = (
        (None, {"fields": ("organization", "effective_from", "effective_to")}),
        (_("Either one percentage for the whole book"), {"fields": ("percent",)}),
        (
            _("or a price"),
            {
                "fields": (
                    ("meter", "sku", "region"),
                    ("model", "unit_price"),
                    "tiers",
                    ("package_size", "package_price", "free_units"),
                )
            },
        ),
    )
    shown = (
        "organization_link",
        "target",
        "cost",
        "effective_from",
        "effective_to",
        "created_at",
        "key_id",
        "steps",
    )

    def get_fieldsets(self, request: HttpRequest, obj: PriceOverride | None = None) -> Any:
        return [(None, {"fields": self.shown})] if obj else super().get_fieldsets(request, obj)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Give the form to new overrides only; an old one is all text."""
        form = forms.ModelForm if obj else OverrideForm
        return super().get_form(request, obj, change, **{**kwargs, "form": form})

    def get_readonly_fields(self, request: HttpRequest, obj: PriceOverride | None = None) -> tuple[str, ...]:
        return self.shown if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: PriceOverride, form: Any, change: bool) -> None:
        make: Callable[..., PriceOverride] = services.override_price
        terms = {"row": form.row}
        if form.row is None:
            make, terms = services.override_by_percent, {"percent": form.cleaned_data["percent"]}
        made = make(
            actor=staff_actor(request),
            organization=obj.organization,
            **terms,
            effective_from=obj.effective_from,
            effective_to=obj.effective_to,
            now=timezone.now(),
        )
        obj.pk = made.pk

    def get_urls(self) -> list[URLPattern]:
        """Add the page that ends an override."""
        page = path(
            "<uuid:override_id>/end/", self.admin_site.admin_view(self.end), name="pricing_override_end"
        )
        return [page, *super().get_urls()]

    def end(self, request: HttpRequest, override_id: Any) -> HttpResponse:
        """Ask when an override ends, then end it."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        override = get_object_or_404(PriceOverride.objects.select_related("organization"), pk=override_id)
        form = HourForm(request.POST or None, label=_now("Ends (UTC, a whole hour)"))

        def step() -> str:
            services.end_override(
                actor=staff_actor(request),
                override=override,
                effective_to=form.cleaned_data["moment"],
                now=timezone.now(),
            )
            return _now("%s ends there.") % override

        return take_step(
            self,
            request,
            row=override,
            row_url=reverse("admin:pricing_priceoverride_change", args=[override.pk]),
            title=_now("End"),
            form=form,
            step=step,
        )

    @admin.display(description=_("What"), ordering="sku")
    def target(self, override: PriceOverride) -> str:
        return _now("Whole book") if override.is_percentage else str(override)

    @admin.display(description=_("Price"))
    def cost(self, override: PriceOverride) -> str:
        if override.is_percentage:
            return str(override)
        assert override.meter is not None, "the database refuses a price without its meter"
        return f"{describe(row_of(override))} {override.currency} / {override.meter.unit_label}"

    @admin.display(description=_("Next steps"))
    def steps(self, override: PriceOverride) -> SafeString | str:
        if override.effective_to is not None:
            return "–"
        url = reverse("admin:pricing_override_end", args=[override.pk])
        return format_html('<a href="{}">{}</a>', url, _now("End…"))
