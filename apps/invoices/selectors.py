"""Invoices as programs and pages read them, and the split of their lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q, QuerySet, Sum
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.billing.models import ChargeKey
from apps.core import money
from apps.core.actor import Actor
from apps.core.errors import NotFound
from apps.invoices.models import BILLED_KINDS, Invoice, InvoiceLine, InvoiceState, PeriodClose
from apps.pricing.selectors import unit_seconds

SPLIT_ROWS_MAX = 200  # A line's split is for display; a longer one is cut, and `/usage` has the rest.


def invoices_of(actor: Actor) -> QuerySet[Invoice]:
    """Return the invoices that an actor may see, with what was paid on each; void drafts are none."""
    return (
        Invoice.objects.visible_to(actor)
        .invoices()
        .exclude(state=InvoiceState.VOID)
        .select_related("period")
        .with_payments()
    )


def credit_notes_of(actor: Actor, *, drafts: bool = False) -> QuerySet[Invoice]:
    """Return the final credit notes that an actor may see, with those that are still drafts where it is told."""
    notes = Invoice.objects.visible_to(actor).credit_notes().select_related("period", "corrects")
    return notes.exclude(state=InvoiceState.VOID) if drafts else notes.final()


def waiting_of(invoice_id: UUID) -> list[dict[str, str]]:
    """Return the corrections that the document of a period could not say, with their net amounts."""
    close = PeriodClose.objects.filter(invoice_id=invoice_id).first()
    return list(close.waiting) if close else []


def document_by_id(actor: Actor, document_id: UUID) -> Invoice:
    """Return an invoice or credit note that the actor may see, or raise NotFound."""
    found = (
        Invoice.objects.visible_to(actor)
        .exclude(state=InvoiceState.VOID)
        .select_related("organization", "period", "corrects")
        .filter(pk=document_id)
        .first()
    )
    if found is None:
        raise NotFound
    return found


def invoice_by_id(actor: Actor, invoice_id: UUID) -> Invoice:
    """Return one invoice that the actor may see, or raise NotFound."""
    invoice = invoices_of(actor).filter(pk=invoice_id).first()
    if invoice is None:
        raise NotFound
    return invoice


def notes_of_invoice(actor: Actor, invoice_id: UUID) -> QuerySet[Invoice]:
    """Return the credit notes that correct one invoice, oldest first."""
    return credit_notes_of(actor).filter(corrects_id=invoice_id).order_by("finalized_at", "id")


def credit_note_by_id(actor: Actor, note_id: UUID, *, drafts: bool = False) -> Invoice:
    """Return one credit note that the actor may see, or raise NotFound."""
    note = credit_notes_of(actor, drafts=drafts).filter(pk=note_id).first()
    if note is None:
        raise NotFound
    return note


def credit_note_row(note: Invoice) -> dict[str, Any]:
    """Return a credit note as data; its amounts are what it gives, above zero, in major units."""
    return {
        "id": note.id,
        "number": note.number,
        "kind": note.kind,
        "corrects": note.corrects_id,
        "corrects_number": note.corrects.number if note.corrects else None,
        "reason": note.reason,
        "period": note.period.label,
        "currency": note.currency,
        "subtotal": _major(-note.subtotal_minor, note.currency),
        "discount": _major(-note.discount_minor, note.currency),
        "tax": _major(-note.tax_minor, note.currency),
        "total": _major(-note.total_minor, note.currency),
        "finalized_at": note.finalized_at,
        "created_at": note.created_at,
    }


def lines_of(actor: Actor, invoice_id: UUID) -> QuerySet[InvoiceLine]:
    """Return the lines of one invoice or credit note that the actor may see, or raise NotFound."""
    invoice = document_by_id(actor, invoice_id)
    return InvoiceLine.objects.filter(invoice=invoice).select_related("invoice")


def invoice_row(invoice: Invoice) -> dict[str, Any]:
    """Return an invoice of `invoices_of` as data; amounts are decimal strings in major units."""
    currency = invoice.currency
    left_minor = invoice.outstanding_minor()
    final = invoice.number is not None
    outstanding = left_minor if invoice.state == InvoiceState.OPEN else 0
    credited_minor = int(invoice.credited_micros) // money.micros_per_minor(currency)
    paid = invoice.total_minor - left_minor - credited_minor if final else 0
    return {
        "id": invoice.id,
        "number": invoice.number,
        "state": invoice.state,
        "period": invoice.period.label,
        "period_start": invoice.period.starts_at,
        "period_end": invoice.period.ends_at,
        "currency": currency,
        "subtotal": _major(invoice.subtotal_minor, currency),
        "discount": _major(invoice.discount_minor, currency),
        "tax": _major(invoice.tax_minor, currency),
        "total": _major(invoice.total_minor, currency),
        "due": _major(invoice.due_minor, currency),
        "paid": _major(paid, currency),
        "outstanding": _major(outstanding, currency),
        "credited": _major(credited_minor, currency),
        "due_at": invoice.due_at,
        "finalized_at": invoice.finalized_at,
        "created_at": invoice.created_at,
    }


def line_rows(lines: Sequence[InvoiceLine]) -> list[dict[str, Any]]:
    """Return invoice lines as data; quantity is in the meter's unit, gpu_seconds exact, amounts in major units.

    Lines of a credit note keep their sign: what is given is below zero.
    """
    units = unit_seconds()
    return [
        {
            "id": line.id,
            "position": line.position,
            "kind": line.kind,
            "usage_period": line.usage_period,
            "corrects": line.corrects_id,
            "meter": line.meter,
            "sku": line.sku,
            "region": line.region,
            "quantity": money.in_unit(line.quantity, units.get(line.meter, 1)),
            "gpu_seconds": money.plain(line.quantity) if line.meter == "gpu_hours" else None,
            "unit_price": None if line.unit_price is None else money.plain(line.unit_price, decimals_min=2),
            "amount": _major(line.amount_minor, line.invoice.currency),
            "discount": _major(line.discount_minor, line.invoice.currency),
            "tax": _major(line.tax_minor, line.invoice.currency),
            "tax_category": line.tax_category,
            "tax_percent": money.plain(line.tax_percent),
            "currency": line.invoice.currency,
            "splits": [
                split | {"quantity": money.in_unit(Decimal(split["quantity"]), units.get(line.meter, 1))}
                for split in line.splits
            ],
        }
        for line in lines
    ]


def _major(minor: int, currency: str) -> str:
    return f"{money.from_minor(minor, currency):f}"


def splits_of(keys: Sequence[ChargeKey]) -> dict[UUID, list[dict[str, Any]]]:
    """Return for each charge key its quantity and amount by project and API key, the largest first.

    Each hour's amount is spread by share of its quantity; the amounts are rounded to micros for display.
    """
    return {key_id: rows[:SPLIT_ROWS_MAX] for key_id, rows in _whole_splits_of(keys).items()}


def _whole_splits_of(keys: Sequence[ChargeKey]) -> dict[UUID, list[dict[str, Any]]]:
    found: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    if not keys:
        return found
    with connection.cursor() as cursor:
        # OFFSET 0 keeps PostgreSQL from joining the usage of all organizations before it looks at the keys.
        cursor.execute(
            """
            SELECT charged.key_id, project.slug, credential.public_id, sum(used.quantity),
                   round(sum(used.quantity / charged.quantity * charged.amount_micros) / 1000000, 6)
            FROM billing_chargehour charged
            JOIN billing_chargekey key ON key.id = charged.key_id
            CROSS JOIN LATERAL (
                SELECT project_id, credential_id, quantity FROM metering_usagehour
                WHERE organization_id = key.organization_id AND meter = key.meter AND sku = key.sku
                    AND region = key.region AND hour = charged.hour AND quantity > 0
                OFFSET 0
            ) used
            LEFT JOIN organizations_project project ON project.id = used.project_id
            LEFT JOIN credentials_apikey credential ON credential.id = used.credential_id
            WHERE charged.key_id = ANY(%s) AND charged.quantity > 0
            GROUP BY charged.key_id, project.slug, credential.public_id
            ORDER BY charged.key_id, sum(used.quantity) DESC, project.slug, credential.public_id
            """,
            [[key.id for key in keys]],
        )
        for key_id, project, credential, quantity, amount in cursor.fetchall():
            found[key_id].append(
                {
                    "project": project,
                    "api_key": credential,
                    "quantity": _text(quantity),
                    "amount": _text(amount),
                }
            )
    return found


def billed_lines(key_ids: Collection[UUID]) -> QuerySet[InvoiceLine]:
    """Return the lines of final documents that bill or correct charge keys."""
    return InvoiceLine.objects.filter(key__in=key_ids, kind__in=BILLED_KINDS, invoice__number__isnull=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What documents said of a charge key: in the meter's counting unit, and in minor units."""

    quantity: Decimal = Decimal(0)
    amount_minor: int = 0
    discount_minor: int = 0


