"""Documents as answers to a request, alike from REST, the portal and the staff admin."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable

from django.http import HttpResponse, StreamingHttpResponse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from apps.core.errors import InvalidRequest
from apps.core.periods import is_label
from apps.core.spreadsheets import neutral
from apps.invoices import focus
from apps.invoices import services as invoices
from apps.invoices.documents.content import content_of
from apps.invoices.models import FileFormat, Invoice
from apps.organizations.models import Organization

FORMATS = {
    "pdf": "application/pdf",
    "xml": "application/xml",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
}
CSV_COLUMNS = (
    "position", "kind", "usage_period", "corrects", "meter", "sku", "region", "quantity", "unit", "unit_price",
    "amount", "discount", "net", "tax_category", "tax_percent", "tax",
)  # fmt: skip


def document_answer(document: Invoice, file_format: str) -> HttpResponse:
    """Return a final document in one of FORMATS as a download; NotFinal for a draft, NoEInvoice."""
    content = _content(document, file_format)
    headers = {
        "Content-Disposition": f'attachment; filename="{document.number}.{file_format}"',
        "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
        "X-Content-Type-Options": "nosniff",
    }
    return HttpResponse(content, content_type=FORMATS[file_format], headers=headers)


def _content(document: Invoice, file_format: str) -> bytes:
    if file_format in FileFormat.values:
        found = invoices.file_of(invoice=document, file_format=FileFormat(file_format), now=timezone.now())
        return bytes(found.content)
    if document.number is None:
        raise invoices.NotFinal
    said = content_of(document)
    if file_format == "json":
        return json.dumps(said, indent=1, ensure_ascii=False).encode()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("number", "currency", *CSV_COLUMNS))
    writer.writerows(
        [neutral(said["number"]), said["currency"], *(neutral(line[name]) for name in CSV_COLUMNS)]
        for line in said["lines"]
    )
    return out.getvalue().encode()


def focus_answer(label: str, organization: Organization | None) -> StreamingHttpResponse:
    """Return a month's cost and usage as FOCUS 1.2, of one organization or of all; InvalidRequest for no month."""
    if not is_label(label):
        raise InvalidRequest(_("`period` is a month such as 2026-05."), parameter="period")
    name = f"focus-{organization.slug}-{label}" if organization else f"focus-{label}"
    return csv_answer(focus.as_csv(focus.month_rows(label, organization.id if organization else None)), name)


def csv_answer(lines: Iterable[str], name: str) -> StreamingHttpResponse:
    """Return CSV as a download that is sent while it is written."""
    headers = {
        "Content-Disposition": f'attachment; filename="{name}.csv"',
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingHttpResponse(lines, content_type=FORMATS["csv"], headers=headers)
