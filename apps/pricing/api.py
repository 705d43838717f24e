"""REST: what is sold, where, for how much, and what usage would cost."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import NotFound
from apps.core.http.filters import refuse_unknown_parameters
from apps.core.http.serializers import Input
from apps.core.http.views import PUBLIC, ListMixin, OptionalOrganizationView
from apps.core.money import plain
from apps.core.permissions import IntegrationScope
from apps.pricing import estimates, selectors
from apps.pricing.models import (
    ANY,
    CODE_LENGTH_MAX,
    QUANTITY_DECIMALS_MAX,
    QUANTITY_DIGITS_MAX,
    SHORT_CODE_LENGTH_MAX,
    Price,
    PriceBookVersion,
    Region,
    Sku,
)
from apps.pricing.rating import PriceTerms

ITEMS_MAX = 100


class PricedView(OptionalOrganizationView):
    """A view of prices: the organization's own when there is one, else the operator's default book."""

    permission = PUBLIC

    @property
    def currency(self) -> str:
        """The currency that the caller is billed in."""
        return str(self.organization.currency) if self.organization else settings.DEFAULT_CURRENCY

    def version(self) -> PriceBookVersion | None:
        """Return the version in force for the caller now."""
        return selectors.version_in_force(
            organization_id=self.actor.organization_id, currency=self.currency, at=timezone.now()
        )


class TierOutput(serializers.Serializer[Any]):
    """A tier, up to and including `up_to`; null in the last."""

    up_to = serializers.CharField(allow_null=True)
    unit_price = serializers.CharField()
    flat_fee = serializers.CharField()


class PriceOutput(serializers.Serializer[Any]):
    """One row of a price book; `*` matches any SKU or region, and the most specific row applies."""

    meter = serializers.CharField(source="meter_id")
    unit = serializers.CharField(source="meter.unit_label")
    sku = serializers.CharField()
    region = serializers.CharField()
    model = serializers.CharField()
    currency = serializers.CharField(source="version.book.currency")
    unit_price = serializers.SerializerMethodField()
    tiers = TierOutput(many=True, allow_null=True)
    package_size = serializers.SerializerMethodField()
    package_price = serializers.SerializerMethodField()
    free_units = serializers.SerializerMethodField()
    price_book = serializers.CharField(source="version.book.name")
    version = serializers.IntegerField(source="version.number")
    effective_from = serializers.DateTimeField(source="version.effective_from")

    def get_unit_price(self, price: Price) -> str | None:
        return None if price.unit_price is None else plain(price.unit_price)

    def get_package_size(self, price: Price) -> str | None:
        return None if price.package_size is None else plain(price.package_size)

    def get_package_price(self, price: Price) -> str | None:
        return None if price.package_price is None else plain(price.package_price)

    def get_free_units(self, price: Price) -> str | None:
        return None if price.free_units is None else plain(price.free_units)


class PriceFilters(filters.FilterSet):
    """Rows as they are: `sku=*` finds those for any SKU."""

    meter = filters.CharFilter(field_name="meter__code")
    sku = filters.CharFilter()
    region = filters.CharFilter()


class PriceList(ListMixin, PricedView):
    """The price book in force, across all meters."""

    serializer_class = PriceOutput
    filterset_class = PriceFilters
    ordering = ("meter_id", "sku", "region")

    def get_queryset(self) -> QuerySet[Price]:
        """Return the rows of the version in force."""
        prices = Price.objects.select_related("meter", "version__book")
        version = None if getattr(self, "swagger_fake_view", False) else self.version()
        return prices.filter(version=version) if version else prices.none()


class SkuPriceOutput(serializers.Serializer[Any]):
    """What an hour of a SKU costs; unit_price is null where it depends on the quantity, see `/pricing`."""

    meter = serializers.CharField()
    region = serializers.CharField()
    model = serializers.CharField()
    unit_price = serializers.SerializerMethodField()

    def get_unit_price(self, terms: PriceTerms) -> str | None:
        return None if terms.unit_price is None else plain(terms.unit_price)


class SkuOutput(serializers.Serializer[Any]):
    """Something sold, with the prices of its time that apply now."""

    sku = serializers.CharField(source="code")
    name = serializers.CharField()
    family = serializers.CharField()
    accelerator = serializers.CharField(source="attributes.accelerator", default=None, allow_null=True)
    gpus = serializers.CharField(source="attributes.gpus", default=None, allow_null=True)
    vcpus = serializers.CharField(source="attributes.vcpus", default=None, allow_null=True)
    memory_gib = serializers.CharField(source="attributes.memory_gib", default=None, allow_null=True)
    currency = serializers.SerializerMethodField()
    prices = serializers.SerializerMethodField()

    def get_currency(self, _sku: Sku) -> str:
        return str(self.context["currency"])

    @extend_schema(responses=SkuPriceOutput(many=True))
    def get_prices(self, sku: Sku) -> list[dict[str, Any]]:
        rows = selectors.hourly_prices(self.context["rows"], sku.code)
        return [dict(SkuPriceOutput(row).data) for row in rows]


class SkuFilters(filters.FilterSet):
    family = filters.CharFilter(lookup_expr="iexact")
    accelerator = filters.CharFilter(field_name="attributes__accelerator", lookup_expr="iexact")


class Catalog(ListMixin, PricedView):
    """Everything sold, with what it costs per hour."""

    serializer_class = SkuOutput
    filterset_class = SkuFilters
    queryset = Sku.objects.all()
    ordering = ("code",)

    def get_serializer_context(self) -> dict[str, Any]:
        """Add the prices in force, read once for the page."""
        context = dict(super().get_serializer_context())
        if getattr(self, "swagger_fake_view", False):
            return context
        now = timezone.now()
        rows = selectors.rows_in_force(
            organization_id=self.actor.organization_id, currency=self.currency, at=now
        )
        return {**context, "rows": rows, "currency": self.currency}


class RegionOutput(serializers.Serializer[Any]):
    """A place where things are sold."""

    code = serializers.CharField()
    name = serializers.CharField()


class RegionList(ListMixin, OptionalOrganizationView):
    """Every region."""

    permission = PUBLIC
    serializer_class = RegionOutput
    queryset = Region.objects.all()
    ordering = ("code",)


class RegionDetail(OptionalOrganizationView):
    """One region."""

    permission = PUBLIC

    @extend_schema(responses=RegionOutput)
    def get(self, request: Request, code: str) -> Response:
        refuse_unknown_parameters(request, set())
        region = Region.objects.filter(code=code).first()
        if region is None:
            raise NotFound
        return Response(RegionOutput(region).data)


class ItemInput(Input):
    """Usage to price; quantity is in the meter's own unit, such as GPU-hours."""

    meter = serializers.CharField(max_length=SHORT_CODE_LENGTH_MAX)
    sku = serializers.CharField(max_length=CODE_LENGTH_MAX, default=ANY, allow_blank=True)
    region = serializers.CharField(max_length=SHORT_CODE_LENGTH_MAX, default=ANY, allow_blank=True)
    quantity = serializers.DecimalField(
        max_digits=QUANTITY_DIGITS_MAX - 4, decimal_places=QUANTITY_DECIMALS_MAX, min_value=0
    )