def told_before(document: Invoice, key_ids: Collection[UUID]) -> dict[UUID, Told]:
    """Return for each charge key what final documents before this one said of it; before a draft, all there are."""
    earlier = billed_lines(key_ids).exclude(invoice=document)
    if document.finalized_at is not None:
        earlier = earlier.filter(
            Q(invoice__finalized_at__lt=document.finalized_at)
            | Q(invoice__finalized_at=document.finalized_at, invoice_id__lt=document.id)
        )
    sums = earlier.values("key_id").annotate(
        counted=Sum("quantity"), amount=Sum("amount_minor"), discount=Sum("discount_minor")
    )
    found = {
        row["key_id"]: Told(
            quantity=row["counted"], amount_minor=int(row["amount"]), discount_minor=int(row["discount"])
        )
        for row in sums
    }
    return {key_id: found.get(key_id, Told()) for key_id in key_ids}


def correcting_splits_of(keys: Sequence[ChargeKey]) -> dict[UUID, list[dict[str, Any]]]:
    """Return for each charge key how its split differs from what final documents said of it, the largest first.

    So the splits of a correction tell whose usage came late or turned out smaller, below zero where it was less.
    Where a document had to cut its split, nobody knows what it said of the rest, so only what it names is compared.
    """
    told: dict[UUID, dict[tuple[Any, Any], tuple[Decimal, Decimal]]] = defaultdict(dict)
    cut = set()
    earlier = billed_lines([key.id for key in keys])
    for key_id, splits in earlier.order_by("id").values_list("key_id", "splits"):
        if len(splits) >= SPLIT_ROWS_MAX:
            cut.add(key_id)
        for split in splits:
            _add_split(told[key_id], split, -1)
    found = {}
    now = _whole_splits_of(keys)
    for key in keys:
        sums = told[key.id]
        for split in now[key.id]:
            if key.id not in cut or (split["project"], split["api_key"]) in sums:
                _add_split(sums, split, 1)
        changed = [(place, sums[place]) for place in sums if any(sums[place])]
        changed.sort(key=lambda row: (-abs(row[1][0]), row[0][0] or "", row[0][1] or ""))
        found[key.id] = [
            {"project": project, "api_key": credential, "quantity": _text(quantity), "amount": _text(amount)}
            for (project, credential), (quantity, amount) in changed[:SPLIT_ROWS_MAX]
        ]
    return found


