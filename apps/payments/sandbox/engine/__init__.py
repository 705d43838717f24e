"""What Stripe does with money, in miniature: every change stores its objects and their events in one transaction."""

from apps.payments.sandbox.engine.checkout import Checkout
from apps.payments.sandbox.engine.intents import BANK_DEBIT
from apps.payments.sandbox.engine.refunds import Refunds

__all__ = ["BANK_DEBIT", "Engine"]


class Engine(Checkout, Refunds):
    """The objects of one account and what may happen to them.

    base_url: where the hosted pages are; webhooks: whether events are queued for delivery.
    """
