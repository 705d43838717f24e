"""Where payments are, and where Stripe calls."""

from django.urls import path

from apps.payments import api
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
urlpatterns = [path("payments/webhook", _webhook)]
