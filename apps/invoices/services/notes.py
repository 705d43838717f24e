"""Credit notes by staff, cancellations and write-offs: what is final is corrected by another document, never edited."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import models, transaction
from django.db.models import Sum
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.billing import services as billing
from apps.core import money
from apps.core.actor import Actor
from apps.core.errors import Conflict, FieldError, ValidationFailed
from apps.core.ids import uuid7
from apps.invoices.composing import terms_of_line
from apps.invoices.crediting import Creditable, Credited, by_amount, by_line
from apps.invoices.models import (
    DocumentKind,
    Invoice,
    InvoiceLine,
    InvoicePayment,
    InvoiceState,
    InvoiceTax,
    LineKind,
    PaymentKind,
)
from apps.invoices.parties import Seller
from apps.invoices.services.number import number_document
from apps.invoices.tax.terms import TaxTerms
from apps.ledger import services as ledger
from apps.ledger.services import AccountKind, Posting, TransferKind
from apps.outbox import services as outbox

REASON_LENGTH_MAX = 500


class NotCreditable(Conflict):
    """Only invoices that are open or paid are credited."""

    code = "invoice_not_creditable"
    default_message = _("Only an open or paid invoice can be credited.")


class CreditExceedsInvoice(Conflict):
    """More than is left of the invoice, or of one of its lines."""

    code = "credit_exceeds_invoice"
    default_message = _("A credit note gives at most what is left of its invoice.")


@transaction.atomic
def credit_invoice(
    *,
    actor: Actor,
    invoice: Invoice,
    reason: str,
    now: datetime,
    amount_minor: int | None = None,
    lines_minor: Mapping[UUID, int] | None = None,
    attempt_id: UUID | None = None,
) -> Invoice:
    """Waive an invoice or a part of it and return the credit note.

    attempt_id: of the form that asks for it, which takes effect once.
    amount_minor: with tax, spread over the lines by what they have left. lines_minor: net amounts by line. Neither: all
    that is left. What is owed is settled first, this invoice before others; the rest becomes paid credit. What later
    documents corrected is not left; corrections to come are counted as if the note were not there.
    Raises NotCreditable, CreditExceedsInvoice.
    """
    check_reason(reason)
    assert amount_minor is None or lines_minor is None, "by amount or by line"
    book = ledger.open_book(organization_id=invoice.organization_id, currency=invoice.currency, now=now)
    invoice = Invoice.objects.select_related("organization", "period").get(pk=invoice.pk)
    if attempt_id and (made := invoice.credit_notes.filter(pk=attempt_id).first()):
        return made
    if invoice.kind != DocumentKind.INVOICE or invoice.state not in (InvoiceState.OPEN, InvoiceState.PAID):
        raise NotCreditable
    lines = {line.id: line for line in invoice.lines.order_by("position")}
    creditable = _creditable(list(lines.values()))
    notes = Invoice.objects.filter(corrects=invoice, kind=DocumentKind.CREDIT_NOTE)
    left_minor = min(
        invoice.total_minor + (notes.aggregate(sum=Sum("total_minor"))["sum"] or 0),
        sum(line.gross_minor for line in creditable),
    )
    if lines_minor is None:
        shares = _by_amount(creditable, left_minor if amount_minor is None else amount_minor, left_minor)
    else:
        shares = _by_line(creditable, lines_minor, left_minor)
    if shares is None:
        raise CreditExceedsInvoice(
            _("A credit note gives at most what is left of its invoice, %(left)s, and of each line.")
            % {"left": f"{money.from_minor(left_minor, invoice.currency):,f} {invoice.currency}"},
            left=left_minor,
        )
    note = begin_note(invoice, kind=DocumentKind.CREDIT_NOTE, reason=reason, now=now)
    note.id = attempt_id or note.id
    write_lines(note, [_credit_line(lines[share.line_id], share) for share in shares])
    _give(book, invoice, note, now=now)
    billing.settle_state(organization_id=invoice.organization_id, now=now)
    number_document(note, state=InvoiceState.ISSUED, seller=Seller.from_json(invoice.seller), now=now)
    given_micros = money.minor_to_micros(-note.total_minor, invoice.currency)
    record_note(actor, "invoice.credited", invoice, note, amount_micros=given_micros, reason=reason)
    return note


def check_reason(reason: str) -> None:
    """Raise ValidationFailed unless there is a reason to print and to keep."""
    if not reason.strip() or len(reason) > REASON_LENGTH_MAX:
        message = str(_("Give a reason, up to 500 characters; it is printed on the document."))
        raise ValidationFailed(fields=[FieldError(path="reason", code="invalid", message=message)])


def _creditable(lines: Sequence[InvoiceLine]) -> list[Creditable]:
    """Return what is left of each line that bills something; corrections below zero cannot be credited.

    A line has left what credit notes did not take of it, and no more than all documents leave of its charge key.
    """
    taken = _sums(InvoiceLine.objects.filter(corrects__in=lines, kind=LineKind.CREDIT), by="corrects_id")
    told = InvoiceLine.objects.filter(key__in=[line.key_id for line in lines], invoice__number__isnull=False)
    of_keys = _sums(told, by="key_id")
    found = []
    for line in lines:
        before, of_key = taken.get(line.id, _Sums()), of_keys[line.key_id]
        net = min(line.amount_minor - line.discount_minor + before.net_minor, of_key.net_minor)
        tax = min(line.tax_minor + before.tax_minor, of_key.tax_minor)
        discount = min(line.discount_minor + before.discount_minor, of_key.discount_minor)
        if net > 0:
            found.append(
                Creditable(
                    line_id=line.id,
                    terms=terms_of_line(line),
                    net_minor=net,
                    tax_minor=max(tax, 0),
                    discount_minor=max(discount, 0),
                )
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """What lines say together, signed, in minor units; net is without tax and after the discount."""

    net_minor: int = 0
    tax_minor: int = 0
    discount_minor: int = 0


def _sums(lines: models.QuerySet[InvoiceLine], *, by: str) -> dict[UUID, _Sums]:
    rows = lines.values(by).annotate(
        amount=Sum("amount_minor"), discount=Sum("discount_minor"), tax=Sum("tax_minor")
    )
    return {
        row[by]: _Sums(
            net_minor=int(row["amount"] - row["discount"]),
            tax_minor=int(row["tax"]),
            discount_minor=int(row["discount"]),
        )
        for row in rows
    }


def _by_amount(lines: Sequence[Creditable], amount_minor: int, left_minor: int) -> list[Credited] | None:
    """Return the shares of an amount, or None where it is more than what is left."""
    if not 0 < amount_minor <= left_minor:
        return None
    return by_amount(lines, amount_minor)


def _by_line(
    lines: Sequence[Creditable], nets_minor: Mapping[UUID, int], left_minor: int
) -> list[Credited] | None:
    """Return the shares of net amounts by line, or None where one of them or their sum is more than what is left."""
    left = {line.line_id: line.net_minor for line in lines}
    if not nets_minor or any(not 0 < net <= left.get(line_id, 0) for line_id, net in nets_minor.items()):
        return None
    shares = by_line(lines, nets_minor)
    is_too_much = sum(share.net_minor + share.tax_minor for share in shares) > left_minor
    return None if is_too_much else shares


def begin_note(invoice: Invoice, *, kind: DocumentKind, reason: str, now: datetime) -> Invoice:
    """Return the unsaved draft of a note about an invoice, with the invoice's parties."""
    return Invoice(
        organization=invoice.organization,
        period=invoice.period,
        kind=kind,
        corrects=invoice,
        reason=reason.strip(),
        entity=invoice.entity,
        series=Seller.from_json(invoice.seller).credit_note_series,
        currency=invoice.currency,
        seller=invoice.seller,
        buyer=invoice.buyer,
        drafted_at=now,
        created_at=now,
    )


