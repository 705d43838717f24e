"""Meters, SKUs, regions, and every price that was ever written."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core.money import grouped
from apps.core.staff import ReadOnlyAdmin, ServiceAdmin, link_to, list_link, staff_actor
from apps.pricing import services
from apps.pricing.models import (
    Meter,
    Price,
    Region,
    Sku,
    VersionState,
)


class CatalogAdmin(ServiceAdmin):
    """Meters, SKUs and regions: added and described, never removed, since prices and usage name them."""

    search_fields = ("code", "name")
    ordering = ("code",)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("code",) if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        services.save_entry(actor=staff_actor(request), entry=obj)

    @admin.display(description=_("Prices"))
    def prices(self, entry: Meter | Sku | Region) -> SafeString:
        column = "meter" if isinstance(entry, Meter) else str(entry._meta.model_name)
        return list_link("pricing_price", _now("Prices"), **{f"{column}__exact": entry.code})


@admin.register(Meter)
class MeterAdmin(CatalogAdmin):
    list_display = ("code", "name", "unit_label", "unit_seconds", "prices")


@admin.register(Sku)
class SkuAdmin(CatalogAdmin):
    list_display = ("code", "name", "family", "gpus", "prices")
    list_filter = ("family",)

    @admin.display(description=_("GPUs"))
    def gpus(self, sku: Sku) -> str:
        return str(sku.attributes.get("gpus", ""))


@admin.register(Region)
class RegionAdmin(CatalogAdmin):
    list_display = ("code", "name", "prices")


@admin.register(Price)
class PriceAdmin(ReadOnlyAdmin):
    list_display = ("place", "version_link", "state", "model", "cost", "steps")
    list_filter = (
        "version__state", ("meter", admin.RelatedOnlyFieldListFilter), "model",
        ("version__book", admin.RelatedOnlyFieldListFilter), "region",
    )  # fmt: skip
    list_select_related = ("version__book", "meter")
    search_fields = ("sku", "region", "key_id", "id")
    ordering = ("meter", "sku", "region", "-version__number", "pk")
    fields = ("version_link", "meter", "sku", "region", "model", "cost", "tiers", "key_id", "steps")
    readonly_fields = fields

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow the links from versions and the catalog."""
        own = {"version__id__exact", "meter__exact", "sku__exact", "region__exact"}
        return lookup in own or super().lookup_allowed(lookup, value, request)

    @admin.display(description=_("Meter · SKU · region"), ordering="sku")
    def place(self, price: Price) -> str:
        return str(price)

    @admin.display(description=_("Version"), ordering="version__number")
    def version_link(self, price: Price) -> SafeString | str:
        return link_to("pricing_pricebookversion", price.version_id, str(price.version))

    @admin.display(description=_("State"), ordering="version__state")
    def state(self, price: Price) -> str:
        return price.version.get_state_display()

    @admin.display(description=_("Price"))
    def cost(self, price: Price) -> str:
        """Say the terms in a few words."""
        currency, unit = price.version.book.currency, price.meter.unit_label
        if price.unit_price is not None:
            return f"{grouped(price.unit_price, decimals_min=2)} {currency} / {unit}"
        if price.package_price is not None and price.package_size is not None:
            return f"{grouped(price.package_price, decimals_min=2)} {currency} / {grouped(price.package_size)} {unit}"
        return _now("%(count)d tiers, %(currency)s / %(unit)s") % {
            "count": len(price.tiers or ()),
            "currency": currency,
            "unit": unit,
        }

    @admin.display(description=_("Next steps"))
    def steps(self, price: Price) -> SafeString | str:
        """Link to what can be done with a row, which is nothing once it is published."""
        if price.version.state != VersionState.DRAFT:
            return "–"
        steps = (("edit", _now("Change…")), ("remove", _now("Remove…")))
        links = (
            (reverse(f"admin:pricing_price_{step}", args=[price.version_id, price.pk]), text)
            for step, text in steps
        )
        return format_html_join(" · ", '<a href="{}">{}</a>', links)
