"""The filters of billing's lists."""

from __future__ import annotations

from django.db.models import QuerySet
from django.utils import timezone
from django_filters import rest_framework as filters

from apps.billing import statements
from apps.billing.models import Budget, ChargeHour, CreditLot, Hold, HoldQuerySet, Pot
from apps.core.http.filters import CreatedFilterSet, MomentFilter
from apps.ledger.selectors import Movement
from apps.metering.models import ResourceQuerySet


class TransactionFilters(CreatedFilterSet):
    kind = filters.CharFilter(field_name="kind")
    pot = filters.ChoiceFilter(
        choices=[(pot, pot) for pot in statements.POTS],
        method="filter_pot",
        label="paid, promo or receivable",
    )
    occurred_from = MomentFilter(field_name="occurred_at", lookup_expr="gte")
    occurred_to = MomentFilter(field_name="occurred_at", lookup_expr="lt")

    def filter_pot(self, queryset: QuerySet[Movement], _name: str, value: str) -> QuerySet[Movement]:
        return queryset.filter(account_kind=statements.ACCOUNT_KINDS[value])


class CreditFilters(CreatedFilterSet):
    pot = filters.ChoiceFilter(choices=Pot.choices)

    class Meta:
        model = CreditLot
        fields = ("pot",)


class BudgetFilters(CreatedFilterSet):
    project = filters.CharFilter(field_name="project__slug")

    class Meta:
        model = Budget
        fields = ("scope", "action")


class HoldFilters(CreatedFilterSet):
    state = filters.ChoiceFilter(
        choices=[("live", "live"), ("over", "over")], method="filter_state", label="live or over"
    )

    def filter_state(self, queryset: HoldQuerySet, _name: str, value: str) -> HoldQuerySet:
        now = timezone.now()
        return queryset.live(now) if value == "live" else queryset.not_live(now)

    class Meta:
        model = Hold
        fields = ("source", "subject")


class ResourceFilters(filters.FilterSet):
    state = filters.ChoiceFilter(
        choices=[("running", "running"), ("stopped", "stopped")],
        method="filter_state",
        label="running or stopped",
    )

    def filter_state(self, queryset: ResourceQuerySet, _name: str, value: str) -> ResourceQuerySet:
        running = queryset.running_at(timezone.now())
        return running if value == "running" else queryset.exclude(pk__in=running.values("pk"))


class BillingRecordFilters(filters.FilterSet):
    hour_from = MomentFilter(field_name="hour", lookup_expr="gte")
    hour_to = MomentFilter(field_name="hour", lookup_expr="lt")
    period = filters.CharFilter(field_name="key__period__label")
    meter = filters.CharFilter(field_name="key__meter")
    sku = filters.CharFilter(field_name="key__sku")
    region = filters.CharFilter(field_name="key__region")
    unpriced = filters.BooleanFilter(field_name="key__price", lookup_expr="isnull")

    class Meta:
        model = ChargeHour
        fields: tuple[str, ...] = ()
