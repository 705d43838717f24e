"""A period's final documents with every row behind them, and the program that recomputes them, in one zip file.

Everything in it is of one moment. It is written row by row, so that no more than a document is held at a time.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from django.db import connection
from django.utils.translation import gettext as _

from apps.billing.models import Burn, ChargeHour
from apps.core import money
from apps.core.errors import Conflict
from apps.core.spreadsheets import csv_lines, neutral
from apps.invoices import selectors, verifier
from apps.invoices.models import FINAL_STATES, Invoice, InvoiceLine
from apps.pricing import selectors as pricing

HOUR_COLUMNS = ("key", "organization", "meter", "sku", "region", "hour", "quantity", "amount")
BURN_COLUMNS = ("key", "hour", "pot", "amount", "reversed", "transfer")
USAGE_COLUMNS = (
    "organization",
    "meter",
    "sku",
    "region",
    "hour",
    "source",
    "resource",
    "project",
    "quantity",
)
ROWS_AT_ONCE = 5_000


class UsageNotCharged(Conflict):
    """Usage behind the documents was counted anew and is not charged yet, so the rows do not agree for a moment."""

    code = "usage_not_charged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """How many documents were written, and the hash of the manifest: who knows it knows every byte of the bundle."""

    documents: int
    sha256: str


def write_bundle(label: str, out: IO[bytes]) -> Bundle:
    """Write the bundle of a period label and return what is in it; UsageNotCharged before anything is written.

    Call it inside `core.snapshots.snapshot`: it reads many tables, which must not change in the meantime.
    """
    _refuse_uncharged(label)
    numbers: list[str | None] = []
    keys: dict[UUID, None] = {}
    program = Path(__file__).with_name("verifier.py").read_text(encoding="utf-8")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        files = {"documents.json": _put(bundle, "documents.json", _documents(label, numbers, keys))}
        files["documents.json"]["rows"] = len(numbers)
        for name, columns, rows in (
            ("hours.csv", HOUR_COLUMNS, _hours(list(keys))),
            ("usage.csv", USAGE_COLUMNS, _usage(list(keys))),
            ("burns.csv", BURN_COLUMNS, _burns(list(keys))),
        ):
            files[name] = _put(bundle, name, csv_lines(chain([columns], rows)))
            files[name]["rows"] -= 1  # The names of the columns are none.
        files["verify.py"] = _put(bundle, "verify.py", [program]) | {"rows": None}
        manifest = manifest_of(label, numbers, files)
        bundle.writestr(verifier.MANIFEST, manifest)
    return Bundle(documents=len(numbers), sha256=hashlib.sha256(manifest.encode()).hexdigest())


def manifest_of(label: str, numbers: Sequence[str | None], files: Mapping[str, dict[str, Any]]) -> str:
    """Return what says which documents and which files a bundle must have, each file with its rows and its hash."""
    facts = {"period": label, "documents": list(numbers), "files": files}
    return json.dumps(facts, indent=1, ensure_ascii=False)


def _put(bundle: zipfile.ZipFile, name: str, texts: Iterable[str]) -> dict[str, Any]:
    """Write a file of the bundle text by text; return how many texts these are, and the hash of them all."""
    digest, count = hashlib.sha256(), 0
    with bundle.open(name, "w", force_zip64=True) as file:  # Nobody knows before how long it gets.
        for text in texts:
            data = text.encode()
            digest.update(data)
            file.write(data)
            count += 1
    return {"rows": count, "sha256": digest.hexdigest()}


def _refuse_uncharged(label: str) -> None:
    """Raise UsageNotCharged if any hour behind a period's documents waits to be charged anew."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT DISTINCT organization.slug FROM metering_usagechange change
            JOIN organizations_organization organization ON organization.id = change.organization_id
            JOIN billing_chargekey key ON key.organization_id = change.organization_id
                AND key.meter = change.meter AND key.sku = change.sku AND key.region = change.region
            JOIN billing_chargehour charged ON charged.key_id = key.id AND charged.hour = change.hour
            WHERE EXISTS (
                SELECT FROM invoices_invoiceline line
                JOIN invoices_invoice document ON document.id = line.invoice_id AND document.state = ANY(%s)
                JOIN organizations_billingperiod period ON period.id = document.period_id AND period.label = %s
                WHERE line.key_id = key.id
            )
            ORDER BY organization.slug
            """,
            [[str(state) for state in FINAL_STATES], label],
        )
        slugs = [slug for (slug,) in cursor]
    if slugs:
        raise UsageNotCharged(
            _(
                "New usage of %(organizations)s is counted, but not charged yet. Wait for the next tick, or run meter;"
                " then try again."
            )
            % {"organizations": ", ".join(slugs)},
            organizations=slugs,
        )


def _documents(label: str, numbers: list[str | None], keys: dict[UUID, None]) -> Iterator[str]:
    """Yield the final documents of a period as the pieces of a JSON list; numbers and keys are noted on the way."""
    documents = (
        Invoice.objects.final()
        .filter(period__label=label)
        .select_related("organization", "period", "corrects")
        .order_by("organization__slug", "number")
    )
    for invoice in documents.iterator(chunk_size=100):
        lines = list(invoice.lines.select_related("key").order_by("position"))
        text = json.dumps(_document(invoice, lines), indent=1, ensure_ascii=False)
        yield f"{',' if numbers else '['}\n{text}"
        numbers.append(invoice.number)
        keys |= dict.fromkeys(line.key_id for line in lines)
    yield "\n]" if numbers else "[]"


def _document(invoice: Invoice, lines: Sequence[InvoiceLine]) -> dict[str, Any]:
    def major(minor: int) -> str:
        return f"{money.from_minor(minor, invoice.currency):f}"

    terms = pricing.terms_of_keys({(line.key.price_id, line.key.override_id) for line in lines})
    before, changed = _before(invoice, lines), _changed_since(invoice, lines)
    return {
        "number": invoice.number,
        "kind": invoice.kind,
        "corrects": invoice.corrects.number if invoice.corrects else None,
        "organization": invoice.organization.slug,
        "period": invoice.period.label,
        "finalized_at": invoice.finalized_at.isoformat() if invoice.finalized_at else None,
        "currency": invoice.currency,
        "exponent": money.exponent(invoice.currency),
        "subtotal": major(invoice.subtotal_minor),
        "discount": major(invoice.discount_minor),
        "tax": major(invoice.tax_minor),
        "total": major(invoice.total_minor),
        "due": major(invoice.due_minor),
        "settlement": _settlement(invoice),
        "taxes": [
            {
                "category": row.category,
                "percent": money.plain(row.percent),
                "country": row.country,
                "note": row.note,
                "base": major(row.base_minor),
                "tax": major(row.tax_minor),
            }
            for row in invoice.taxes.order_by("position")
        ],
        "lines": [
            {
                "position": line.position,
                "kind": line.kind,
                "key": str(line.key_id),
                "usage_period": line.usage_period,
                "meter": line.meter,
                "sku": line.sku,
                "region": line.region,
                "counted": money.plain(line.quantity),
                "price": pricing.terms_as_json(terms[line.key.price_id, line.key.override_id])
                | {"unit_seconds": terms[line.key.price_id, line.key.override_id].unit_seconds},
                "before": before[line.key_id],
                "is_newest": line.quantity >= 0 and line.key_id not in changed,
                "amount": major(line.amount_minor),
                "discount": major(line.discount_minor),
                "tax": major(line.tax_minor),
                "tax_category": line.tax_category,
                "tax_percent": money.plain(line.tax_percent),
                "tax_country": line.tax_country,
                "tax_note": line.tax_note,
            }
            for line in lines
        ],
    }


def _settlement(invoice: Invoice) -> dict[str, Any]:
    """Return what an invoice asks for, in micros' decimals: of which keys, and what was paid of it before."""
    claims = invoice.claims.order_by("key_id").values_list("key_id", "micros")
    return {
        "claims": {str(key_id): f"{money.from_micros(micros):f}" for key_id, micros in claims},
        "tax_from_credit": f"{money.from_minor(invoice.tax_credit_minor, invoice.currency):f}",
        "paid_ahead": f"{money.from_micros(invoice.receipts_micros):f}",
    }


