"""Make the files of final documents, once; a job does it after the commit, or whoever asks first."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils.translation import gettext_lazy as _

from apps.core import jobs
from apps.core.errors import Conflict, NotFound
from apps.invoices.documents import einvoice
from apps.invoices.documents.content import content_of
from apps.invoices.documents.pdf import pdf_of
from apps.invoices.models import FileFormat, Invoice, InvoiceFile
from apps.outbox import services as outbox

LOST_AFTER = timedelta(minutes=5)  # Then the sweep takes a job for lost.
QUEUED_AT_ONCE = 500


class NotFinal(Conflict):
    """Drafts are not printed: they change."""

    code = "invoice_not_final"
    default_message = _("This invoice is still a draft. It is printed once it is final.")


class NoEInvoice(Conflict):
    """What an e-invoice must say is not known, or its currency is finer than the standard."""

    code = "no_e_invoice"
    default_message = _("This document has no e-invoice; its PDF says the same.")


def make_files(*, invoice_id: UUID, now: datetime) -> None:
    """Make the PDF of a final document, and its e-invoice where there can be one; again changes nothing."""
    invoice = Invoice.objects.select_related("organization", "period", "corrects").get(pk=invoice_id)
    if invoice.number is None:
        raise NotFinal
    if InvoiceFile.objects.filter(invoice=invoice, format=FileFormat.PDF).exists():
        return
    content = content_of(invoice)
    xml = einvoice.xml_of(content) if einvoice.why_not(content) is None else None
    _keep(invoice, pdf=pdf_of(content, xml), xml=xml, now=now)


@transaction.atomic
def _keep(invoice: Invoice, *, pdf: bytes, xml: bytes | None, now: datetime) -> None:
    files = {FileFormat.PDF: pdf} | ({FileFormat.XML: xml} if xml is not None else {})
    InvoiceFile.objects.bulk_create(
        [
            InvoiceFile(
                organization_id=invoice.organization_id,
                invoice=invoice,
                format=file_format,
                content=content,
                sha256=hashlib.sha256(content).hexdigest(),
                made_at=now,
            )
            for file_format, content in files.items()
        ],
        # Two may make them at once: the first ones stay.
        ignore_conflicts=True,
    )
    outbox.publish(
        "invoices.document_ready",
        {"id": str(invoice.id), "number": invoice.number},
        organization_id=invoice.organization_id,
    )


def file_of(*, invoice: Invoice, file_format: FileFormat, now: datetime) -> InvoiceFile:
    """Return a file of a document that the caller may see, making it where the job has not yet.

    Raises NotFinal for a draft and NoEInvoice.
    """
    if invoice.number is None:
        raise NotFinal
    found = InvoiceFile.objects.filter(invoice=invoice, format=file_format).first()
    if found is None:
        make_files(invoice_id=invoice.id, now=now)
        found = InvoiceFile.objects.filter(invoice=invoice, format=file_format).first()
    if found is None and file_format == FileFormat.XML:
        raise NoEInvoice
    if found is None:
        raise NotFound
    return found


def queue_files(*, now: datetime) -> int:
    """Queue the final documents without a file, whose job was lost; return how many."""
    made = InvoiceFile.objects.filter(invoice=OuterRef("pk"), format=FileFormat.PDF)
    missing = (
        Invoice.objects.final()
        .filter(~Exists(made), finalized_at__lte=now - LOST_AFTER)
        .order_by("finalized_at", "id")
        .values_list("id", flat=True)[:QUEUED_AT_ONCE]
    )
    for invoice_id in missing:
        jobs.enqueue("invoices.make_files", invoice_id=invoice_id)
    return len(missing)
