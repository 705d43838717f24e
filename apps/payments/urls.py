"""Where payments are, and where Stripe calls."""

from django.urls import path
from django.utils.translation import gettext_lazy as _

from apps.core.http.navigation import Section
from apps.core.permissions import Permission
from apps.payments import api, views
from apps.payments.webhooks import StripeWebhook

_webhook = StripeWebhook.as_view()

api_urlpatterns = [
    path("billing/checkout", api.CheckoutCreate.as_view(), name="checkout"),
    path("billing/payments", api.PaymentList.as_view(), name="payments"),
    path("billing/payments/<uuid:payment_id>", api.PaymentDetail.as_view(), name="payment"),
    path("billing/invoices/<uuid:invoice_id>/pay", api.InvoicePay.as_view(), name="invoice-pay"),
    path("billing/payment-methods", api.PaymentMethodList.as_view(), name="payment-methods"),
    path(
        "billing/payment-methods/<uuid:method_id>", api.PaymentMethodDetail.as_view(), name="payment-method"
    ),
    path("billing/auto-top-up", api.AutoTopUpView.as_view(), name="auto-top-up"),
    path("billing/refunds", api.RefundList.as_view(), name="refunds"),
    path("payments/webhook", _webhook, name="stripe-webhook"),
]
urlpatterns = [
    path("payments/webhook", _webhook),
    path("app/<slug:slug>/payments", views.Payments.as_view(), name="payments"),
    path("app/<slug:slug>/payments/returned", views.Returned.as_view(), name="payment-returned"),
    path("app/<slug:slug>/payments/cards", views.AddCard.as_view(), name="card-add"),
    path("app/<slug:slug>/payments/cards/<uuid:method_id>", views.CardAction.as_view(), name="card-action"),
    path("app/<slug:slug>/payments/auto-top-up", views.AutoTopUpPage.as_view(), name="auto-top-up"),
    path("app/<slug:slug>/payments/<uuid:payment_id>", views.PaymentPage.as_view(), name="payment"),
    path("app/<slug:slug>/invoices/<uuid:invoice_id>/pay", views.PayInvoice.as_view(), name="invoice-to-pay"),
]
navigation = [
    Section(
        key="payments",
        label=_("Payments"),
        route="payments",
        permission=Permission.BILLING_READ,
        position=140,
        letter="y",
    ),
]