def _before(invoice: Invoice, lines: Sequence[InvoiceLine]) -> dict[UUID, dict[str, str]]:
    """Return for each line's key what documents before this one said of it."""
    return {
        key_id: {
            "quantity": money.plain(told.quantity),
            "amount": f"{money.from_minor(told.amount_minor, invoice.currency):f}",
            "discount": f"{money.from_minor(told.discount_minor, invoice.currency):f}",
        }
        for key_id, told in selectors.told_before(invoice, _keys(lines)).items()
    }


def _changed_since(invoice: Invoice, lines: Sequence[InvoiceLine]) -> set[UUID]:
    """Return the keys of the lines about which something came after the document: another one, or a charge."""
    assert invoice.finalized_at is not None, "final documents alone are bundled"
    billed = selectors.billed_lines(_keys(lines)).exclude(invoice=invoice)
    later = billed.filter(invoice__finalized_at__gte=invoice.finalized_at)
    charged = ChargeHour.objects.filter(key__in=_keys(lines), charged_at__gt=invoice.finalized_at)
    return {
        *later.values_list("key_id", flat=True).distinct(),
        *charged.values_list("key_id", flat=True).distinct(),
    }


def _keys(lines: Sequence[InvoiceLine]) -> set[UUID]:
    return {line.key_id for line in lines}


