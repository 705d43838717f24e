"""What usage was charged to credit, in the staff admin: to read, with the way up and down from each row."""

from __future__ import annotations

from decimal import Decimal

from django.contrib import admin
from django.db.models import QuerySet, Sum
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from apps.billing.models import BillingProgress, Burn, ChargeHour, ChargeKey
from apps.core.money import grouped
from apps.core.staff import OrganizationLink, ReadOnlyAdmin, link_to, list_link, micros_column


@admin.register(ChargeKey)
class ChargeKeyAdmin(OrganizationLink, ReadOnlyAdmin):
    list_display = (
        "organization_link",
        "period",
        "meter",
        "sku",
        "region",
        "priced_by",
        "quantity",
        "amount",
        "hours",
    )
    list_filter = (("price_key_id", admin.EmptyFieldListFilter), "meter", "period__label")
    list_select_related = ("organization", "period", "price__version__book", "override")
    search_fields = ("id", "organization__slug", "sku", "region")
    ordering = ("-created_at", "-id")
    amount = micros_column("micros_sum", _("Amount"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[ChargeKey]:
        keys: QuerySet[ChargeKey] = super().get_queryset(request)
        return keys.annotate(quantity_sum=Sum("hours__quantity"), micros_sum=Sum("hours__amount_micros"))

    @admin.display(description=_("Price"))
    def priced_by(self, key: ChargeKey) -> SafeString | str:
        if key.override is not None:
            return link_to("pricing_priceoverride", key.override_id, str(key.override))
        if key.price is None:
            return str(_("unpriced"))
        return link_to("pricing_pricebookversion", key.price.version_id, str(key.price.version))

    @admin.display(description=_("Counted"), ordering="quantity_sum")
    def quantity(self, key: ChargeKey) -> str:
        return grouped(key.quantity_sum or Decimal(0))  # type: ignore[attr-defined]  # Of `get_queryset`.

    @admin.display(description=_("Hours"))
    def hours(self, key: ChargeKey) -> SafeString:
        return list_link("billing_chargehour", str(_("Hours")), key__id__exact=key.id)


@admin.register(ChargeHour)
class ChargeHourAdmin(ReadOnlyAdmin):
    list_display = ("hour", "key_link", "counted", "amount", "revision", "charged_at", "burns")
    list_filter = (("key__price_key_id", admin.EmptyFieldListFilter),)
    list_select_related = ("key",)
    search_fields = ("key__id", "organization__slug", "key__sku")
    date_hierarchy = "hour"
    ordering = ("-hour", "-id")
    show_full_result_count = False
    amount = micros_column("amount_micros", _("Amount"))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup == "key__id__exact" or super().lookup_allowed(lookup, value, request)

    @admin.display(description=_("Charge key"))
    def key_link(self, row: ChargeHour) -> SafeString | str:
        return link_to("billing_chargekey", row.key_id, str(row.key))

    @admin.display(description=_("Counted"), ordering="quantity")
    def counted(self, row: ChargeHour) -> str:
        return grouped(row.quantity)

    @admin.display(description=_("Burns"))
    def burns(self, row: ChargeHour) -> SafeString:
        return list_link("billing_burn", str(_("Burns")), q=row.key_id)


@admin.register(Burn)
class BurnAdmin(ReadOnlyAdmin):
    list_display = ("hour", "key_link", "paid_by", "amount", "reversed_amount", "transfer_link")
    list_filter = (("lot", admin.EmptyFieldListFilter),)
    list_select_related = ("key", "lot")
    search_fields = ("key__id", "lot__id", "organization__slug")
    ordering = ("-id",)
    show_full_result_count = False
    amount = micros_column("amount_micros", _("Amount"))
    reversed_amount = micros_column("reversed_micros", _("Reversed"))

    @admin.display(description=_("Charge key"))
    def key_link(self, burn: Burn) -> SafeString | str:
        return link_to("billing_chargekey", burn.key_id, str(burn.key))

    @admin.display(description=_("Paid by"))
    def paid_by(self, burn: Burn) -> SafeString | str:
        if burn.lot is None:
            return str(_("receivable"))
        return link_to("billing_creditlot", burn.lot_id, burn.lot.get_pot_display())

    @admin.display(description=_("Transfer"))
    def transfer_link(self, burn: Burn) -> SafeString | str:
        return link_to("ledger_transfer", burn.transfer_id, str(_("Transfer")))


@admin.register(BillingProgress)
class BillingProgressAdmin(ReadOnlyAdmin):
    list_display = ("organization", "charged_until", "unbilled_receipts")
    list_select_related = ("organization",)
    search_fields = ("organization__slug",)
    ordering = ("organization__slug",)
    unbilled_receipts = micros_column("unbilled_receipts_micros", _("Paid ahead of the invoice"))
