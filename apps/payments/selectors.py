"""Payments as programs and pages read them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from apps.core import money
from apps.core.actor import Actor
from apps.core.errors import NotFound
from apps.payments.models import AutoTopUp, Payment, PaymentMethod, Refund


def payment_by_id(actor: Actor, payment_id: UUID) -> Payment:
    """Return one payment that the actor may see, or raise NotFound."""
    payment = Payment.objects.visible_to(actor).select_related("invoice").filter(pk=payment_id).first()
    if payment is None:
        raise NotFound
    return payment


def method_by_id(actor: Actor, method_id: UUID) -> PaymentMethod:
    """Return one saved card that the actor may see, or raise NotFound."""
    method = PaymentMethod.objects.visible_to(actor).filter(pk=method_id).first()
    if method is None:
        raise NotFound
    return method


def payment_row(payment: Payment) -> dict[str, Any]:
    """Return a payment as data; amounts are decimal strings in major units."""
    return {
        "id": payment.id,
        "kind": payment.kind,
        "state": payment.state,
        "amount": major(payment.amount_minor, payment.currency),
        "currency": payment.currency,
        "invoice": payment.invoice_id,
        "paid_with": payment.paid_with,
        "receipt_url": payment.receipt_url or None,
        "checkout_url": (payment.checkout_url or None) if payment.is_live else None,
        "failure": payment.failure_message or None,
        "succeeded_at": payment.succeeded_at,
        "created_at": payment.created_at,
    }


def method_row(method: PaymentMethod) -> dict[str, Any]:
    """Return a saved card as data."""
    return {
        "id": method.id,
        "kind": method.kind,
        "brand": method.brand,
        "last4": method.last4,
        "exp_month": method.exp_month,
        "exp_year": method.exp_year,
        "is_default": method.is_default,
        "created_at": method.created_at,
    }


def auto_top_up_row(rule: AutoTopUp | None, currency: str) -> dict[str, Any]:
    """Return the rule of automatic top-up as data; off without one."""
    if rule is None:
        return {"state": "off", "threshold": None, "amount": None, "monthly_cap": None, "currency": currency}
    return {
        "state": rule.state,
        "threshold": major(rule.threshold_minor, currency),
        "amount": major(rule.amount_minor, currency),
        "monthly_cap": major(rule.monthly_cap_minor, currency),
        "currency": currency,
    }


def refund_row(refund: Refund) -> dict[str, Any]:
    """Return a refund as data."""
    return {
        "id": refund.id,
        "payment": refund.payment_id,
        "state": refund.state,
        "destination": refund.destination,
        "amount": major(refund.amount_minor, refund.currency),
        "currency": refund.currency,
        "reason": refund.reason,
        "created_at": refund.created_at,
    }


def major(minor: int, currency: str) -> str:
    """Return minor units as a decimal string in major units."""
    return f"{money.from_minor(minor, currency):f}"