def _add_split(
    sums: dict[tuple[Any, Any], tuple[Decimal, Decimal]], split: dict[str, Any], sign: int
) -> None:
    place = split["project"], split["api_key"]
    quantity, amount = sums.get(place, (Decimal(0), Decimal(0)))
    sums[place] = (
        money.EXACT.add(quantity, sign * Decimal(split["quantity"])),
        money.EXACT.add(amount, sign * Decimal(split["amount"])),
    )


def _text(value: Decimal) -> str:
    return f"{value:f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """How long something is due: from `days_min` days to before the next one's; below zero it is not due yet."""

    label: Promise
    days_min: int


AGES = (
    Age(label=_("Not due yet"), days_min=-100_000),
    Age(label=_("1 to 30 days"), days_min=0),
    Age(label=_("31 to 60 days"), days_min=30),
    Age(label=_("61 to 90 days"), days_min=60),
    Age(label=_("Over 90 days"), days_min=90),
)


def receivables_by_age(*, now: datetime) -> list[dict[str, Any]]:
    """Return a table for each currency: what each organization owes on open invoices, by how long it is due."""
    invoices = (
        Invoice.objects.filter(state=InvoiceState.OPEN)
        .select_related("organization")
        .with_payments()
        .order_by("currency", "organization__slug", "finalized_at", "id")
    )
    owed: dict[str, dict[str, list[int]]] = {}
    for invoice in invoices:
        assert invoice.due_at is not None, "an open invoice is final"
        days = (now - invoice.due_at).days
        place = max(place for place, age in enumerate(AGES) if age.days_min <= days)
        ages = owed.setdefault(invoice.currency, {}).setdefault(invoice.organization.slug, [0] * len(AGES))
        ages[place] += invoice.outstanding_minor()
    return [_age_table(currency, rows) for currency, rows in owed.items()]


def _age_table(currency: str, rows: dict[str, list[int]]) -> dict[str, Any]:
    def shown(minor: int) -> str:
        return f"{money.from_minor(minor, currency):,f}"

    sums = [sum(amounts) for amounts in zip(*rows.values(), strict=True)]
    return {
        "currency": currency,
        "rows": [
            {
                "organization": slug,
                "amounts": [shown(minor) if minor else "" for minor in amounts],
                "total": shown(sum(amounts)),
            }
            for slug, amounts in rows.items()
        ],
        "sums": [shown(minor) if minor else "" for minor in sums],
        "total": shown(sum(sums)),
    }
