"""Close a billing period: meter to its end, write its invoice as a draft, number it and make it final."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connection, models, transaction
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.billing import services as billing
from apps.billing.models import Pot
from apps.core import failpoints, jobs, money
from apps.core.actor import Actor, system_actor
from apps.core.errors import Conflict, NotFound
from apps.core.periods import floor_hour, month_start, next_label
from apps.invoices import composing, parties, selectors
from apps.invoices.composing import Composition, Settlement
from apps.invoices.models import (
    PERIOD_KINDS,
    DocumentKind,
    Invoice,
    InvoiceClaim,
    InvoiceLine,
    InvoiceState,
    InvoiceTax,
    LineKind,
    PeriodClose,
)
from apps.invoices.parties import Buyer, Seller
from apps.invoices.services.number import number_document
from apps.invoices.tax.terms import TaxTerms
from apps.ledger import services as ledger
from apps.ledger.services import AccountKind, Posting, TransferKind
from apps.metering import services as metering
from apps.organizations import services as organizations
from apps.organizations.models import BillingPeriod, Organization, PeriodState
from apps.outbox import services as outbox

DRAFT_AFTER = timedelta(hours=1)
REDRAFT_AFTER = timedelta(hours=1)
FINAL_AFTER = timedelta(hours=72)


class PeriodNotEnded(Conflict):
    """A period can only be closed once it is over."""

    code = "period_not_ended"


class PeriodOutOfOrder(Conflict):
    """Periods become final in their order: an earlier one is not final yet."""

    code = "period_out_of_order"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedPeriod:
    """What closing left: the period, and its invoice unless there was nothing to invoice."""

    period: BillingPeriod
    invoice: Invoice | None


def close_period(
    *, actor: Actor, organization_id: UUID, label: str, finalize: bool, now: datetime
) -> ClosedPeriod:
    """Make the invoice of an ended period, as a draft or final; closing a final period again changes nothing.

    Meters and charges the organization to the period's end first, in steps of their own. Raises NotFound for a period
    that the organization does not have, PeriodNotEnded, and PeriodOutOfOrder when finalising before an earlier one.
    """
    period, counted_until = _find_period(organization_id, label, now=now)
    if period.ends_at > now:
        raise PeriodNotEnded(
            _("Period %(label)s ends at %(end)s UTC; close it after that.")
            % {"label": label, "end": f"{period.ends_at:%Y-%m-%d %H:%M}"}
        )
    if counted_until != period.ends_at:
        billing.meter_and_charge(organization_id=organization_id, until=period.ends_at, now=now)
    return _close(actor=actor, organization_id=organization_id, label=label, finalize=finalize, now=now)


def _find_period(
    organization_id: UUID, label: str, *, now: datetime
) -> tuple[BillingPeriod, datetime | None]:
    """Return the period of that label, and up to when usage was counted to find it.

    Usage that is not counted yet may be what the period is made for.
    """
    labelled = BillingPeriod.objects.of(organization_id).filter(label=label)
    until = None
    period = labelled.first()
    if period is None:
        zone = Organization.objects.values_list("timezone", flat=True).get(pk=organization_id)
        until = min(month_start(next_label(label), zone), now)
        billing.meter_and_charge(organization_id=organization_id, until=until, now=now)
        period = labelled.first()
    if period is None:
        raise NotFound(_("This organization has no billing period %(label)s.") % {"label": label})
    return period, until


@transaction.atomic
def _close(*, actor: Actor, organization_id: UUID, label: str, finalize: bool, now: datetime) -> ClosedPeriod:
    # However large the month is, and whoever closes it: the limits are for pages and ticks.
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
    # Under this lock no usage is counted, so what commits later belongs to a later invoice.
    metering.lock_metering(organization_id=organization_id)
    organization = Organization.objects.get(pk=organization_id)
    book = ledger.open_book(organization_id=organization_id, currency=organization.currency, now=now)
    # The steps before saw the usage of then; what came in since is counted here, under the lock.
    period = BillingPeriod.objects.get(organization_id=organization_id, label=label)
    billing.meter_and_charge(organization_id=organization_id, until=period.ends_at, now=now, again=True)
    if period.state == PeriodState.FINAL:
        found = Invoice.objects.final().filter(period=period, kind__in=PERIOD_KINDS).first()
        return ClosedPeriod(period=period, invoice=found)
    if finalize:
        _refuse_out_of_order(period)
    document = compose_document(organization, period, now=now)
    invoice = _write_draft(document, now=now)
    if not finalize:
        organizations.mark_period(period=period, state=PeriodState.DRAFT, now=now)
        return ClosedPeriod(period=period, invoice=invoice)

    if invoice is not None:
        _post(book, invoice, document, now=now)
    organizations.mark_period(period=period, state=PeriodState.FINAL, now=now)
    PeriodClose.objects.create(
        organization_id=organization_id,
        period=period,
        invoice=invoice,
        waiting=_told(document),
        closed_by=actor.label,
        closed_at=now,
    )
    if invoice is not None:
        if invoice.tax_minor:  # Nothing else of a document moves credit.
            billing.settle_state(organization_id=organization_id, now=now)
        number_document(invoice, state=_final_state(invoice), seller=document.seller, now=now)
    audit.record(
        actor=actor,
        action="period.closed",
        target=invoice or period,
        organization_id=organization_id,
        diff={"period": label, "number": invoice.number if invoice else None},
    )
    outbox.publish(
        "invoices.period_closed",
        {
            "period": label,
            "invoice_id": str(invoice.id) if invoice else None,
            "number": invoice.number if invoice else None,
        },
        organization_id=organization_id,
    )
    failpoints.reach("invoices.before_commit")
    return ClosedPeriod(period=period, invoice=invoice)


def _told(document: Document) -> list[dict[str, str]]:
    """Return the corrections that wait for a later document, as they are shown."""
    currency = document.organization.currency
    return [
        {
            "usage_period": line.key.period.label,
            "meter": line.key.meter,
            "sku": line.key.sku,
            "region": line.key.region,
            "amount": f"{money.from_minor(line.net_minor, currency):f}",
        }
        for line in document.composition.waiting
    ]


def _refuse_out_of_order(period: BillingPeriod) -> None:
    earlier = (
        BillingPeriod.objects.of(period.organization_id)
        .filter(starts_at__lt=period.starts_at)
        .exclude(state=PeriodState.FINAL)
        .first()
    )
    if earlier is not None:
        raise PeriodOutOfOrder(
            _("Period %(earlier)s is not final yet; close it before %(label)s.")
            % {"earlier": earlier.label, "label": period.label},
            earlier=earlier.label,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a period's document is to say: its parties, its lines and taxes, and how it is settled."""

    organization: Organization
    period: BillingPeriod
    seller: Seller
    buyer: Buyer
    composition: Composition
    settlement: Settlement


