"""REST: top up, pay invoices, saved cards, automatic top-up, refunds, and the payments themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import NotFound
from apps.core.http.filters import CreatedFilterSet, refuse_unknown_parameters
from apps.core.http.serializers import Input
from apps.core.http.views import ListMixin, ListView, OrganizationView
from apps.core.permissions import Permission
from apps.idempotency.mixins import AttemptMixin, IdempotentMixin, key_of
from apps.ledger import selectors as ledger
from apps.payments import selectors
from apps.payments import services as payments
from apps.payments.models import AutoTopUp, Payment, PaymentKind, PaymentMethod, PaymentState, Refund


class AmountField(serializers.DecimalField):
    """An amount in major units, to the micro."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_digits=18, decimal_places=6, **options)


class CheckoutInput(Input):
    amount = AmountField()
    success_url = serializers.CharField(required=False, allow_blank=True, default="", max_length=2000)
    cancel_url = serializers.CharField(required=False, allow_blank=True, default="", max_length=2000)


class CheckoutOutput(serializers.Serializer[Any]):
    """Where to pay."""

    id = serializers.UUIDField(help_text="The payment; ask for it until its state says paid.")
    checkout_url = serializers.CharField()
    session_id = serializers.CharField()


class CheckoutCreate(AttemptMixin, OrganizationView):
    """Top up: the answer's page takes the payment, and the credit is there once it is paid."""

    permission = Permission.BILLING_TOP_UP

    @extend_schema(request=CheckoutInput, responses={201: CheckoutOutput})
    def post(self, request: Request) -> HttpResponseBase:
        def begin() -> UUID:
            body = CheckoutInput.parse(request)
            return payments.start_top_up(
                actor=self.actor, organization=self.organization, now=timezone.now(), **body
            ).id

        def finish(payment_id: UUID) -> Response:
            payment = payments.open_checkout(payment_id=payment_id, now=timezone.now())
            shown = {"id": payment.id, "checkout_url": payment.checkout_url, "session_id": payment.session_id}
            return Response(shown, status=201)

        return self.attempt(request, begin, finish)


class PaymentOutput(serializers.Serializer[Any]):
    """One attempt to pay; `checkout_url` while its page is open."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=PaymentKind.choices)
    state = serializers.ChoiceField(choices=PaymentState.choices)
    amount = serializers.CharField()
    currency = serializers.CharField()
    invoice = serializers.UUIDField(allow_null=True)
    paid_with = serializers.CharField()
    receipt_url = serializers.CharField(allow_null=True)
    checkout_url = serializers.CharField(allow_null=True)
    failure = serializers.CharField(allow_null=True)
    succeeded_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


class PaymentFilters(CreatedFilterSet):
    kind = filters.MultipleChoiceFilter(choices=PaymentKind.choices)
    state = filters.MultipleChoiceFilter(choices=PaymentState.choices)


class PaymentList(ListView):
    """The organization's payments, newest first."""

    permission = Permission.BILLING_READ
    serializer_class = PaymentOutput
    filterset_class = PaymentFilters

    def get_queryset(self) -> QuerySet[Payment]:
        return Payment.objects.visible_to(self.actor)

    def render_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return [selectors.payment_row(row) for row in rows]


class PaymentDetail(OrganizationView):
    """One payment."""

    permission = Permission.BILLING_READ

    @extend_schema(responses=PaymentOutput)
    def get(self, request: Request, **path: Any) -> Response:
        refuse_unknown_parameters(request, set())
        return Response(selectors.payment_row(selectors.payment_by_id(self.actor, path["payment_id"])))


class InvoicePayInput(Input):
    amount = AmountField(required=False, allow_null=True, default=None)
    by = serializers.ChoiceField(choices=["card", "checkout", "credit"], required=False, default="card")
    success_url = serializers.CharField(required=False, allow_blank=True, default="", max_length=2000)
    cancel_url = serializers.CharField(required=False, allow_blank=True, default="", max_length=2000)


