"""What stands against deleting an organization, as far as invoices know."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.invoices.models import Invoice, InvoiceState
from apps.organizations.models import Organization


def open_business(
    *,
    organization: Organization,
    now: datetime,  # noqa: ARG001  Every blocker is asked alike.
) -> Iterator[tuple[str, str | Promise]]:
    """Yield a code and a sentence if an invoice is not settled."""
    unsettled = Invoice.objects.filter(
        organization=organization, state__in=[InvoiceState.DRAFT, InvoiceState.OPEN]
    )
    if unsettled.exists():
        yield "invoice_open", _("An invoice is not settled yet.")
