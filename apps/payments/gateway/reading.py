"""Stripe's objects as answers of ours: plain values, ids instead of objects, ISO minor units."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from apps.core import money
from apps.payments.gateway.protocol import (
    Card,
    DisputeAnswer,
    Endpoint,
    EventNote,
    Intent,
    Receipt,
    RefundAnswer,
    Session,
)

# Where Stripe counts a currency otherwise than ISO 4217 does: docs.stripe.com/currencies.
_STRIPE_EXPONENTS = {"ISK": 2, "UGX": 2, "MGA": 0}


def to_stripe(minor: int, currency: str) -> int:
    """Return ISO minor units as Stripe counts them; ValueError where Stripe has no such amount."""
    shift = _STRIPE_EXPONENTS.get(currency, money.exponent(currency)) - money.exponent(currency)
    if shift >= 0:
        return int(minor * 10**shift)
    amount, rest = divmod(minor, 10**-shift)
    if rest:
        raise ValueError(f"Stripe takes no fractions of {currency}")
    return int(amount)


def from_stripe(amount: int, currency: str) -> int:
    """Return an amount as Stripe counts it in ISO minor units; ValueError for what ISO cannot say."""
    code = currency.upper()
    shift = money.exponent(code) - _STRIPE_EXPONENTS.get(code, money.exponent(code))
    if shift >= 0:
        return int(amount * 10**shift)
    minor, rest = divmod(amount, 10**-shift)
    if rest:
        raise ValueError(f"{code} has no such fractions")
    return int(minor)


def card(method: Any) -> Card:
    found = getattr(method, "card", None)
    return Card(
        id=method.id,
        customer_id=_id(method.customer),
        kind=method.type,
        brand=found.brand if found else "",
        last4=(found.last4 or "") if found else "",
        exp_month=found.exp_month if found else None,
        exp_year=found.exp_year if found else None,
    )


def receipt(charge: Any) -> Receipt:
    details = charge.payment_method_details
    found = getattr(details, "card", None) if details else None
    paid_with = (
        f"{str(found.brand).title()} •••• {found.last4}" if found else str(details.type if details else "")
    )
    return Receipt(url=charge.receipt_url or "", paid_with=paid_with)


def session(found: Any) -> Session:
    return Session(
        id=found.id,
        status=found.status or "",
        payment_status=found.payment_status,
        url=found.url or "",
        reference=found.client_reference_id or "",
        intent_id=_id(found.payment_intent),
        setup_id=_id(found.setup_intent),
        customer_id=_id(found.customer),
    )


def intent(found: Any) -> Intent:
    error = found.last_payment_error
    return Intent(
        id=found.id,
        status=found.status,
        amount_minor=from_stripe(found.amount, found.currency),
        received_minor=from_stripe(found.amount_received, found.currency),
        currency=found.currency.upper(),
        reference=_reference(found),
        customer_id=_id(found.customer),
        charge_id=_id(found.latest_charge),
        failure_code=(getattr(error, "decline_code", None) or getattr(error, "code", None) or "")
        if error
        else "",
        failure_message=(getattr(error, "message", None) or "") if error else "",
    )


def refund(found: Any) -> RefundAnswer:
    return RefundAnswer(
        id=found.id,
        status=found.status or "",
        amount_minor=from_stripe(found.amount, found.currency),
        currency=found.currency.upper(),
        intent_id=_id(found.payment_intent),
        reference=_reference(found),
        failure=getattr(found, "failure_reason", None) or "",
    )


def dispute(found: Any) -> DisputeAnswer:
    moves = [row.amount for row in found.balance_transactions]
    due_by = found.evidence_details.due_by
    return DisputeAnswer(
        id=found.id,
        status=found.status,
        reason=found.reason,
        amount_minor=from_stripe(found.amount, found.currency),
        currency=found.currency.upper(),
        intent_id=_id(found.payment_intent),
        withdrawn=any(amount < 0 for amount in moves),
        reinstated=any(amount > 0 for amount in moves),
        due_by=datetime.fromtimestamp(due_by, UTC) if due_by else None,
    )


def event(found: Any) -> EventNote:
    return EventNote(
        id=found.id,
        event_type=found.type,
        object_id=str(getattr(found.data.object, "id", "")),
        account=getattr(found, "account", None) or "",
        is_live=found.livemode,
        happened_at=datetime.fromtimestamp(found.created, UTC),
        body=str(found).encode(),
    )


def endpoint(found: Any) -> Endpoint:
    return Endpoint(
        url=found.url,
        event_types=frozenset(found.enabled_events),
        is_enabled=found.status == "enabled",
        api_version=found.api_version or "",
    )


def _reference(found: Any) -> str:
    return str(getattr(found.metadata, "reference", "") or "") if found.metadata else ""


def _id(value: Any) -> str | None:
    """Return the id of what is an id, an object or nothing."""
    if value is None or isinstance(value, str):
        return value
    return str(value.id)
