"""Every write of invoices, a verb a module: close a period, put a receipt to what is open."""

from apps.invoices.services.allocate import allocate_receipt
from apps.invoices.services.close import (
    ClosedPeriod,
    PeriodNotEnded,
    PeriodOutOfOrder,
    close_due_periods,
    close_period,
    queue_due_periods,
)

__all__ = [
    "ClosedPeriod",
    "PeriodNotEnded",
    "PeriodOutOfOrder",
    "allocate_receipt",
    "close_due_periods",
    "close_period",
    "queue_due_periods",
]
