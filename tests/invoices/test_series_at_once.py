"""Eight at once on both series, some of them failing late: no gap, no repeat."""

from __future__ import annotations

import random

import pytest

from apps.invoices import services as invoices
from apps.invoices.models import Invoice, InvoiceCounter
from apps.invoices.services import close, notes
from tests import build
from tests.billing.runs import HOUR
from tests.invoices.conftest import APRIL
from tests.money import failing
from tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)


def test_eight_closers_and_creditors_with_random_failures_leave_no_gap_and_no_repeat(monkeypatch):
    build.seller()
    build.price_book({"unit_price": "1"})
    labs = [build.organization(f"lab-{number}", now=APRIL) for number in range(8)]
    for lab in labs:
        build.usage(lab, APRIL, APRIL + HOUR)
    chance = random.Random(7)  # noqa: S311  To be repeated, not to be secret.
    publish = close.outbox.publish
    broken = {"on": True}

    def publish_or_fail(event_type, payload, *, organization_id=None):
        # Long after the number was taken.
        last = event_type in ("invoices.period_closed", "invoices.invoice_credited")
        if broken["on"] and last and chance.random() < 0.5:
            raise RuntimeError("no room on the disk")
        publish(event_type, payload, organization_id=organization_id)

    monkeypatch.setattr(close.outbox, "publish", publish_or_fail)

    def work(lab):
        invoice = build.closed(lab, "2026-04").invoice
        return invoices.credit_invoice(
            actor=build.actor(), invoice=invoice, reason="tests", amount_minor=10, now=build.NOW
        ).number

    assert notes.outbox is close.outbox
    first = at_once(*(lambda lab=lab: work(lab) for lab in labs))
    assert any(isinstance(result, RuntimeError) for result in first)
    assert failing() == []
    broken["on"] = False
    at_once(*(lambda lab=lab: work(lab) for lab in labs))

    finals = list(Invoice.objects.final().values_list("series", "number"))
    for series in ("INV", "CN"):
        numbers = sorted(number for of, number in finals if of == series)
        assert numbers == [f"{series}-2026-{place:06d}" for place in range(1, len(numbers) + 1)]
        assert InvoiceCounter.objects.get(series=series).last_number == len(numbers)
    assert sum(series == "INV" for series, _number in finals) == 8
    assert failing() == []
