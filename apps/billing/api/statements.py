"""REST: balance, transactions, credits, usage with amounts, rated hours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.billing import selectors, statements, usage
from apps.billing.filters import BillingRecordFilters, CreditFilters, ResourceFilters, TransactionFilters
from apps.billing.models import ChargeHour, CreditLot
from apps.core import money
from apps.core.http.filters import refuse_unknown_parameters
from apps.core.http.pagination import whole_list, whole_list_of
from apps.core.http.views import ListView, OrganizationView
from apps.core.permissions import Permission
from apps.ledger.selectors import Movement, movements_of


class BalanceOutput(serializers.Serializer[Any]):
    """Where the money stands; amounts in major units to the micro, net of tax."""

    currency = serializers.CharField()
    available = serializers.CharField()
    paid = serializers.CharField()
    promo = serializers.CharField()
    accrued = serializers.CharField()
    held = serializers.CharField()
    receivable = serializers.CharField()
    burn_rate_per_hour = serializers.CharField()
    runway_ends_at = serializers.DateTimeField(allow_null=True)
    billing_state = serializers.CharField()


class BalanceView(OrganizationView):
    """What an organization has, uses and owes right now."""

    permission = Permission.BILLING_READ

    @extend_schema(responses=BalanceOutput)
    def get(self, request: Request, **_path: str) -> Response:
        refuse_unknown_parameters(request, set())
        balance = selectors.balance(self.organization, now=timezone.now())
        return Response(
            {
                "currency": balance.currency,
                "available": _major(balance.available_micros),
                "paid": _major(balance.paid_micros),
                "promo": _major(balance.promo_micros),
                "accrued": _major(balance.accrued_micros),
                "held": _major(balance.held_micros),
                "receivable": _major(balance.receivable_micros),
                "burn_rate_per_hour": _major(balance.burn_rate_micros),
                "runway_ends_at": balance.runway_ends_at,
                "billing_state": balance.billing_state,
            }
        )


class TransactionOutput(serializers.Serializer[Any]):
    """One movement of an organization's credit or debt; the amount is signed from the customer's side."""

    id = serializers.UUIDField(help_text="Of this row; an invoice paid from credit is two, one of each pot.")
    kind = serializers.CharField()
    amount = serializers.CharField()
    currency = serializers.CharField()
    pot = serializers.CharField(help_text="paid, promo or receivable")
    reason = serializers.CharField()
    reference = serializers.CharField()
    occurred_at = serializers.DateTimeField()
    created_at = serializers.DateTimeField()


class TransactionList(ListView):
    """The statement: whatever was done to the organization's credit or to what it owes, newest first.

    The amounts of a pot add up to its balance. An invoice paid from credit is two rows: less of `paid`, and less owed.
    """

    permission = Permission.BILLING_READ
    serializer_class = TransactionOutput
    filterset_class = TransactionFilters
    ordering = ("-occurred_at", "-transfer_id", "-account_id")
    sortable: ClassVar = {name: (name, "transfer_id", "account_id") for name in ("occurred_at", "created_at")}

    def get_queryset(self) -> QuerySet[Movement]:
        return movements_of(self.organization_id)

    def render_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return [statements.transaction_row(row) for row in rows]


class AggregateOutput(serializers.Serializer[Any]):
    group = serializers.CharField()
    amount = serializers.CharField()
    count = serializers.IntegerField()


class TransactionAggregate(OrganizationView):
    """The statement added up by kind, pot, day or month (in the organization's time zone)."""

    permission = Permission.BILLING_READ

    @extend_schema(
        parameters=[
            OpenApiParameter("group_by", str, enum=statements.GROUPS, required=True),
            OpenApiParameter("occurred_from", str),
            OpenApiParameter("occurred_to", str),
        ],
        responses=whole_list_of(AggregateOutput),
    )
    def get(self, request: Request, **_path: str) -> Response:
        rows = statements.aggregate(self.organization, statements.AggregateQuery.parse(request.query_params))
        return whole_list(rows)


class CreditOutput(serializers.Serializer[Any]):
    """One lot of credit."""

    id = serializers.UUIDField()
    pot = serializers.CharField()
    amount = serializers.SerializerMethodField()
    remaining = serializers.SerializerMethodField()
    currency = serializers.CharField()
    priority = serializers.IntegerField()
    effective_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    source = serializers.CharField()  # type: ignore[assignment]  # Field has an attribute of this name.
    reason = serializers.CharField()
    created_at = serializers.DateTimeField()

    def get_amount(self, lot: CreditLot) -> str:
        return _major(lot.amount_micros)

    def get_remaining(self, lot: CreditLot) -> str:
        return _major(lot.account.balance_micros)


class CreditList(ListView):
    """The lots of credit, the newest first; remaining is what each still pays."""

    permission = Permission.BILLING_READ
    serializer_class = CreditOutput
    filterset_class = CreditFilters

    def get_queryset(self) -> QuerySet[CreditLot]:
        return CreditLot.objects.visible_to(self.actor).select_related("account")


class UsageOutput(serializers.Serializer[Any]):
    """Usage added up; the fields that were not grouped by are absent."""

    start = serializers.DateTimeField(required=False)
    meter = serializers.CharField()
    sku = serializers.CharField(required=False)
    project = serializers.CharField(required=False, allow_null=True)
    region = serializers.CharField(required=False)
    credential = serializers.CharField(required=False, allow_null=True)
    resource = serializers.CharField(required=False)
    gpu_hours = serializers.CharField(allow_null=True)
    quantity = serializers.CharField()
    amount = serializers.CharField()
    unpriced_quantity = serializers.CharField()
    currency = serializers.CharField()


class UsageView(OrganizationView):
    """Usage and what it costs, grouped and by interval; the running hour is included."""

    permission = Permission.USAGE_READ

    @extend_schema(
        parameters=[
            OpenApiParameter("from", str, description="RFC 3339 or a date; the running month by default."),
            OpenApiParameter("to", str, description="Exclusive."),
            OpenApiParameter("group_by", str, description="Comma-separated: " + ", ".join(usage.GROUPS)),
            OpenApiParameter(
                "interval",
                str,
                enum=usage.INTERVALS,
                description=f"By hour at most {usage.HOURLY_DAYS_MAX} days at once; by day, or grouped by resource, at"
                f" most {usage.DAYS_MAX}.",
            ),
        ],
        responses=whole_list_of(UsageOutput),
    )
    def get(self, request: Request, **_path: str) -> Response:
        query = usage.UsageQuery.parse(
            request.query_params, zone=self.organization.timezone, now=timezone.now()
        )
        rows = usage.usage_with_amounts(self.organization, query, now=timezone.now())
        return whole_list(rows)


class ResourceOutput(serializers.Serializer[Any]):
    resource = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]  # Field has an attribute of this name.
    state = serializers.CharField(help_text="running or stopped")
    sku = serializers.CharField()
    region = serializers.CharField()
    project = serializers.CharField(allow_null=True)
    gpus = serializers.CharField(allow_null=True)
    since = serializers.DateTimeField(allow_null=True)
    until = serializers.DateTimeField(allow_null=True)
    cost = serializers.CharField()
    currency = serializers.CharField()


