"""How an invoice stands, in words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from apps.core.states import State
from apps.invoices import selectors
from apps.invoices.models import Invoice, InvoiceState

_STATES = {
    InvoiceState.DRAFT: State(word=_("draft")),
    InvoiceState.PAID: State(word=_("paid"), tone="ok"),
    InvoiceState.UNCOLLECTIBLE: State(word=_("written off"), tone="danger"),
    InvoiceState.CANCELLED: State(word=_("cancelled")),
    InvoiceState.ISSUED: State(word=_("issued"), tone="ok"),
    InvoiceState.VOID: State(word=_("void")),
}


def state_of(invoice: Invoice, *, now: datetime) -> State:
    """Return how an invoice stands: an open one says when it is due."""
    if invoice.state != InvoiceState.OPEN:
        return _STATES[InvoiceState(invoice.state)]
    if invoice.due_at is None:
        return State(word=_("open"), tone="info")
    if invoice.due_at <= now:
        return State(word=_("overdue"), tone="danger")
    days = (invoice.due_at - now).days
    if days == 0:
        return State(word=_("due today"), tone="caution")
    return State(
        word=ngettext("due in %(count)d day", "due in %(count)d days", days) % {"count": days},
        tone="caution" if days <= 3 else "info",
    )


def described(invoices: Iterable[Invoice], *, now: datetime) -> list[dict[str, Any]]:
    """Return invoices of `invoices_of` as data with their states in words."""
    return [
        selectors.invoice_row(invoice)
        | {
            "standing": state_of(invoice, now=now),
            "due_at": invoice.due_at,
            "is_credited": invoice.credited_micros > 0,
        }
        for invoice in invoices
    ]