class EstimateInput(Input):
    """The usage of one billing period."""

    items = ItemInput(many=True, allow_empty=False, max_length=ITEMS_MAX)  # type: ignore[call-arg]
    price_book = serializers.CharField(max_length=150, default="", allow_blank=True, help_text="Name or id.")
    at = serializers.DateTimeField(default=None, allow_null=True, help_text="Default: now.")


class TierShareOutput(serializers.Serializer[Any]):
    """What one tier contributes; unit_price is null for packages, which are sold whole."""

    up_to = serializers.CharField(allow_null=True)
    quantity = serializers.CharField()
    unit_price = serializers.CharField(allow_null=True)
    flat_fee = serializers.CharField()
    amount = serializers.CharField()


class EstimateLineOutput(serializers.Serializer[Any]):
    """An item priced: amount as an invoice line rounds it, amount_exact before rounding."""

    meter = serializers.CharField()
    sku = serializers.CharField()
    region = serializers.CharField()
    quantity = serializers.CharField()
    unit_price = serializers.CharField(allow_null=True)
    amount = serializers.CharField()
    amount_exact = serializers.CharField()
    tiers = TierShareOutput(many=True)


class EstimateOutput(serializers.Serializer[Any]):
    """The lines and their sum."""

    lines = EstimateLineOutput(many=True)
    total = serializers.CharField()
    currency = serializers.CharField()


class EstimateCreate(PricedView):
    """What usage would cost; writes nothing."""

    @extend_schema(request=EstimateInput, responses=EstimateOutput)
    def post(self, request: Request) -> Response:
        body = EstimateInput.parse(request)
        estimate = estimates.estimate(
            items=[estimates.Item(**item) for item in body["items"]],
            organization_id=self.actor.organization_id,
            currency=self.currency,
            at=body["at"] or timezone.now(),
            book=body["price_book"],
            any_book=self.actor.can(IntegrationScope.PRICING_MANAGE),
        )
        return Response(
            {
                "lines": [_rendered(line) for line in estimate.lines],
                "total": f"{estimate.total:f}",
                "currency": estimate.currency,
            }
        )


def _rendered(line: estimates.Line) -> dict[str, Any]:
    return {
        "meter": line.item.meter,
        "sku": line.item.sku,
        "region": line.item.region,
        "quantity": plain(line.item.quantity),
        "unit_price": None if line.unit_price is None else plain(line.unit_price),
        "amount": f"{line.amount:f}",
        "amount_exact": plain(estimates.shown(line.exact)),
        "tiers": [
            {
                "up_to": None if share.up_to is None else plain(share.up_to),
                "quantity": plain(estimates.shown(share.quantity)),
                "unit_price": None if share.unit_price is None else plain(share.unit_price),
                "flat_fee": plain(share.flat_fee),
                "amount": plain(estimates.shown(share.amount)),
            }
            for share in line.tiers
        ],
    }
