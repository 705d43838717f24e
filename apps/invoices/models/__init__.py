"""Everything that invoices keep: the documents themselves, who sells, how sales are taxed."""

from apps.invoices.models.documents import FileFormat, InvoiceFile
from apps.invoices.models.invoices import (
    BILLED_KINDS,
    FINAL_STATES,
    NOTE_KINDS,
    PERIOD_KINDS,
    DocumentKind,
    Invoice,
    InvoiceClaim,
    InvoiceCounter,
    InvoiceLine,
    InvoicePayment,
    InvoiceState,
    InvoiceTax,
    LineKind,
    PaymentKind,
    PeriodClose,
)
from apps.invoices.models.journal import JournalEntry, JournalMonth
from apps.invoices.models.sellers import SellerAssignment, SellerEntity
from apps.invoices.models.taxes import TaxCategory, TaxExemption, TaxRate, VatAnswer, VatCheck

__all__ = [
    "BILLED_KINDS",
    "FINAL_STATES",
    "NOTE_KINDS",
    "PERIOD_KINDS",
    "DocumentKind",
    "FileFormat",
    "Invoice",
    "InvoiceClaim",
    "InvoiceCounter",
    "InvoiceFile",
    "InvoiceLine",
    "InvoicePayment",
    "InvoiceState",
    "InvoiceTax",
    "JournalEntry",
    "JournalMonth",
    "LineKind",
    "PaymentKind",
    "PeriodClose",
    "SellerAssignment",
    "SellerEntity",
    "TaxCategory",
    "TaxExemption",
    "TaxRate",
    "VatAnswer",
    "VatCheck",
]
