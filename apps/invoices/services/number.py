"""Invoice numbers: gapless within entity, series and year."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from apps.invoices.models import InvoiceCounter


@transaction.atomic
def next_number(*, entity: str, series: str, at: datetime) -> str:
    """Return the next number of a series, such as INV-2026-000042.

    The counter's row stays locked until the caller's transaction ends: a rollback gives the number back, and the next
    caller waits to see whether it was used. The year is that of `at` in the entity's zone, which is UTC until sellers
    have addresses.
    """
    InvoiceCounter.objects.bulk_create(
        [InvoiceCounter(entity=entity, series=series, year=at.year)], ignore_conflicts=True
    )
    counter = InvoiceCounter.objects.select_for_update(no_key=True).get(
        entity=entity, series=series, year=at.year
    )
    counter.last_number += 1
    counter.save(update_fields=["last_number"])
    return f"{series}-{at.year}-{counter.last_number:06d}"