class InvoicePay(AttemptMixin, OrganizationView):
    """Pay an open invoice, whole or an amount of it: with the saved card, on the page of `checkout_url`, from credit.

    Without a saved card there is a page; one that is open for another amount, or instead of which another way is
    asked for, is closed first. A card whose bank asks its holder is answered with 402; pay by checkout then.
    Paid credit pays at once, as far as it goes.
    """

    permission = Permission.BILLING_MANAGE
    step_up = frozenset({"POST"})

    @extend_schema(request=InvoicePayInput, responses={201: PaymentOutput})
    def post(self, request: Request, **path: Any) -> HttpResponseBase:
        def begin() -> UUID:
            body = InvoicePayInput.parse(request)
            by = body.pop("by")
            if by == "credit":
                return payments.pay_invoice_from_credit(
                    actor=self.actor,
                    organization=self.organization,
                    invoice_id=path["invoice_id"],
                    amount=body["amount"],
                    now=timezone.now(),
                ).id
            return payments.start_invoice_payment(
                actor=self.actor,
                organization=self.organization,
                invoice_id=path["invoice_id"],
                by_card=by == "card",
                now=timezone.now(),
                **body,
            ).id

        def finish(payment_id: UUID) -> Response:
            payment = payments.pay(payment_id=payment_id, now=timezone.now())
            return Response(selectors.payment_row(payment), status=201)

        return payments.replacing_page(lambda: self.attempt(request, begin, finish), now=timezone.now())


class PaymentMethodOutput(serializers.Serializer[Any]):
    """A saved card."""

    id = serializers.UUIDField()
    kind = serializers.CharField()
    brand = serializers.CharField()
    last4 = serializers.CharField()
    exp_month = serializers.IntegerField(allow_null=True)
    exp_year = serializers.IntegerField(allow_null=True)
    is_default = serializers.BooleanField()
    created_at = serializers.DateTimeField()


class CardSetupInput(Input):
    success_url = serializers.CharField(required=False, allow_blank=True, default="", max_length=2000)
    cancel_url = serializers.CharField(required=False, allow_blank=True, default="", max_length=2000)


class CardSetupOutput(serializers.Serializer[Any]):
    """Where to enter a card."""

    checkout_url = serializers.CharField()
    session_id = serializers.CharField()


class PaymentMethodList(AttemptMixin, ListMixin, OrganizationView):
    """The saved cards; POST answers with the page that saves another."""

    permission: ClassVar = {"GET": Permission.BILLING_READ, "POST": Permission.BILLING_MANAGE}
    step_up = frozenset({"POST"})
    serializer_class = PaymentMethodOutput

    def get_queryset(self) -> QuerySet[PaymentMethod]:
        return PaymentMethod.objects.visible_to(self.actor)

    def render_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return [selectors.method_row(row) for row in rows]

    @extend_schema(request=CardSetupInput, responses={201: CardSetupOutput})
    def post(self, request: Request) -> HttpResponseBase:
        def begin() -> UUID:
            body = CardSetupInput.parse(request)
            return payments.start_card_setup(
                actor=self.actor, organization=self.organization, now=timezone.now(), **body
            ).id

        def finish(setup_id: UUID) -> Response:
            setup = payments.open_card_setup(setup_id=setup_id, now=timezone.now())
            return Response({"checkout_url": setup.checkout_url, "session_id": setup.session_id}, status=201)

        return self.attempt(request, begin, finish)


class DefaultInput(Input):
    is_default = serializers.BooleanField()


class PaymentMethodDetail(AttemptMixin, OrganizationView):
    """One saved card: PATCH makes it the default, DELETE forgets it here and at Stripe. Both may be repeated."""

    idempotency_required = False

    permission: ClassVar = {
        "GET": Permission.BILLING_READ,
        "PATCH": Permission.BILLING_MANAGE,
        "DELETE": Permission.BILLING_MANAGE,
    }
    step_up = frozenset({"PATCH", "DELETE"})

    @extend_schema(responses=PaymentMethodOutput)
    def get(self, request: Request, **path: Any) -> Response:
        refuse_unknown_parameters(request, set())
        return Response(selectors.method_row(selectors.method_by_id(self.actor, path["method_id"])))

    @extend_schema(request=DefaultInput, responses=PaymentMethodOutput)
    def patch(self, request: Request, **path: Any) -> HttpResponseBase:
        def begin() -> UUID:
            method = selectors.method_by_id(self.actor, path["method_id"])
            if DefaultInput.parse(request)["is_default"]:
                payments.make_default(actor=self.actor, method_id=method.id)
            return method.id

        def finish(method_id: UUID) -> Response:
            return Response(selectors.method_row(selectors.method_by_id(self.actor, method_id)))

        return self._once(request, begin, finish)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, **path: Any) -> HttpResponseBase:
        def begin() -> UUID:
            return selectors.method_by_id(self.actor, path["method_id"]).id

        def finish(method_id: UUID) -> Response:
            with contextlib.suppress(NotFound):  # It was there when this began, so it is gone as was asked.
                payments.remove_card(actor=self.actor, method_id=method_id, now=timezone.now())
            return Response(status=204)

        return self._once(request, begin, finish)

    def _once(
        self, request: Request, begin: Callable[[], UUID], finish: Callable[[UUID], Response]
    ) -> HttpResponseBase:
        return finish(begin()) if key_of(request) is None else self.attempt(request, begin, finish)