class UsageResourceList(ListView):
    """The resources: what runs, since when, and what each has cost so far."""

    permission = Permission.USAGE_READ
    serializer_class = ResourceOutput
    ordering = ("-id",)
    filterset_class = ResourceFilters

    def get_queryset(self) -> QuerySet[Any]:
        return usage.resources_of(self.organization_id)

    def render_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return usage.resource_rows(self.organization, rows, now=timezone.now())


class BillingRecordOutput(serializers.Serializer[Any]):
    """One rated hour of one meter, SKU and region; quantity in the meter's unit."""

    id = serializers.UUIDField()
    period = serializers.CharField()
    hour = serializers.DateTimeField()
    meter = serializers.CharField()
    sku = serializers.CharField()
    region = serializers.CharField()
    quantity = serializers.CharField()
    amount = serializers.CharField()
    currency = serializers.CharField()
    price_version = serializers.CharField(allow_null=True)
    invoice = serializers.CharField(allow_null=True)


class BillingRecordList(ListView):
    """Rated usage hour by hour, newest first."""

    permission = Permission.BILLING_READ
    serializer_class = BillingRecordOutput
    filterset_class = BillingRecordFilters
    ordering = ("-hour", "-id")
    sortable: ClassVar = {"hour": ("hour", "id")}

    def get_queryset(self) -> QuerySet[ChargeHour]:
        return usage.records_of(self.actor)

    def render_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return usage.record_rows(rows, self.organization.currency)


class BillingRecordDetail(OrganizationView):
    """One rated hour."""

    permission = Permission.BILLING_READ

    @extend_schema(responses=BillingRecordOutput)
    def get(self, request: Request, **path: Any) -> Response:
        record = usage.record_by_id(self.actor, path["record_id"])
        return Response(usage.record_rows([record], self.organization.currency)[0])


def _major(micros: int) -> str:
    return f"{money.from_micros(micros):f}"