def compose_document(organization: Organization, period: BillingPeriod, *, now: datetime) -> Document:
    """Return what a period's document would say now, and how it would be settled."""
    seller, buyer = parties.seller_of(organization.id), parties.buyer_of(organization)
    terms = parties.tax_terms(organization_id=organization.id, seller=seller, buyer=buyer, now=now)
    composition = composing.compose(organization, period, terms)
    settlement = composing.settle(
        composition,
        organization.currency,
        credit_micros=billing.paid_credit_micros(organization_id=organization.id, now=now),
        receipts_micros=billing.unbilled_receipts_micros(organization_id=organization.id),
    )
    return Document(
        organization=organization,
        period=period,
        seller=seller,
        buyer=buyer,
        composition=composition,
        settlement=settlement,
    )


def _write_draft(document: Document, *, now: datetime) -> Invoice | None:
    """Rewrite the period's draft with the lines as they are now; without lines there is none."""
    organization, period, composition = document.organization, document.period, document.composition
    draft = Invoice.objects.filter(period=period, state=InvoiceState.DRAFT, kind__in=PERIOD_KINDS).first()
    if draft is not None:
        draft.lines.all().delete()
        draft.taxes.all().delete()
    if not composition.lines:
        if draft is not None:
            draft.state = InvoiceState.VOID
            _set_totals(draft, Composition(), Settlement())
            draft.save()
        return None
    if draft is None:
        draft = Invoice(
            organization=organization, period=period, currency=organization.currency, created_at=now
        )
    draft.drafted_at = now
    is_note = composition.is_credit_note
    draft.kind = DocumentKind.ADJUSTMENT_NOTE if is_note else DocumentKind.INVOICE
    draft.entity = document.seller.code
    draft.series = document.seller.credit_note_series if is_note else document.seller.invoice_series
    draft.seller, draft.buyer = document.seller.as_json(), document.buyer.as_json()
    _set_totals(draft, composition, document.settlement)
    draft.save()
    splits = _splits(composition)
    InvoiceLine.objects.bulk_create(
        InvoiceLine(
            organization=organization,
            invoice=draft,
            position=position,
            kind=line.kind,
            key=line.key,
            corrects_id=line.corrects_id,
            usage_period=line.key.period.label,
            meter=line.key.meter,
            sku=line.key.sku,
            region=line.key.region,
            quantity=line.quantity,
            unit_price=line.terms.unit_price,
            amount_minor=line.amount_minor,
            discount_minor=line.discount_minor,
            tax_minor=line.tax_minor,
            **_tax_fields(line.tax_terms, prefix="tax_"),
            ledger_micros=line.ledger_micros,
            splits=splits.get(line.key.id, []),
        )
        for position, line in enumerate(composition.lines, start=1)
    )
    InvoiceTax.objects.bulk_create(
        InvoiceTax(
            organization=organization,
            invoice=draft,
            position=position,
            base_minor=group.base_minor,
            tax_minor=group.tax_minor,
            **_tax_fields(group.terms),
        )
        for position, group in enumerate(composition.taxes, start=1)
    )
    return draft