def _credit_line(line: InvoiceLine, share: Credited) -> InvoiceLine:
    """Return what is taken of a line; its quantity is told where the whole line is."""
    is_whole = share.net_minor == line.amount_minor - line.discount_minor
    return line_against(
        line,
        kind=LineKind.CREDIT,
        quantity=-line.quantity if is_whole else Decimal(0),
        unit_price=line.unit_price if is_whole else None,
        amount_minor=-(share.net_minor + share.discount_minor),
        discount_minor=-share.discount_minor,
        tax_minor=-share.tax_minor,
        ledger_micros=0,
        splits=[],
    )


def line_against(line: InvoiceLine, **fields: object) -> InvoiceLine:
    """Return the unsaved line of a note that corrects a line, taxed as it is; fields are the rest."""
    same = (
        "organization_id", "key_id", "usage_period", "meter", "sku", "region", "tax_category", "tax_percent",
        "tax_country", "tax_note",
    )  # fmt: skip
    return InvoiceLine(corrects=line, **{name: getattr(line, name) for name in same}, **fields)


def write_lines(note: Invoice, lines: Sequence[InvoiceLine]) -> None:
    """Save a note as a draft with its lines, their rate groups and their sums."""
    note.subtotal_minor = sum(line.amount_minor for line in lines)
    note.discount_minor = sum(line.discount_minor for line in lines)
    note.tax_minor = sum(line.tax_minor for line in lines)
    note.total_minor = note.subtotal_minor - note.discount_minor + note.tax_minor
    note.save()
    groups: dict[TaxTerms, list[int]] = defaultdict(lambda: [0, 0])
    for position, line in enumerate(lines, start=1):
        line.invoice, line.position = note, position
        group = groups[terms_of_line(line)]
        group[0] += line.amount_minor - line.discount_minor
        group[1] += line.tax_minor
    InvoiceLine.objects.bulk_create(lines)
    InvoiceTax.objects.bulk_create(
        InvoiceTax(
            organization_id=note.organization_id,
            invoice=note,
            position=position,
            category=terms.category,
            percent=terms.percent,
            country=terms.country,
            note=terms.note,
            base_minor=base,
            tax_minor=tax,
        )
        for position, (terms, (base, tax)) in enumerate(groups.items(), start=1)
    )


