"""What people are told about their payments."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.conf import settings

from apps.core import money
from apps.invoices.models import Invoice
from apps.notifications import services as notifications
from apps.organizations import selectors as organizations
from apps.organizations.models import Organization
from apps.payments.models import Payment, PaymentMethod, Refund


def tell(
    template: str, *, organization_id: UUID, cause: str, now: datetime, page: str = "payments", **facts: str
) -> None:
    """Queue a mail about payments with a link to a page of the organization; the same cause mails once."""
    organization = Organization.objects.get(pk=organization_id)
    notifications.queue_mail(
        template=f"payments/mail/{template}",
        to=organizations.billing_recipients(organization, now=now),
        context={
            "organization": organization.name,
            "url": f"{settings.PUBLIC_URL}/app/{organization.slug}/{page}",
            **facts,
        },
        organization_id=organization_id,
        cause=f"payments.{template}:{cause}",
        now=now,
    )


def amount(minor: int, currency: str) -> str:
    """Return an amount as mails write it: 25.00 USD."""
    return f"{money.from_minor(minor, currency):,f} {currency}"


def receipt(payment: Payment, *, now: datetime) -> None:
    """Confirm a payment: how much, with what, and what it settled."""
    number = (
        Invoice.objects.values_list("number", flat=True).get(pk=payment.invoice_id)
        if payment.invoice_id
        else ""
    )
    tell(
        "receipt",
        organization_id=payment.organization_id,
        cause=str(payment.id),
        now=now,
        amount=amount(payment.amount_minor, payment.currency),
        settled=amount(payment.settled_minor, payment.currency) if payment.settled_minor else "",
        credit=amount(payment.amount_minor - payment.settled_minor, payment.currency)
        if payment.settled_minor < payment.amount_minor
        else "",
        paid_with=payment.paid_with,
        invoice=number or "",
        receipt_url=payment.receipt_url,
        day=f"{payment.succeeded_at:%Y-%m-%d}",
    )


def failed(payment: Payment, *, now: datetime) -> None:
    """Say that the card did not pay, why, and where to pay."""
    number = (
        Invoice.objects.values_list("number", flat=True).get(pk=payment.invoice_id)
        if payment.invoice_id
        else ""
    )
    tell(
        "failed",
        organization_id=payment.organization_id,
        cause=str(payment.id),
        now=now,
        amount=amount(payment.amount_minor, payment.currency),
        invoice=number or "",
        problem=payment.failure_message,
        card=str(payment.method) if payment.method else "",
        page=f"invoices/{payment.invoice_id}/pay" if payment.invoice_id else "payments",
    )


def refund(of: Refund, *, now: datetime) -> None:
    """Say where a refund stands."""
    tell(
        "refund",
        organization_id=of.organization_id,
        cause=f"{of.id}:{of.state}",
        now=now,
        amount=amount(of.amount_minor, of.currency),
        state=of.state,
        destination=of.destination,
        message=of.message,
    )


def card_expires(method: PaymentMethod, *, now: datetime) -> None:
    """Say that a saved card ends soon, once for each end."""
    tell(
        "card_expires",
        organization_id=method.organization_id,
        cause=f"{method.id}:{method.exp_year}-{method.exp_month}",
        now=now,
        card=str(method),
        until=f"{method.exp_month:02d}/{method.exp_year}",
    )
