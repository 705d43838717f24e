"""Put money that came in to the open invoices, the oldest first."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Sum

from apps.core import money
from apps.invoices.models import Invoice, InvoicePayment, InvoiceState, PaymentKind
from apps.outbox import services as outbox


@transaction.atomic
def allocate_receipt(
    *,
    organization_id: UUID,
    amount_micros: int,
    batch_id: UUID,
    now: datetime,
    kind: str = PaymentKind.PAYMENT,
    first_invoice_id: UUID | None = None,
) -> int:
    """Put a payment to the organization's open invoices, oldest first, and return the micros that they took.

    An invoice whose due amount is covered becomes paid. Called under the wallet's lock by whoever posts the payment to
    the receivable; `batch_id` is that of its transfers. kind: one of PaymentKind. first_invoice_id: before older ones.
    """
    left = amount_micros
    rows = list(Invoice.objects.outstanding(organization_id).select_for_update(no_key=True))
    for invoice in sorted(rows, key=lambda row: row.id != first_invoice_id):
        if not left:
            break
        due_micros = money.minor_to_micros(invoice.due_minor, invoice.currency)
        paid_micros = invoice.payments.aggregate(sum=Sum("amount_micros", default=0))["sum"]
        share = min(left, due_micros - paid_micros)
        InvoicePayment.objects.create(
            organization_id=organization_id,
            invoice=invoice,
            kind=kind,
            amount_micros=share,
            batch_id=batch_id,
            paid_at=now,
        )
        left -= share
        if paid_micros + share == due_micros:
            invoice.state = InvoiceState.PAID
            invoice.save(update_fields=["state"])
            outbox.publish(
                "invoices.invoice_paid",
                {"id": str(invoice.id), "number": invoice.number},
                organization_id=organization_id,
            )
    return amount_micros - left