def _splits(composition: Composition) -> dict[UUID, list[dict[str, Any]]]:
    billed, corrected = (
        [line.key for line in composition.lines if (line.kind == LineKind.ADJUSTMENT) is is_correction]
        for is_correction in (False, True)
    )
    return {**selectors.splits_of(billed), **selectors.correcting_splits_of(corrected)}


def _tax_fields(terms: TaxTerms, prefix: str = "") -> dict[str, Any]:
    names = ("category", "percent", "country", "note")
    return {f"{prefix}{name}": getattr(terms, name) for name in names}


def _set_totals(invoice: Invoice, composition: Composition, settlement: Settlement) -> None:
    invoice.subtotal_minor = composition.subtotal_minor
    invoice.discount_minor = composition.discount_minor
    invoice.tax_minor = composition.tax_minor
    invoice.total_minor = composition.total_minor
    invoice.due_minor = settlement.due_minor
    invoice.tax_credit_minor = settlement.tax_credit_minor
    invoice.receipts_micros = settlement.receipts_micros


def _final_state(document: Invoice) -> InvoiceState:
    if document.kind != DocumentKind.INVOICE:
        return InvoiceState.ISSUED
    return InvoiceState.OPEN if document.due_minor else InvoiceState.PAID


def _post(book: ledger.Book, invoice: Invoice, document: Document, *, now: datetime) -> None:
    """Fix what is due, and when; post tax and the residues of rounding.

    The residues make the document's revenue and receivable whole minor units; no lot is touched by them.
    """
    composition, settlement = document.composition, document.settlement
    subtotal_micros = money.minor_to_micros(invoice.subtotal_minor, invoice.currency)
    posting = partial(_posting, book, invoice, now=now)
    postings = posting(
        1,
        subtotal_micros - sum(line.ledger_micros for line in composition.lines),
        debit=AccountKind.ROUNDING,
        credit=AccountKind.REVENUE,
    )
    if composition.is_credit_note:
        ledger.post_transfers(book=book, postings=postings, now=now)
        if settlement.tax_credit_minor:
            billing.give_credit(
                book=book,
                amount_micros=money.minor_to_micros(-settlement.tax_credit_minor, invoice.currency),
                funded_by=AccountKind.TAX_PAYABLE,
                kind=TransferKind.TAX,
                source="credit_note",
                reason=str(_("Tax of usage that turned out smaller.")),
                reference=str(invoice.id),
                now=now,
            )
        return

    used_micros = billing.take_unbilled_receipts(
        organization_id=invoice.organization_id, receivable_micros=settlement.receipts_micros
    )
    assert used_micros == settlement.receipts_micros, "nobody else uses them under the wallet's lock"
    claims = {
        key.id: key.receivable_micros - key.billed_receivable_micros
        for key in composition.keys
        if key.receivable_micros != key.billed_receivable_micros
    }
    InvoiceClaim.objects.bulk_create(
        InvoiceClaim(organization_id=invoice.organization_id, invoice=invoice, key_id=key_id, micros=micros)
        for key_id, micros in claims.items()
    )
    billing.bill_receivable(
        organization_id=invoice.organization_id,
        billed={key.id: key.receivable_micros for key in composition.keys if key.id in claims},
    )
    tax_micros = money.minor_to_micros(settlement.tax_receivable_minor, invoice.currency)
    owed_micros = composition.owed_micros + tax_micros - used_micros
    postings += posting(
        2,
        money.minor_to_micros(invoice.due_minor, invoice.currency) - owed_micros,
        debit=AccountKind.RECEIVABLE,
        credit=AccountKind.ROUNDING,
    )
    postings += posting(
        3,
        tax_micros,
        debit=AccountKind.RECEIVABLE,
        credit=AccountKind.TAX_PAYABLE,
        kind=TransferKind.TAX,
    )
    ledger.post_transfers(book=book, postings=postings, now=now)
    _pay_tax(book, invoice, now=now)
    invoice.due_at = now + timedelta(days=document.seller.payment_days)


