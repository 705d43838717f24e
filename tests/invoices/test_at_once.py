"""Closers at once, on the real database: one invoice a period, numbers without a gap."""

from __future__ import annotations

import pytest

from apps.invoices.models import Invoice, InvoiceCounter, PeriodClose
from apps.invoices.services import close
from apps.ledger.models import Transfer
from tests import build
from tests.billing.runs import HOUR
from tests.billing.test_at_once import at_once
from tests.invoices.conftest import APRIL
from tests.money import failing

pytestmark = pytest.mark.django_db(transaction=True)


def test_two_closers_of_one_period_make_one_invoice():
    lab = build.organization("lab", now=APRIL)
    build.price_book({"unit_price": "2.4949"})
    build.usage(lab, APRIL, APRIL + 5 * HOUR)

    closed = at_once(lambda _number: build.closed(lab, "2026-04").invoice)

    assert {invoice.number for invoice in closed} == {"INV-2026-000001"}
    assert Invoice.objects.count() == PeriodClose.objects.count() == 1
    assert Transfer.objects.filter(kind="usage").count() == 5
    assert failing() == []


def test_numbers_have_no_gap_when_some_closers_fail(monkeypatch):
    build.price_book({"unit_price": "1"})
    labs = [build.organization(f"lab-{number}", now=APRIL) for number in range(6)]
    for lab in labs:
        build.usage(lab, APRIL, APRIL + HOUR)
    broken = {lab.id for lab in labs[::2]}
    publish = close.outbox.publish

    def publish_or_fail(event_type, payload, *, organization_id=None):
        # The last write of closing, long after the number was taken.
        if event_type == "invoices.period_closed" and organization_id in broken:
            raise RuntimeError("no room on the disk")
        publish(event_type, payload, organization_id=organization_id)

    monkeypatch.setattr(close.outbox, "publish", publish_or_fail)

    def work(number):
        try:
            return build.closed(labs[number], "2026-04").invoice.number
        except RuntimeError:
            return None

    first = at_once(work, workers=6)
    assert sorted(number for number in first if number) == [
        "INV-2026-000001",
        "INV-2026-000002",
        "INV-2026-000003",
    ]
    assert not Invoice.objects.filter(organization__in=broken).exists()

    broken.clear()
    again = at_once(work, workers=6)

    assert sorted(again) == [f"INV-2026-00000{number}" for number in range(1, 7)]
    assert InvoiceCounter.objects.get().last_number == 6
    assert failing() == []