def _hours(key_ids: Sequence[UUID]) -> Iterator[tuple[object, ...]]:
    rows = (
        ChargeHour.objects.filter(key__in=key_ids)
        .select_related("key", "organization")
        .order_by("key_id", "hour")
    )
    for row in rows.iterator(chunk_size=ROWS_AT_ONCE):
        yield (
            row.key_id, row.organization.slug, row.key.meter, row.key.sku, row.key.region, row.hour.isoformat(),
            money.plain(row.quantity), f"{money.from_micros(row.amount_micros):f}",
        )  # fmt: skip


def _usage(key_ids: Sequence[UUID]) -> Iterator[tuple[object, ...]]:
    """Yield the usage by resource of every hour that the keys were charged for."""
    with connection.chunked_cursor() as cursor:
        # OFFSET 0 keeps PostgreSQL from joining all usage of a key to each of its hours.
        cursor.execute(
            """
            SELECT organization.slug, key.meter, key.sku, key.region, charged.hour, resource.source, resource.subject,
                   coalesce(project.slug, ''), used.quantity
            FROM billing_chargehour charged
            JOIN billing_chargekey key ON key.id = charged.key_id
            CROSS JOIN LATERAL (
                SELECT id, resource_id, project_id, quantity FROM metering_usagehour
                WHERE organization_id = key.organization_id AND meter = key.meter AND sku = key.sku
                    AND region = key.region AND hour = charged.hour AND quantity > 0
                OFFSET 0
            ) used
            JOIN organizations_organization organization ON organization.id = key.organization_id
            JOIN metering_resource resource ON resource.id = used.resource_id
            LEFT JOIN organizations_project project ON project.id = used.project_id
            WHERE charged.key_id = ANY(%s) AND charged.quantity > 0
            ORDER BY organization.slug, charged.hour, used.id
            """,
            [list(key_ids)],
        )
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            for *place, hour, source, subject, project, quantity in rows:
                yield (
                    *place,
                    hour.isoformat(),
                    neutral(source),
                    neutral(subject),
                    project,
                    money.plain(quantity),
                )


def _burns(key_ids: Sequence[UUID]) -> Iterator[tuple[object, ...]]:
    """Yield which credit paid what of each hour, by which transfer; what no credit paid is the receivable's."""
    rows = Burn.objects.filter(key__in=key_ids).select_related("lot").order_by("key_id", "hour", "id")
    for row in rows.iterator(chunk_size=ROWS_AT_ONCE):
        yield (
            row.key_id, row.hour.isoformat(), row.lot.pot if row.lot else "receivable",
            f"{money.from_micros(row.amount_micros):f}", f"{money.from_micros(row.reversed_micros):f}", row.transfer_id,
        )  # fmt: skip