def _give(book: ledger.Book, invoice: Invoice, note: Invoice, *, now: datetime) -> None:
    """Post a waiver: its net part out of revenue, its tax out of what is payable, its promotional part as expense."""

    def micros(minor: int) -> int:
        return money.minor_to_micros(-minor, invoice.currency)

    for part, account in (
        (micros(note.subtotal_minor - note.discount_minor), AccountKind.REVENUE),
        (micros(note.tax_minor), AccountKind.TAX_PAYABLE),
    ):
        if part:
            billing.give_credit(
                book=book,
                amount_micros=part,
                funded_by=account,
                kind=TransferKind.CREDIT_NOTE,
                source="credit_note",
                reason=note.reason[:255],
                reference=str(note.id),
                now=now,
                first_invoice_id=invoice.id,
            )
    if note.discount_minor:
        posting = Posting(
            debit_id=book[AccountKind.REVENUE],
            credit_id=book[AccountKind.PROMO_EXPENSE],
            amount_micros=micros(note.discount_minor),
            kind=TransferKind.CREDIT_NOTE,
            cause=f"invoice:{note.id}:1",
            occurred_at=now,
            reference=str(note.id),
        )
        ledger.post_transfers(book=book, postings=[posting], now=now)


@transaction.atomic
def write_off(*, actor: Actor, invoice: Invoice, reason: str, now: datetime) -> Invoice:
    """Give up what is left of an open invoice: it becomes uncollectible, and bad debt takes the rest."""
    check_reason(reason)
    book = ledger.open_book(organization_id=invoice.organization_id, currency=invoice.currency, now=now)
    invoice = Invoice.objects.get(pk=invoice.pk)
    if invoice.state != InvoiceState.OPEN:
        raise NotCreditable(_("Only an open invoice can be written off."))
    micros = invoice.outstanding_micros()
    batch_id = uuid7()
    posting = Posting(
        debit_id=book[AccountKind.BAD_DEBT],
        credit_id=book[AccountKind.RECEIVABLE],
        amount_micros=micros,
        kind=TransferKind.WRITE_OFF,
        cause=f"write-off:{invoice.id}:1",
        occurred_at=now,
        reason=reason.strip()[:255],
        reference=str(invoice.id),
    )
    ledger.post_transfers(book=book, postings=[posting], now=now, batch_id=batch_id)
    InvoicePayment.objects.create(
        organization_id=invoice.organization_id,
        invoice=invoice,
        kind=PaymentKind.WRITE_OFF,
        amount_micros=micros,
        batch_id=batch_id,
        paid_at=now,
    )
    invoice.state = InvoiceState.UNCOLLECTIBLE
    invoice.save(update_fields=["state"])
    record_note(actor, "invoice.written_off", invoice, None, amount_micros=micros, reason=reason)
    billing.settle_state(organization_id=invoice.organization_id, now=now)
    return invoice


def record_note(
    actor: Actor, action: str, invoice: Invoice, note: Invoice | None, *, amount_micros: int, reason: str
) -> None:
    """Write what was done to an invoice, the note that it was done by and how much it gives up, to audit and outbox."""
    amount = money.plain_micros(amount_micros)
    audit.record(
        actor=actor,
        action=action,
        target=note or invoice,
        organization_id=invoice.organization_id,
        diff={
            "invoice": invoice.number,
            "credit_note": note.number if note else None,
            "amount": amount,
            "currency": invoice.currency,
        },
        reason=reason,
    )
    outbox.publish(
        f"invoices.{action.replace('.', '_')}",
        {
            "id": str(invoice.id),
            "number": invoice.number,
            "credit_note_id": str(note.id) if note else None,
            "credit_note": note.number if note else None,
            "amount": amount,
            "currency": invoice.currency,
        },
        organization_id=invoice.organization_id,
    )
