"""The files of final documents, kept as they were made."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from apps.core.ids import uuid7
from apps.invoices.models.invoices import Invoice


class FileFormat(models.TextChoices):
    """The forms that a document is kept in; `xml` is the e-invoice that the PDF embeds."""

    PDF = "pdf", _("PDF")
    XML = "xml", _("E-invoice")


class InvoiceFile(models.Model):
    """One file of a final document; sha256 is that of `content`, in hexadecimal."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, models.PROTECT, related_name="files", db_constraint=False)
    format = models.CharField(_("format"), max_length=4, choices=FileFormat)
    content = models.BinaryField(_("content"))
    sha256 = models.CharField(_("SHA-256"), max_length=64)
    made_at = models.DateTimeField(_("made"))

    class Meta:
        verbose_name = _("file of an invoice")
        verbose_name_plural = _("files of invoices")
        constraints = [
            models.UniqueConstraint(name="invoices_invoicefile_once", fields=["invoice", "format"]),
            models.CheckConstraint(
                name="invoices_invoicefile_format_known", condition=Q(format__in=FileFormat.values)
            ),
            models.CheckConstraint(
                name="invoices_invoicefile_hash_form", condition=Q(sha256__regex=r"^[0-9a-f]{64}$")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.invoice_id}.{self.format}"
