"""Payments: money that comes in and goes back through Stripe."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class PaymentsConfig(AppConfig):
    """Checkout, cards, charges, refunds, disputes, and the inbox of Stripe's webhooks."""

    name = "apps.payments"
    label = "payments"
    verbose_name = _("Payments")
