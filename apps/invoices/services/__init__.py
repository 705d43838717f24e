"""Every write of invoices, a verb a module: close a period, correct what is final, say who sells and how."""

from apps.invoices.services.allocate import allocate_receipt
from apps.invoices.services.cancel import NotCancellable, cancel_invoice
from apps.invoices.services.close import (
    ClosedPeriod,
    PeriodNotEnded,
    PeriodOutOfOrder,
    close_due_periods,
    close_period,
    queue_due_periods,
)
from apps.invoices.services.files import NoEInvoice, NotFinal, file_of, make_files, queue_files
from apps.invoices.services.journal import (
    MonthNotLockable,
    MonthNotUnlockable,
    lock_journal_month,
    unlock_journal_month,
)
from apps.invoices.services.notes import CreditExceedsInvoice, NotCreditable, credit_invoice, write_off
from apps.invoices.services.preview import Preview, preview_period
from apps.invoices.services.sellers import (
    SELLER_FIELDS,
    add_tax_exemption,
    add_tax_rate,
    assign_seller,
    revoke_tax_exemption,
    save_seller,
)
from apps.invoices.services.send import NoRecipient, TooManyRecipients, send_again
from apps.invoices.services.vat import check_vat_id, queue_vat_checks

__all__ = [
    "SELLER_FIELDS",
    "ClosedPeriod",
    "CreditExceedsInvoice",
    "MonthNotLockable",
    "MonthNotUnlockable",
    "NoEInvoice",
    "NoRecipient",
    "NotCancellable",
    "NotCreditable",
    "NotFinal",
    "PeriodNotEnded",
    "PeriodOutOfOrder",
    "Preview",
    "TooManyRecipients",
    "add_tax_exemption",
    "add_tax_rate",
    "allocate_receipt",
    "assign_seller",
    "cancel_invoice",
    "check_vat_id",
    "close_due_periods",
    "close_period",
    "credit_invoice",
    "file_of",
    "lock_journal_month",
    "make_files",
    "preview_period",
    "queue_due_periods",
    "queue_files",
    "queue_vat_checks",
    "revoke_tax_exemption",
    "save_seller",
    "send_again",
    "unlock_journal_month",
    "write_off",
]
