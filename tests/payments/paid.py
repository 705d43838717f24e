"""Steps that tests of payments share."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.utils import timezone

from apps.organizations.models import Organization
from apps.payments import services as payments
from apps.payments.models import Payment, PaymentMethod, Refund
from tests import build


def top_up(organization: Organization, amount: str = "25.00", **fields: Any) -> Payment:
    """Write an attempt and open its page."""
    payment = payments.start_top_up(
        actor=build.actor(organization),
        organization=organization,
        amount=Decimal(amount),
        now=timezone.now(),
        **fields,
    )
    return payments.open_checkout(payment_id=payment.id, now=timezone.now())


def paid(
    sandbox: Any, organization: Organization, amount: str = "25.00", number: str = "4242424242424242"
) -> Payment:
    """Top up, pay on the page and come back."""
    payment = top_up(organization, amount)
    assert sandbox.pay(payment.checkout_url, number)
    return payments.sync_payment(payment.id, now=timezone.now())


def card(sandbox: Any, organization: Organization, number: str = "4242424242424242") -> PaymentMethod:
    """Save a card on the page, passing the bank's question if there is one."""
    setup = payments.start_card_setup(
        actor=build.actor(organization), organization=organization, now=timezone.now()
    )
    setup = payments.open_card_setup(setup_id=setup.id, now=timezone.now())
    gone = sandbox.pay(setup.checkout_url, number)
    if gone.startswith("/3ds/"):
        sandbox.confirm(gone)
    payments.sync_setup_session(setup.session_id, now=timezone.now())
    return PaymentMethod.objects.filter(organization=organization).latest("created_at")


def pay(organization: Organization, invoice: Any, **fields: Any) -> Payment:
    """Pay an invoice as the page and the route do: with the default card unless told otherwise."""
    terms = {"actor": build.actor(organization), "organization": organization, "invoice_id": invoice.id}
    payment = payments.replacing_page(
        lambda: payments.start_invoice_payment(now=timezone.now(), **terms, **{"by_card": True, **fields}),
        now=timezone.now(),
    )
    return payments.pay(payment_id=payment.id, now=timezone.now())


def refunded(payment: Payment, amount: str | None = None, *, sent: bool = True) -> Refund:
    """Ask for a refund, approve it as somebody else, and send it."""
    asker = build.actor(payment.organization)
    refund = payments.request_refund(
        actor=asker,
        payment_id=payment.id,
        amount=Decimal(amount) if amount else None,
        reason="not needed",
        now=timezone.now(),
    )
    refund = payments.decide_refund(
        actor=build.actor(), refund_id=refund.id, approve=True, reason="fine", now=timezone.now()
    )
    return payments.send_refund(refund_id=refund.id, now=timezone.now()) if sent else refund