def _pay_tax(book: ledger.Book, invoice: Invoice, *, now: datetime) -> None:
    """Take the part of the tax that paid credit pays, or give back what tax came back."""
    micros = money.minor_to_micros(invoice.tax_credit_minor, invoice.currency)
    if micros > 0:
        billing.pay_from_credit(
            book=book,
            amount_micros=micros,
            to=AccountKind.TAX_PAYABLE,
            kind=TransferKind.TAX,
            cause=f"invoice-tax:{invoice.id}",
            reference=str(invoice.id),
            now=now,
        )
    elif micros < 0:
        billing.open_lot(
            book=book,
            pot=Pot.PAID,
            amount_micros=-micros,
            effective_at=floor_hour(now),
            funded_by=AccountKind.TAX_PAYABLE,
            kind=TransferKind.TAX,
            source="credit_note",
            reason=str(_("Tax of usage that turned out smaller.")),
            reference=str(invoice.id),
            now=now,
        )


def _posting(
    book: ledger.Book,
    invoice: Invoice,
    line: int,
    micros: int,
    *,
    debit: AccountKind,
    credit: AccountKind,
    now: datetime,
    kind: TransferKind = TransferKind.INVOICE,
) -> list[Posting]:
    """Return one posting of an invoice, the other way round for an amount below zero, none for zero."""
    if not micros:
        return []
    if micros < 0:
        debit, credit = credit, debit
    return [
        Posting(
            debit_id=book[debit],
            credit_id=book[credit],
            amount_micros=abs(micros),
            kind=kind,
            cause=f"invoice:{invoice.id}:{line}",
            occurred_at=now,
            reference=str(invoice.id),
        )
    ]


def queue_due_periods(*, now: datetime) -> int:
    """Queue one task for every organization with a period that is due for a draft or for its end; return how many."""
    due = _due(now).values_list("organization_id", flat=True).distinct()
    for organization_id in due:
        jobs.enqueue("invoices.close_due_periods", organization_id=organization_id)
    return len(due)


def close_due_periods(*, organization_id: UUID, now: datetime) -> list[ClosedPeriod]:
    """Draft an organization's periods an hour after their end and make them final after 72 hours, in order.

    Until then a draft is rewritten once an hour, with what was used late, priced or corrected since.
    Periods that ended before the organization was created hold imported history and become final by command only;
    until then those after them stay drafts.
    """

    def close(period: BillingPeriod, *, finalize: bool) -> ClosedPeriod:
        return close_period(
            actor=system_actor("invoices", organization_id),
            organization_id=organization_id,
            label=period.label,
            finalize=finalize,
            now=now,
        )

    closed = []
    for period in _due(now).filter(organization_id=organization_id).order_by("starts_at"):
        try:
            closed.append(close(period, finalize=period.ends_at <= now - FINAL_AFTER))
        except PeriodOutOfOrder:
            closed.append(close(period, finalize=False))
    return closed


def _due(now: datetime) -> models.QuerySet[BillingPeriod]:
    return (
        BillingPeriod.objects.filter(
            ends_at__lte=now - DRAFT_AFTER, ends_at__gt=F("organization__created_at")
        )
        .exclude(state=PeriodState.FINAL)
        .filter(
            Q(drafted_at=None)
            | Q(drafted_at__lte=now - REDRAFT_AFTER)
            # Its time to be final came after its last draft.
            | Q(ends_at__lte=now - FINAL_AFTER, drafted_at__lt=F("ends_at") + FINAL_AFTER)
        )
    )
