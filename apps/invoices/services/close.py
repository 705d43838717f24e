"""Close a billing period: meter to its end, write its invoice as a draft, number it and make it final."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import models, transaction
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.billing import services as billing
from apps.core import failpoints, jobs, money
from apps.core.actor import Actor, system_actor
from apps.core.errors import Conflict, NotFound
from apps.core.periods import month_start, next_label
from apps.invoices import composing, selectors
from apps.invoices.composing import Composition
from apps.invoices.models import Invoice, InvoiceLine, InvoiceState, PeriodClose
from apps.invoices.services.number import next_number
from apps.ledger import services as ledger
from apps.ledger.services import AccountKind, Posting, TransferKind
from apps.metering import services as metering
from apps.organizations import services as organizations
from apps.organizations.models import BillingPeriod, Organization, PeriodState
from apps.outbox import services as outbox

DRAFT_AFTER = timedelta(hours=1)
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
    period = _find_period(organization_id, label, now=now)
    if period.ends_at > now:
        raise PeriodNotEnded(
            _("Period %(label)s ends at %(end)s UTC; close it after that.")
            % {"label": label, "end": f"{period.ends_at:%Y-%m-%d %H:%M}"}
        )
    billing.meter_and_charge(organization_id=organization_id, until=period.ends_at, now=now)
    return _close(actor=actor, organization_id=organization_id, label=label, finalize=finalize, now=now)


def _find_period(organization_id: UUID, label: str, *, now: datetime) -> BillingPeriod:
    """Return the period of that label; usage that is not counted yet may be what the period is made for."""
    labelled = BillingPeriod.objects.of(organization_id).filter(label=label)
    period = labelled.first()
    if period is None:
        zone = Organization.objects.values_list("timezone", flat=True).get(pk=organization_id)
        until = min(month_start(next_label(label), zone), now)
        billing.meter_and_charge(organization_id=organization_id, until=until, now=now)
        period = labelled.first()
    if period is None:
        raise NotFound(_("This organization has no billing period %(label)s.") % {"label": label})
    return period


@transaction.atomic
def _close(*, actor: Actor, organization_id: UUID, label: str, finalize: bool, now: datetime) -> ClosedPeriod:
    # Under this lock no usage is counted, so what commits later belongs to a later invoice.
    metering.lock_metering(organization_id=organization_id)
    organization = Organization.objects.get(pk=organization_id)
    book = ledger.open_book(organization_id=organization_id, currency=organization.currency, now=now)
    # The steps before saw the usage of then; what came in since is counted here, under the lock.
    period = BillingPeriod.objects.get(organization_id=organization_id, label=label)
    billing.meter_and_charge(organization_id=organization_id, until=period.ends_at, now=now)
    if period.state == PeriodState.FINAL:
        return ClosedPeriod(period=period, invoice=Invoice.objects.filter(period=period).final().first())
    if finalize:
        _refuse_out_of_order(period)
    composition = composing.compose(organization, period)
    invoice = _write_draft(organization, period, composition, now=now)
    if not finalize:
        organizations.mark_period(period=period, state=PeriodState.DRAFT, now=now)
        return ClosedPeriod(period=period, invoice=invoice)

    if invoice is not None:
        _finalize(book, invoice, composition, now=now)
    organizations.mark_period(period=period, state=PeriodState.FINAL, now=now)
    PeriodClose.objects.create(
        organization_id=organization_id, period=period, invoice=invoice, closed_by=actor.label, closed_at=now
    )
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


def _write_draft(
    organization: Organization, period: BillingPeriod, composition: Composition, *, now: datetime
) -> Invoice | None:
    """Rewrite the period's draft with the lines as they are now; without lines there is none."""
    draft = Invoice.objects.filter(period=period, state=InvoiceState.DRAFT).first()
    if draft is not None:
        draft.lines.all().delete()
    if not composition.lines:
        if draft is not None:
            draft.state = InvoiceState.VOID
            _set_totals(draft, Composition(lines=(), keys=()))
            draft.save()
        return None
    if draft is None:
        draft = Invoice(
            organization=organization, period=period, currency=organization.currency, created_at=now
        )
    draft.drafted_at = now
    _set_totals(draft, composition)
    draft.save()
    splits = selectors.splits_of([line.key for line in composition.lines])
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
            ledger_micros=line.ledger_micros,
            splits=splits[line.key.id],
        )
        for position, line in enumerate(composition.lines, start=1)
    )
    return draft


def _set_totals(invoice: Invoice, composition: Composition) -> None:
    invoice.subtotal_minor = sum(line.amount_minor for line in composition.lines)
    invoice.discount_minor = sum(line.discount_minor for line in composition.lines)
    invoice.total_minor = invoice.subtotal_minor - invoice.discount_minor + invoice.tax_minor
    invoice.due_minor = composition.due_minor(composition.owed_micros, invoice.currency)


def _finalize(book: ledger.Book, invoice: Invoice, composition: Composition, *, now: datetime) -> None:
    """Fix what is due, post the residues of rounding, number the invoice.

    The residues make the invoice's revenue and receivable whole minor units; no lot is touched.
    """
    owed_micros = composition.owed_micros
    owed_micros -= billing.take_unbilled_receipts(
        organization_id=invoice.organization_id, receivable_micros=owed_micros
    )
    invoice.due_minor = composition.due_minor(owed_micros, invoice.currency)
    billing.bill_receivable(
        organization_id=invoice.organization_id,
        billed={key.id: key.receivable_micros for key in composition.keys},
    )
    invoiced_micros = money.minor_to_micros(invoice.subtotal_minor, invoice.currency)
    revenue_residue = invoiced_micros - sum(line.ledger_micros for line in composition.lines)
    receivable_residue = money.minor_to_micros(invoice.due_minor, invoice.currency) - owed_micros
    rounding, revenue = book[AccountKind.ROUNDING], book[AccountKind.REVENUE]
    postings = [
        *_residue(invoice, 1, revenue_residue, debit_id=rounding, credit_id=revenue, now=now),
        *_residue(
            invoice, 2, receivable_residue, debit_id=book[AccountKind.RECEIVABLE], credit_id=rounding, now=now
        ),
    ]
    ledger.post_transfers(book=book, postings=postings, now=now)
    invoice.state = InvoiceState.OPEN if invoice.due_minor else InvoiceState.PAID
    invoice.finalized_at = now
    # The counter is locked last, so that numbering waits for nothing but its own commit and leaves no gap.
    invoice.number = next_number(entity=invoice.entity, series=invoice.series, at=now)
    invoice.save()


def _residue(
    invoice: Invoice, line: int, micros: int, *, debit_id: UUID, credit_id: UUID, now: datetime
) -> list[Posting]:
    if not micros:
        return []
    if micros < 0:
        debit_id, credit_id = credit_id, debit_id
    return [
        Posting(
            debit_id=debit_id,
            credit_id=credit_id,
            amount_micros=abs(micros),
            kind=TransferKind.INVOICE,
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
    return BillingPeriod.objects.filter(
        ends_at__lte=now - DRAFT_AFTER, ends_at__gt=F("organization__created_at")
    ).exclude(state=PeriodState.FINAL)
