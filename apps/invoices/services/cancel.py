"""Cancel an invoice: undo its finalisation by a full credit note, so that its usage is invoiced anew."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import Sum
from django.utils.translation import gettext_lazy as _

from apps.billing import services as billing
from apps.billing.models import Pot
from apps.core import money
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.core.ids import uuid7
from apps.core.periods import floor_hour
from apps.invoices.models import (
    PERIOD_KINDS,
    DocumentKind,
    Invoice,
    InvoiceClaim,
    InvoiceLine,
    InvoicePayment,
    InvoiceState,
    LineKind,
    PaymentKind,
)
from apps.invoices.parties import Seller
from apps.invoices.services.notes import begin_note, check_reason, line_against, record_note, write_lines
from apps.invoices.services.number import number_document
from apps.ledger import services as ledger
from apps.ledger.services import AccountKind, Book, Posting, TransferKind
from apps.metering import services as metering


class NotCancellable(Conflict):
    """An invoice with credit notes, one that a later document corrects, or whose corrections were spent, stays."""

    code = "invoice_not_cancellable"
    default_message = _("This invoice can no longer be undone. Write a credit note instead.")


@transaction.atomic
def cancel_invoice(*, actor: Actor, invoice: Invoice, reason: str, now: datetime) -> Invoice:
    """Take an invoice back as if it had never been and return the credit note of it all.

    Its usage stays charged and goes onto the next invoice of the organization, at the tax of then. What was paid on it
    counts as paid ahead; tax that credit had paid becomes credit again. Raises NotCancellable, also while a later
    document counts from what this one says.
    """
    check_reason(reason)
    metering.lock_metering(organization_id=invoice.organization_id)
    book = ledger.open_book(organization_id=invoice.organization_id, currency=invoice.currency, now=now)
    invoice = Invoice.objects.select_related("organization", "period").get(pk=invoice.pk)
    if (
        invoice.kind != DocumentKind.INVOICE
        or invoice.state not in (InvoiceState.OPEN, InvoiceState.PAID)
        or invoice.credit_notes.exists()
    ):
        raise NotCancellable
    _refuse_corrected(invoice)
    note = begin_note(invoice, kind=DocumentKind.CANCELLATION, reason=reason, now=now)
    lines = list(invoice.lines.order_by("position"))
    write_lines(note, [_reversed(line) for line in lines])
    _undo(book, invoice, note, lines, now=now)
    billing.reopen_keys(organization_id=invoice.organization_id, key_ids={line.key_id for line in lines})
    invoice.state = InvoiceState.CANCELLED
    invoice.save(update_fields=["state"])
    billing.settle_state(organization_id=invoice.organization_id, now=now)
    number_document(note, state=InvoiceState.ISSUED, seller=Seller.from_json(invoice.seller), now=now)
    cancelled_micros = money.minor_to_micros(invoice.total_minor, invoice.currency)
    record_note(actor, "invoice.cancelled", invoice, note, amount_micros=cancelled_micros, reason=reason)
    return note


def _refuse_corrected(invoice: Invoice) -> None:
    """Raise NotCancellable while the document of a later period says more of the same usage.

    What that one says is a difference to this one, so the last that speaks of a charge key is undone first.
    """
    later = (
        Invoice.objects.final()
        .filter(
            organization_id=invoice.organization_id,
            kind__in=PERIOD_KINDS,
            period__starts_at__gt=invoice.period.starts_at,
            lines__key__in=invoice.lines.values("key"),
        )
        .exclude(state=InvoiceState.CANCELLED)
        .order_by("-period__starts_at")
        .first()
    )
    if later is None:
        return
    message = _("%(later)s corrects usage of this invoice. Write a credit note about what is left instead.")
    if later.kind == DocumentKind.INVOICE:
        message = _(
            "%(later)s corrects usage of this invoice. Cancel that first, or write a credit note instead."
        )
    raise NotCancellable(message % {"later": later.number}, corrected_by=later.number)


def _reversed(line: InvoiceLine) -> InvoiceLine:
    return line_against(
        line,
        kind=LineKind.ADJUSTMENT,
        quantity=-line.quantity,
        unit_price=line.unit_price,
        amount_minor=-line.amount_minor,
        discount_minor=-line.discount_minor,
        tax_minor=-line.tax_minor,
        ledger_micros=-line.ledger_micros,
        splits=[
            split | {name: f"{-Decimal(split[name]):f}" for name in ("quantity", "amount")}
            for split in line.splits
        ],
    )


def _undo(book: Book, invoice: Invoice, note: Invoice, lines: list[InvoiceLine], *, now: datetime) -> None:
    """Reverse residues and tax, let the usage be owed without an invoice again, keep what was paid as paid ahead."""

    def micros(minor: int) -> int:
        return money.minor_to_micros(minor, invoice.currency)

    organization_id = invoice.organization_id
    claims = dict(InvoiceClaim.objects.filter(invoice=invoice).values_list("key_id", "micros"))
    claimed = sum(claims.values())
    on_receivable = micros(invoice.tax_minor - invoice.tax_credit_minor)
    due = micros(invoice.due_minor)
    paid = int(invoice.payments.aggregate(sum=Sum("amount_micros", default=0))["sum"])
    revenue_residue = micros(invoice.subtotal_minor) - sum(line.ledger_micros for line in lines)
    receivable_residue = due - (claimed + on_receivable - invoice.receipts_micros)

    # What came back of the usage since has been given as credit, while the invoice stayed owed.
    returned = claimed - billing.unbill_receivable(organization_id=organization_id, claims=claims)
    ahead = paid + invoice.receipts_micros - returned
    debt = billing.unbilled_debt_micros(organization_id=organization_id)
    surplus = max(ahead - debt, 0)
    if surplus:
        # Before anything reduces the receivable, which never rises above zero.
        _open_lot(book, note, surplus, funded_by=AccountKind.RECEIVABLE, now=now)
    billing.put_unbilled_receipts(organization_id=organization_id, micros=max(ahead, 0) - surplus)
    postings = [
        *_posting(
            book, note, 1, revenue_residue, debit=AccountKind.REVENUE, credit=AccountKind.ROUNDING, now=now
        ),
        *_posting(
            book,
            note,
            2,
            receivable_residue,
            debit=AccountKind.ROUNDING,
            credit=AccountKind.RECEIVABLE,
            now=now,
        ),
        *_posting(
            book,
            note,
            3,
            on_receivable,
            debit=AccountKind.TAX_PAYABLE,
            credit=AccountKind.RECEIVABLE,
            now=now,
        ),
    ]
    ledger.post_transfers(book=book, postings=postings, now=now)
    if ahead < 0:
        _take_back(book, note, -ahead, to=AccountKind.RECEIVABLE, line="returned", now=now)
    tax_credit = micros(invoice.tax_credit_minor)
    if tax_credit > 0:
        _open_lot(book, note, tax_credit, funded_by=AccountKind.TAX_PAYABLE, now=now)
    elif tax_credit < 0:
        _take_back(book, note, -tax_credit, to=AccountKind.TAX_PAYABLE, line="tax", now=now)
    if due > paid:
        InvoicePayment.objects.create(
            organization_id=organization_id,
            invoice=invoice,
            kind=PaymentKind.CANCELLATION,
            amount_micros=due - paid,
            batch_id=uuid7(),
            paid_at=now,
        )


def _open_lot(book: Book, note: Invoice, micros: int, *, funded_by: AccountKind, now: datetime) -> None:
    billing.open_lot(
        book=book,
        pot=Pot.PAID,
        amount_micros=micros,
        effective_at=floor_hour(now),
        funded_by=funded_by,
        kind=TransferKind.CREDIT_NOTE,
        source="credit_note",
        reason=note.reason[:255],
        reference=str(note.id),
        now=now,
    )


def _take_back(book: Book, note: Invoice, micros: int, *, to: AccountKind, line: str, now: datetime) -> None:
    """Take credit that was given for the invoice's usage; raise NotCancellable where it is spent."""
    if billing.paid_credit_micros(organization_id=note.organization_id, now=now) < micros:
        raise NotCancellable
    billing.pay_from_credit(
        book=book,
        amount_micros=micros,
        to=to,
        kind=TransferKind.CREDIT_NOTE,
        cause=f"invoice-{line}:{note.id}",
        reference=str(note.id),
        now=now,
    )


def _posting(
    book: Book,
    note: Invoice,
    line: int,
    micros: int,
    *,
    debit: AccountKind,
    credit: AccountKind,
    now: datetime,
) -> list[Posting]:
    if not micros:
        return []
    if micros < 0:
        debit, credit = credit, debit
    return [
        Posting(
            debit_id=book[debit],
            credit_id=book[credit],
            amount_micros=abs(micros),
            kind=TransferKind.CREDIT_NOTE,
            cause=f"invoice:{note.id}:{line}",
            occurred_at=now,
            reference=str(note.id),
        )
    ]
