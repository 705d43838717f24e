"""Pages of Checkout: the attempt first, then Stripe's page; the money counts when Stripe says that it is paid."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.audit import services as audit
from apps.core import failpoints, money
from apps.core.actor import Actor
from apps.core.errors import Conflict, NotFound
from apps.invoices.models import Invoice
from apps.ledger import selectors as ledger
from apps.organizations.models import Organization
from apps.outbox import services as outbox
from apps.payments import gateway
from apps.payments.gateway import Key, KeyTooOld, RefusedByStripe, Session
from apps.payments.models import Payment, PaymentKind, PaymentState
from apps.payments.services import applying
from apps.payments.services.attempts import checked_minor, checked_return, customer_of, lease

LEAST_MAJOR = Decimal(5)
PAGE_LASTS = timedelta(hours=1)
PAGE_LASTS_LEAST = timedelta(minutes=30)  # Stripe makes no page that ends sooner.
_MARGIN = timedelta(minutes=1)


class AttemptOver(Conflict):
    """The attempt has ended without a page."""

    code = "attempt_over"
    default_message = gettext_lazy("This payment is over. Start a new one.")


@transaction.atomic
def start_top_up(
    *,
    actor: Actor,
    organization: Organization,
    amount: Decimal,
    success_url: str = "",
    cancel_url: str = "",
    now: datetime,
) -> Payment:
    """Write the attempt to top up by an amount in major units; `open_checkout` then makes its page.

    Raises ValidationFailed for an amount below 5 or beyond Stripe's limit, or a return address that is not ours,
    NotFound for an organization that was deleted meanwhile.
    """
    if not Organization.objects.existing().select_for_update(no_key=True).filter(pk=organization.pk):
        raise NotFound
    currency = ledger.wallet_currency(organization.id) or organization.currency
    least = int(LEAST_MAJOR.scaleb(money.exponent(currency)))
    payment = Payment.objects.create(
        organization=organization,
        kind=PaymentKind.TOP_UP,
        amount_minor=checked_minor(amount, currency, minimum=least),
        currency=currency,
        success_url=checked_return(success_url, path="success_url"),
        cancel_url=checked_return(cancel_url, path="cancel_url"),
        started_by=actor.label,
        created_at=now,
    )
    record_start(actor, payment)
    return payment


def record_start(actor: Actor, payment: Payment) -> None:
    """Write the audit and outbox rows of a new attempt."""
    facts = {
        "kind": str(payment.kind),
        "amount": f"{money.from_minor(payment.amount_minor, payment.currency):f}",
        "currency": payment.currency,
    }
    audit.record(actor=actor, action="payment.started", target=payment, diff=facts)
    outbox.publish(
        "payments.payment_started", {"id": str(payment.id), **facts}, organization_id=payment.organization_id
    )


def is_stale(payment: Payment, *, now: datetime) -> bool:
    """Return whether the page of an attempt is over, or can no longer be made with the end that Stripe was told."""
    if payment.called_at is None:
        return False
    lasts = PAGE_LASTS if payment.session_id else PAGE_LASTS - PAGE_LASTS_LEAST
    return now >= payment.called_at + lasts - _MARGIN


def open_checkout(*, payment_id: UUID, now: datetime) -> Payment:
    """Make the page of an attempt, or return the one it has; call it outside any transaction.

    Raises AttemptInFlight while somebody else does, AttemptOver for one that has ended, GatewayError or GatewayTimeout
    where Stripe does not answer well: the same attempt can then be tried again for half an hour, and Stripe makes one
    page of however many tries. Raises RefusedByStripe where it will never make one, KeyTooOld after that half hour; the
    attempt has failed by then.
    """
    payment = _take(payment_id, now=now)
    if payment.session_id:
        return payment
    if not payment.is_live:
        raise AttemptOver
    failpoints.reach("payments.before_call")
    assert payment.called_at is not None, "set when the attempt was taken"
    if is_stale(payment, now=now):
        session = _find(payment, now=now)
        if session is None:
            close_unsent(payment_id, now=now)
            raise KeyTooOld
    else:
        session = _make(payment, called_at=payment.called_at, now=now)
    failpoints.reach("payments.after_call")
    with transaction.atomic():
        payment = Payment.objects.select_for_update(no_key=True).get(pk=payment_id)
        payment.session_id, payment.checkout_url, payment.leased_until = session.id, session.url, None
        if payment.may_become(PaymentState.OPEN):
            payment.state = PaymentState.OPEN
        payment.save()
    return payment


def _make(payment: Payment, *, called_at: datetime, now: datetime) -> Session:
    customer_id = customer_for(payment, now=now)
    try:
        return gateway.current().create_payment_session(
            customer_id=customer_id,
            reference=str(payment.id),
            description=description(payment),
            amount_minor=payment.amount_minor,
            currency=payment.currency,
            save_card=True,
            success_url=payment.success_url,
            cancel_url=payment.cancel_url,
            expires_at=called_at + PAGE_LASTS,
            key=Key(text=f"checkout-{payment.id}", since=called_at),
        )
    except RefusedByStripe:
        applying.refuse(payment.id, now=now)
        raise


def _find(payment: Payment, *, now: datetime) -> Session | None:
    """Look up the page that a crash or a lost answer left unnoted."""
    return gateway.current().find_session(
        customer_id=customer_for(payment, now=now), reference=str(payment.id)
    )


def close_unsent(payment_id: UUID, *, now: datetime) -> Payment:
    """End an attempt of which Stripe has nothing."""
    message = _("It was never sent to the payment service.")
    return applying.fail(payment_id, code=KeyTooOld.code, message=message, now=now)


def close_page(*, payment_id: UUID, now: datetime) -> Payment:
    """Close the page of an attempt, so that another way to pay can take its place; call it outside any transaction.

    A page that was paid meanwhile is not closed by Stripe, and the payment is taken. Raises AttemptInFlight while its
    page is being made, GatewayError or GatewayTimeout where Stripe does not answer well.
    """
    with transaction.atomic():
        payment = Payment.objects.select_for_update(no_key=True).get(pk=payment_id)
        if not payment.is_live:
            return payment
        lease(payment, now=now)
    try:
        session_id = payment.session_id
        if session_id is None and payment.called_at is not None:
            found = _find(payment, now=now)
            session_id = found.id if found is not None else None
        if session_id is None:
            return close_unsent(payment_id, now=now)
        with contextlib.suppress(RefusedByStripe):  # It is paid or over: what it says now counts.
            gateway.current().expire_session(session_id)
        return applying.apply_session(payment, gateway.current().session(session_id), now=now)
    finally:
        Payment.objects.filter(pk=payment_id).update(leased_until=None)


def customer_for(payment: Payment, *, now: datetime) -> str:
    """Return what Stripe calls the organization of an attempt, which fails where Stripe refuses to know it."""
    try:
        return customer_of(payment.organization_id, now=now)
    except RefusedByStripe:
        applying.refuse(payment.id, now=now)
        raise


def description(payment: Payment) -> str:
    """Return what Stripe's page and the card's statement call a payment."""
    if payment.invoice_id:
        return _("Invoice %(number)s") % {"number": Invoice.objects.get(pk=payment.invoice_id).number}
    return _("Credit")


@transaction.atomic
def _take(payment_id: UUID, *, now: datetime) -> Payment:
    payment = Payment.objects.select_for_update(no_key=True).get(pk=payment_id)
    if payment.session_id is None and payment.is_live:
        lease(payment, now=now)
        if payment.called_at is None:
            payment.called_at = now
            payment.save(update_fields=["called_at"])
    return payment
