"""The parts of an invoice: what promotional credit, paid credit and the receivable each carry of its total."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.billing.models import ChargeKey, Pot
from apps.core.errors import ValidationFailed
from apps.invoices.models import Invoice
from apps.metering.models import UsageChange
from tests import build
from tests.billing.runs import HOUR, run, stop
from tests.build import NOW
from tests.invoices.conftest import APRIL
from tests.money import books, failing, lines


def test_the_receivable_gives_way_where_rounded_discounts_leave_less_than_it(lab):
    build.price_book({"unit_price": "2.49"})
    build.credit(lab, "0.005", pot=Pot.PROMO, now=APRIL)
    build.usage(lab, APRIL, APRIL + HOUR)

    invoice = build.closed(lab, "2026-04").invoice

    # 2.485 is on the receivable, and rounding it alone would ask for 2.49 of a total of 2.48.
    assert (invoice.subtotal_minor, invoice.discount_minor, invoice.total_minor) == (249, 1, 248)
    assert invoice.due_minor == 248
    assert books(lab) == {
        "promo_expense": -5_000,
        "receivable": -2_480_000,
        "revenue": 2_490_000,
        "rounding": -5_000,
    }
    assert failing() == []


def test_a_debt_without_a_line_is_asked_for_by_the_next_invoice(lab):
    build.price_book({"unit_price": "1"})
    build.credit(lab, "1", pot=Pot.PROMO, now=APRIL, expires_at=APRIL + HOUR)
    run(lab, "a", APRIL, APRIL + HOUR)
    first = build.closed(lab, "2026-04").invoice
    assert (first.total_minor, first.due_minor) == (0, 0)
    # Half an hour that lapsed credit paid for is withdrawn, and half an hour that nothing pays comes instead.
    stop(lab, "a", APRIL + HOUR / 2)
    build.usage(lab, APRIL + 2 * HOUR, APRIL + 2.5 * HOUR)
    build.usage(lab, NOW - timedelta(days=10), NOW - timedelta(days=10) + HOUR, sku="h100")

    second = build.closed(lab, "2026-05", now=NOW + timedelta(days=30)).invoice

    # The key's total is the same, its discount fell by half: the promotional credit had expired for good.
    assert lines(second) == [
        ("usage", "2026-05", "h100", "3600", 100, 0),
        ("adjustment", "2026-04", "h100", "0", 0, -50),
    ]
    assert (second.total_minor, second.due_minor) == (150, 150)
    assert failing() == []


def test_what_a_paid_lot_lost_by_expiry_is_due_though_no_line_changes(lab):
    build.price_book({"unit_price": "1"})
    build.credit(lab, "1", now=APRIL, expires_at=APRIL + HOUR)
    run(lab, "a", APRIL, APRIL + HOUR)
    assert build.closed(lab, "2026-04").invoice.state == "paid"
    stop(lab, "a", APRIL + HOUR / 2)
    build.usage(lab, APRIL + 2 * HOUR, APRIL + 2.5 * HOUR)
    build.usage(lab, NOW - timedelta(days=10), NOW - timedelta(days=10) + HOUR)

    second = build.closed(lab, "2026-05", now=NOW + timedelta(days=30)).invoice

    assert lines(second) == [("usage", "2026-05", "h100", "3600", 100, 0)]
    assert (second.total_minor, second.due_minor) == (100, 150)
    assert books(lab) == {
        "bank": -1_000_000,
        "breakage": 500_000,
        "receivable": -1_500_000,
        "revenue": 2_000_000,
    }
    assert failing() == []


def test_an_absurd_hour_is_kept_as_unpriced_and_holds_up_nothing(lab):
    build.price_book({"unit_price": "1"}, {"meter": "requests", "unit_price": "10"})
    build.events(
        {
            "specversion": "1.0",
            "id": "absurd",
            "source": "tests",
            "type": "usage.recorded",
            "time": (APRIL + HOUR).isoformat(),
            "data": {
                "organization": lab.slug,
                "sku": "h100",
                "region": "eu",
                "meter": "requests",
                "quantity": "1000000000000",
            },
        }
    )
    build.usage(lab, APRIL, APRIL + HOUR)

    build.metered(lab)
    invoice = build.closed(lab, "2026-04").invoice

    assert list(ChargeKey.objects.unpriced().values_list("meter", flat=True)) == ["requests"]
    assert lines(invoice) == [("usage", "2026-04", "h100", "3600", 100, 0)]
    assert not UsageChange.objects.exists()
    assert failing() == []


@pytest.mark.parametrize("amount", ["0", "-1", "1000000000.000001"])
def test_credit_that_cannot_be_meant_is_refused(lab, amount):
    with pytest.raises(ValidationFailed):
        build.credit(lab, amount)

    assert books(lab) == {}
    assert not Invoice.objects.exists()
