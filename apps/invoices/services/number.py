"""Invoice numbers: gapless within entity, series and year."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from apps.core import jobs
from apps.invoices.models import Invoice, InvoiceCounter, InvoiceState
from apps.invoices.parties import Seller
from apps.invoices.services.send import mail_when_final


@transaction.atomic
def next_number(*, entity: str, series: str, year: int) -> str:
    """Return the next number of a series, such as INV-2026-000042.

    The counter's row stays locked until the caller's transaction ends: a rollback gives the number back, and the next
    caller waits to see whether it was used. The year is that of the document in the entity's zone.
    """
    InvoiceCounter.objects.bulk_create(
        [InvoiceCounter(entity=entity, series=series, year=year)], ignore_conflicts=True
    )
    counter = InvoiceCounter.objects.select_for_update(no_key=True).get(
        entity=entity, series=series, year=year
    )
    counter.last_number += 1
    counter.save(update_fields=["last_number"])
    return f"{series}-{year}-{counter.last_number:06d}"


def number_document(invoice: Invoice, *, state: InvoiceState, seller: Seller, now: datetime) -> None:
    """Make a draft final: state, moment and number, saved with everything else that the caller set.

    Its files are queued, and its mail.
    Called once all else is locked and computed: whoever holds the counter only writes the rows that tell its number,
    and waits for nothing but its own commit.
    """
    invoice.state = state
    invoice.finalized_at = now
    invoice.organization_slug = invoice.organization.slug
    invoice.number = next_number(entity=invoice.entity, series=invoice.series, year=seller.day_of(now).year)
    invoice.save()
    jobs.enqueue("invoices.make_files", invoice_id=invoice.id)
    mail_when_final(invoice, now=now)
