"""What narrows the payments of a page."""

from __future__ import annotations

from django import forms
from django.db.models import Exists, OuterRef
from django.utils.translation import gettext_lazy as _
from django_filters import ChoiceFilter, DateFilter, FilterSet

from apps.payments.models import (
    LIVE_STATES,
    Dispute,
    Payment,
    PaymentQuerySet,
    PaymentState,
    Refund,
    RefundState,
)

_DAY = forms.DateInput(attrs={"type": "date"})


class PaymentFilters(FilterSet):
    """How a payment stands, and the days on which it was started; both are included, in the zone in force."""

    state = ChoiceFilter(
        label=_("State"),
        empty_label=_("Any"),
        method="filter_state",
        choices=[
            ("paid", _("Paid")),
            ("waiting", _("Waiting")),
            ("unpaid", _("Failed or not paid")),
            ("refunded", _("Refunded")),
            ("disputed", _("Disputed")),
        ],
    )
    first = DateFilter(label=_("From"), field_name="created_at", lookup_expr="date__gte", widget=_DAY)
    last = DateFilter(label=_("To"), field_name="created_at", lookup_expr="date__lte", widget=_DAY)

    def filter_state(self, queryset: PaymentQuerySet, _name: str, value: str) -> PaymentQuerySet:
        match value:
            case "paid":
                return queryset.filter(state=PaymentState.SUCCEEDED)
            case "waiting":
                return queryset.filter(state__in=LIVE_STATES)
            case "unpaid":
                ended = (PaymentState.FAILED, PaymentState.CANCELED, PaymentState.EXPIRED)
                return queryset.filter(state__in=ended)
            case "refunded":
                sent = Refund.objects.filter(
                    payment=OuterRef("pk"), state__in=(RefundState.PENDING, RefundState.SUCCEEDED)
                )
                return queryset.filter(Exists(sent))
            case _:
                return queryset.filter(Exists(Dispute.objects.filter(payment=OuterRef("pk"))))

    class Meta:
        model = Payment
        fields: tuple[str, ...] = ()
