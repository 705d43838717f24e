"""Final invoices as data: the shape of `export_invoices`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from apps.core import money
from apps.core.spreadsheets import neutral
from apps.invoices.models import Invoice, InvoiceLine
from apps.pricing.selectors import unit_seconds

LINE_COLUMNS = (
    "kind", "usage_period", "corrects", "meter", "sku", "region", "quantity", "gpu_seconds", "unit_price", "amount",
)  # fmt: skip
INVOICE_COLUMNS = (
    "number",
    "organization",
    "period",
    "currency",
    "subtotal",
    "discount",
    "tax",
    "total",
)


class Writable(Protocol):
    """Anything that text can be written to."""

    def write(self, text: str, /) -> Any: ...


def final_invoices(label: str) -> Iterator[dict[str, Any]]:
    """Yield the final invoices and credit notes of all organizations for a period label, by organization and number.

    A credit note's amounts are below zero, so that everything adds up; its series tells it from an invoice.
    """
    units = unit_seconds()
    invoices = (
        Invoice.objects.final()
        .filter(period__label=label)
        .select_related("organization", "period")
        .prefetch_related("lines__corrects__invoice")
        .order_by("organization__slug", "number")
    )
    for invoice in invoices.iterator(chunk_size=200):
        lines = sorted(invoice.lines.all(), key=lambda line: line.position)
        yield invoice_row(invoice) | {"lines": [line_row(line, invoice.currency, units) for line in lines]}


def invoice_row(invoice: Invoice) -> dict[str, Any]:
    """Return the head of an invoice; amounts are decimal strings in major units."""
    amounts = {
        name: f"{money.from_minor(getattr(invoice, f'{name}_minor'), invoice.currency):f}"
        for name in ("subtotal", "discount", "tax", "total")
    }
    return {
        "number": invoice.number,
        "organization": invoice.organization.slug,
        "period": invoice.period.label,
        "currency": invoice.currency,
        **amounts,
    }


def line_row(line: InvoiceLine, currency: str, units: Mapping[str, int]) -> dict[str, Any]:
    """Return one line; quantity is in the meter's unit (GPU-hours to six decimals), gpu_seconds is exact.

    gpu_seconds: None for meters that do not count GPUs. corrects: number and position of the corrected line.
    """
    corrected = line.corrects
    return {
        "kind": line.kind,
        "usage_period": line.usage_period,
        "corrects": f"{corrected.invoice.number}/{corrected.position}" if corrected else None,
        "meter": line.meter,
        "sku": line.sku,
        "region": line.region,
        "quantity": money.in_unit(line.quantity, units.get(line.meter, 1)),
        "gpu_seconds": money.plain(line.quantity) if line.meter == "gpu_hours" else None,
        "unit_price": money.plain(line.unit_price, decimals_min=2) if line.unit_price is not None else None,
        "amount": f"{money.from_minor(line.amount_minor, currency):f}",
    }


def write_csv(rows: Iterable[dict[str, Any]], out: Writable) -> None:
    """Write invoices as CSV, one row a line with the invoice's head repeated; no cell can be read as a formula."""
    heads = [f"invoice_{name}" if name in LINE_COLUMNS else name for name in INVOICE_COLUMNS]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*heads, *LINE_COLUMNS])
    for invoice in rows:
        head = [neutral(invoice[name]) for name in INVOICE_COLUMNS]
        writer.writerows(
            [*head, *(neutral(line[name]) for name in LINE_COLUMNS)] for line in invoice["lines"]
        )
