"""The one way to Stripe: typed questions and answers, and errors of our own."""

from __future__ import annotations

import os
from functools import cache

from django.conf import settings

from apps.payments.gateway.client import (
    API_VERSION,
    RETRIES,
    TIMEOUT_SECONDS,
    StripeGateway,
)
from apps.payments.gateway.errors import (
    CardRefused,
    GatewayError,
    GatewayTimeout,
    KeyTooOld,
    NotAtStripe,
    PaymentsOff,
    RefusedByStripe,
)
from apps.payments.gateway.protocol import (
    KEY_LASTS,
    Card,
    DisputeAnswer,
    Endpoint,
    EventNote,
    Gateway,
    Intent,
    Key,
    Receipt,
    RefundAnswer,
    Session,
)
from apps.payments.gateway.reading import (
    from_stripe,
    to_stripe,
)

__all__ = [
    "API_VERSION",
    "KEY_LASTS",
    "RETRIES",
    "TIMEOUT_SECONDS",
    "Card",
    "CardRefused",
    "DisputeAnswer",
    "Endpoint",
    "EventNote",
    "Gateway",
    "GatewayError",
    "GatewayTimeout",
    "Intent",
    "Key",
    "KeyTooOld",
    "NotAtStripe",
    "PaymentsOff",
    "Receipt",
    "RefundAnswer",
    "RefusedByStripe",
    "Session",
    "StripeGateway",
    "current",
    "from_stripe",
    "is_live_key",
    "to_stripe",
]


def is_live_key(key: str) -> bool:
    """Return whether a key moves real money."""
    return key.startswith(("sk_live_", "rk_live_"))


def current() -> Gateway:
    """Return the gateway of the settings, or raise PaymentsOff."""
    if not settings.STRIPE_SECRET_KEY:
        raise PaymentsOff
    return _gateway(settings.STRIPE_SECRET_KEY, settings.STRIPE_API_BASE)


@cache
def _gateway(secret_key: str, api_base: str) -> StripeGateway:
    return StripeGateway(secret_key=secret_key, api_base=api_base)


# A forked worker that went on with its parent's connections would read the answers to its siblings' questions.
os.register_at_fork(after_in_child=_gateway.cache_clear)
