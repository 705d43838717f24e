"""Several workers on one organization, on the real database: billed once, and nobody waits for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connection

from apps.billing.models import BillingProgress, ChargeHour, Pot
from apps.ledger.models import Transfer
from tests import build
from tests.billing.runs import HOUR, at
from tests.build import NOW
from tests.money import books, failing

pytestmark = pytest.mark.django_db(transaction=True)
WORKERS = 4


def at_once(work, workers=WORKERS):
    """Return what `work(number)` returned in each of several threads that began together."""
    together = Barrier(workers)

    def one(number):
        try:
            together.wait()
            return work(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, range(workers)))


def test_workers_that_charge_one_organization_at_once_bill_once():
    lab = build.organization("lab", now=at(1))
    build.price_book({"unit_price": "2.49"})
    build.credit(lab, "10")
    for number in range(8):
        build.usage(lab, at(number), at(number) + HOUR)

    steps = at_once(lambda _number: build.metered(lab))

    assert sum(step.micros for step in steps) == 19_920_000
    assert ChargeHour.objects.count() == 8
    assert books(lab) == {"bank": -10_000_000, "receivable": -9_920_000, "revenue": 19_920_000}
    assert BillingProgress.objects.get().charged_until == NOW
    assert failing() == []


def test_payments_and_charges_at_once_spend_each_micro_once():
    lab = build.organization("lab", now=at(1))
    build.price_book({"unit_price": "2.49"})
    for number in range(8):
        build.usage(lab, at(number), at(number) + HOUR)

    def work(number):
        if number % 2:
            build.metered(lab)
        else:
            build.credit(lab, "5", pot=Pot.PAID)

    at_once(work)
    build.metered(lab)

    # Ten were paid in all. What settled the debt and what was burnt from lots depends on who came first.
    assert books(lab) == {"bank": -10_000_000, "receivable": -9_920_000, "revenue": 19_920_000}
    assert Transfer.objects.filter(kind="top_up").count() >= 2
    assert failing() == []