class AutoTopUpInput(Input):
    threshold = AmountField()
    amount = AmountField()
    monthly_cap = AmountField()


class AutoTopUpOutput(serializers.Serializer[Any]):
    """When the default card is charged by itself."""

    state = serializers.CharField(help_text="active, paused, disabled or off")
    threshold = serializers.CharField(allow_null=True)
    amount = serializers.CharField(allow_null=True)
    monthly_cap = serializers.CharField(allow_null=True)
    currency = serializers.CharField()


class AutoTopUpView(IdempotentMixin, OrganizationView):
    """Charge the default card when what is available falls below the threshold, up to the cap a month."""

    permission: ClassVar = {
        "GET": Permission.BILLING_READ,
        "PUT": Permission.BILLING_MANAGE,
        "DELETE": Permission.BILLING_MANAGE,
    }
    step_up = frozenset({"PUT", "DELETE"})
    idempotency_required = True

    @extend_schema(responses=AutoTopUpOutput)
    def get(self, request: Request) -> Response:
        refuse_unknown_parameters(request, set())
        return Response(self._shown())

    @extend_schema(request=AutoTopUpInput, responses=AutoTopUpOutput)
    def put(self, request: Request) -> Response:
        body = AutoTopUpInput.parse(request)
        payments.set_auto_top_up(actor=self.actor, organization=self.organization, now=timezone.now(), **body)
        return Response(self._shown())

    @extend_schema(responses={204: None})
    def delete(self, request: Request) -> Response:
        payments.turn_off_auto_top_up(actor=self.actor, organization=self.organization, now=timezone.now())
        return Response(status=204)

    def _shown(self) -> dict[str, Any]:
        rule = AutoTopUp.objects.filter(organization_id=self.organization_id).first()
        currency = ledger.wallet_currency(self.organization_id) or self.organization.currency
        return selectors.auto_top_up_row(rule, currency)


class RefundInput(Input):
    payment = serializers.UUIDField()
    amount = AmountField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(max_length=500)


class RefundOutput(serializers.Serializer[Any]):
    """Money of a payment that goes back."""

    id = serializers.UUIDField()
    payment = serializers.UUIDField()
    state = serializers.CharField()
    destination = serializers.CharField()
    amount = serializers.CharField()
    currency = serializers.CharField()
    reason = serializers.CharField()
    message = serializers.CharField(help_text="Why it was rejected; else empty")
    created_at = serializers.DateTimeField()


class RefundList(IdempotentMixin, ListMixin, OrganizationView):
    """Refunds, newest first; POST asks for what is unspent of a payment, and the operator decides."""

    permission: ClassVar = {"GET": Permission.BILLING_READ, "POST": Permission.BILLING_MANAGE}
    step_up = frozenset({"POST"})
    idempotency_required = True
    serializer_class = RefundOutput

    def get_queryset(self) -> QuerySet[Refund]:
        return Refund.objects.visible_to(self.actor)

    def render_rows(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return [selectors.refund_row(row) for row in rows]

    @extend_schema(request=RefundInput, responses={201: RefundOutput})
    def post(self, request: Request) -> Response:
        body = RefundInput.parse(request)
        refund = payments.request_refund(
            actor=self.actor,
            payment_id=body["payment"],
            amount=body["amount"],
            reason=body["reason"],
            now=timezone.now(),
        )
        return Response(selectors.refund_row(refund), status=201)
