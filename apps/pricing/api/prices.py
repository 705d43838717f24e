"""REST: what is sold, where, for how much, and what usage would cost."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.functional import cached_property
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
    PriceOverride,
    Region,
    Sku,
)
from apps.pricing.rating import PriceTerms
from apps.pricing.rows import is_code, tier_as_json
from apps.pricing.selectors import Segment

ITEMS_MAX = 100


class PricedView(OptionalOrganizationView):
    """A view of prices: the organization's own when there is one, else the operator's default book."""

    permission = PUBLIC

    @property
    def currency(self) -> str:
        """The currency that the caller is billed in."""
        return str(self.organization.currency) if self.organization else settings.DEFAULT_CURRENCY

    @cached_property
    def in_force(self) -> Segment:
        """What prices the caller's usage now, read once."""
        return selectors.prices_in_force(
            organization_id=self.actor.organization_id, currency=self.currency, at=timezone.now()
        )


class TierOutput(serializers.Serializer[Any]):
    """A tier, up to and including `up_to`; null in the last."""

    up_to = serializers.CharField(allow_null=True)
    unit_price = serializers.CharField()
    flat_fee = serializers.CharField()


class PriceOutput(serializers.Serializer[Any]):
    """One row of the prices in force; `*` matches any SKU or region, and the most specific row applies.

    negotiated: whether the organization pays this instead of what the book says. Its own prices are in no book, and
    come before all of the book's.
    """

    meter = serializers.CharField()
    unit = serializers.CharField()
    sku = serializers.CharField()
    region = serializers.CharField()
    model = serializers.CharField()
    currency = serializers.CharField()
    unit_price = serializers.CharField(allow_null=True)
    tiers = TierOutput(many=True, allow_null=True)
    package_size = serializers.CharField(allow_null=True)
    package_price = serializers.CharField(allow_null=True)
    free_units = serializers.CharField(allow_null=True)
    negotiated = serializers.BooleanField()
    price_book = serializers.CharField(allow_null=True)
    version = serializers.IntegerField(allow_null=True)
    effective_from = serializers.DateTimeField()


class PriceFilters(filters.FilterSet):
    """Rows as they are: `sku=*` finds those for any SKU."""

    meter = filters.CharFilter(field_name="meter__code")
    sku = filters.CharFilter()
    region = filters.CharFilter()


class PriceList(ListMixin, PricedView):
    """The price book in force, across all meters, as the caller pays it."""

    serializer_class = PriceOutput
    filterset_class = PriceFilters
    queryset = Price.objects.none()  # For the schema.
    ordering = ("meter_id", "sku", "region")

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        prices = self.filter_queryset(selectors.rows_of_book(self.in_force))
        rows: Any = prices
        if self.in_force.own:
            own = selectors.rows_of_own(self.in_force)
            rows = _Both(prices, PriceFilters(request.query_params, queryset=own, request=request).qs)
        page = self.paginate_queryset(rows)
        assert page is not None, "every list has pages"
        return self.get_paginated_response([self._row(row) for row in _loaded(page, rows)])

    def _row(self, row: Price | PriceOverride) -> dict[str, Any]:
        terms = selectors.terms_in(self.in_force, row)
        version = row.version if isinstance(row, Price) else None
        assert row.meter is not None, "a percentage is no row"
        return {
            "meter": row.meter_id,
            "unit": row.meter.unit_label,
            "sku": row.sku,
            "region": row.region,
            "model": terms.model,
            "currency": self.currency,
            "unit_price": _text(terms.unit_price),
            "tiers": [tier_as_json(tier) for tier in terms.tiers] or None,
            "package_size": _text(terms.package_size),
            "package_price": _text(terms.package_price),
            "free_units": _text(terms.free_units),
            "negotiated": terms.override_id is not None,
            "price_book": version.book.name if version else None,
            "version": version.number if version else None,
            "effective_from": row.effective_from
            if isinstance(row, PriceOverride)
            else row.version.effective_from,
        }


class _Both:
    """Rows of a book and the organization's own as one list that has pages: keys first, then the rows of the page."""

    def __init__(self, *parts: QuerySet[Any]) -> None:
        self.parts = parts

    def filter(self, condition: Q) -> _Both:
        return _Both(*(part.filter(condition) for part in self.parts))

    def order_by(self, *order: str) -> QuerySet[Any, dict[str, Any]]:
        # PostgreSQL orders them, so that codes sort as they do in every other list.
        keys = [part.order_by().values("pk", *order) for part in self.parts]
        return keys[0].union(*keys[1:], all=True).order_by(*order)


def _loaded(page: Sequence[Any], rows: Any) -> list[Price | PriceOverride]:
    if not isinstance(rows, _Both):
        return list(page)
    keys = [row["pk"] for row in page]
    found = {row.pk: row for part in rows.parts for row in part.filter(pk__in=keys)}
    return [found[key] for key in keys]


def _text(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


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
    """Everything sold, with what it costs per hour: the SKUs that have a price in the book in force."""

    serializer_class = SkuOutput
    filterset_class = SkuFilters
    queryset = Sku.objects.none()  # For the schema.
    ordering = ("code",)

    @cached_property
    def rows(self) -> Sequence[PriceTerms]:
        """The prices in force, read once for the page."""
        return selectors.rows_in_force(
            organization_id=self.actor.organization_id, currency=self.currency, at=timezone.now()
        )

    def get_queryset(self) -> QuerySet[Sku]:
        """Return the SKUs with a price: one of their own, or of time for any SKU."""
        if getattr(self, "swagger_fake_view", False):
            return Sku.objects.none()
        if any(row.sku == ANY and row.unit_seconds > 1 for row in self.rows):
            return Sku.objects.all()
        return Sku.objects.filter(code__in={row.sku for row in self.rows})

    def get_serializer_context(self) -> dict[str, Any]:
        """Add the prices in force."""
        context = dict(super().get_serializer_context())
        if getattr(self, "swagger_fake_view", False):
            return context
        return {**context, "rows": self.rows, "currency": self.currency}


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
        # What can be no code is not asked for: PostgreSQL refuses a NUL.
        region = Region.objects.filter(code=code).first() if is_code(code, "region") else None
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

    items = ItemInput(many=True, allow_empty=False, max_length=ITEMS_MAX)  # type: ignore[call-arg]  # Of a list.
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
