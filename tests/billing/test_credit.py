"""Credit: which lot pays, what expires, what is owed, and where corrected usage returns to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from apps.audit.models import AuditEvent
from apps.billing.models import BillingProgress, Burn, ChargeKey, CreditLot, Pot
from apps.billing.services import InvalidExpiry
from apps.core.errors import ValidationFailed
from apps.invoices.models import Invoice, InvoicePayment
from apps.ledger.models import Transfer
from apps.outbox.models import OutboxEvent
from tests import build
from tests.billing.runs import HOUR, at, charged, run, stop
from tests.build import NOW
from tests.money import books, failing, lots, transfers

APRIL = datetime(2026, 4, 10, tzinfo=UTC)


@pytest.fixture(autouse=True)
def prices(db):
    build.price_book({"unit_price": "2.49"})


def used(lab, hour=9):
    build.usage(lab, at(hour), at(hour + 1))
    build.metered(lab)


# --- grants


def test_paid_credit_is_a_lot_from_the_bank(lab):
    grant = build.credit(lab, "10", reason="Wire 4711", reference="4711")

    lot = CreditLot.objects.get()
    assert (grant.settled_micros, grant.lot) == (0, lot)
    assert (lot.pot, lot.amount_micros, lot.priority, lot.effective_at, lot.expires_at) == (
        "paid",
        10_000_000,
        50,
        at(12),
        None,
    )
    assert transfers(lab) == [("top_up", "bank", "paid_lot", 10_000_000)]
    assert Transfer.objects.get().reference == "4711"
    assert AuditEvent.objects.filter(action="credit.granted").count() == 1
    assert OutboxEvent.objects.filter(event_type="billing.credit_granted").count() == 1


def test_promotional_credit_is_a_lot_from_its_expense_even_when_something_is_owed(lab):
    used(lab)

    grant = build.credit(lab, "10", pot=Pot.PROMO)

    assert grant.settled_micros == 0
    assert books(lab) == {
        "promo_expense": -10_000_000,
        "promo_lot": 10_000_000,
        "receivable": -2_490_000,
        "revenue": 2_490_000,
    }


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"amount": "0"}, "amount"),
        ({"amount": "-1"}, "amount"),
        ({"amount": "1", "priority": 101}, "priority"),
        ({"amount": "1", "priority": -1}, "priority"),
        ({"amount": "1", "expires_at": at(12.5)}, "expires_at"),
        ({"amount": "1", "expires_at": at(12)}, "expires_at"),
        ({"amount": "1", "expires_at": at(11)}, "expires_at"),
    ],
)
def test_refuses_a_wrong_grant_and_writes_nothing(lab, fields, path):
    with pytest.raises(ValidationFailed) as refused:
        build.credit(lab, **fields)

    assert [field.path for field in refused.value.fields] == [path]
    assert isinstance(refused.value, InvalidExpiry) == (path == "expires_at")
    assert not CreditLot.objects.exists()
    assert not Transfer.objects.exists()
    assert not AuditEvent.objects.filter(action="credit.granted").exists()


# --- which lot pays


def test_usage_beyond_the_credit_is_owed(lab):
    build.credit(lab, "1")

    used(lab)

    assert transfers(lab) == [
        ("top_up", "bank", "paid_lot", 1_000_000),
        ("usage", "paid_lot", "revenue", 1_000_000),
        ("usage", "receivable", "revenue", 1_490_000),
    ]
    assert ChargeKey.objects.get().receivable_micros == 1_490_000
    assert failing() == []


@pytest.mark.parametrize(
    ("granted", "expires", "promo_pays"),
    [
        # Lots take effect with the hour of their grant.
        (at(9.75), None, True),
        (at(10), None, False),
        (at(10.5), None, False),
        (at(8), at(10), True),
        (at(8), at(9), False),
        (at(9), at(10), True),
    ],
)
def test_a_promo_lot_pays_an_hour_that_lies_within_its_life(lab, granted, expires, promo_pays):
    build.credit(lab, "10", pot=Pot.PROMO, now=granted, expires_at=expires, priority=0)
    build.credit(lab, "10", now=at(12))
    build.usage(lab, at(9), at(10), now=at(12))

    build.metered(lab, at(12))

    assert [burn.lot.pot for burn in Burn.objects.select_related("lot")] == [
        "promo" if promo_pays else "paid"
    ]
    assert failing() == []


def test_paid_credit_pays_usage_from_before_it_came(lab):
    build.usage(lab, at(2), at(3))
    build.credit(lab, "10", now=at(12))

    build.metered(lab)

    assert books(lab) == {"bank": -10_000_000, "paid_lot": 7_510_000, "revenue": 2_490_000}


# --- expiry


def test_expiry_posts_once_metering_has_passed_it_dated_at_its_instant(lab):
    build.credit(lab, "10", pot=Pot.PROMO, now=at(9), expires_at=at(11))
    build.credit(lab, "5", now=at(9), expires_at=at(11), priority=90)
    build.usage(lab, at(10), at(11), now=at(11))

    build.metered(lab, at(10.9))
    assert lots(lab) == [("promo", 10_000_000), ("paid", 5_000_000)]
    build.metered(lab, at(11))
    build.metered(lab, at(11.5))

    assert transfers(lab)[2:] == [
        ("usage", "promo_lot", "revenue", 2_490_000),
        ("expiry", "promo_lot", "promo_expense", 7_510_000),
        ("expiry", "paid_lot", "breakage", 5_000_000),
    ]
    assert set(Transfer.objects.filter(kind="expiry").values_list("occurred_at", flat=True)) == {at(11)}
    assert lots(lab) == [("promo", 0), ("paid", 0)]
    assert set(CreditLot.objects.values_list("expired_at", flat=True)) == {at(11)}
    assert failing() == []


def test_usage_that_comes_after_the_expiry_of_its_credit_does_not_bring_it_back(lab):
    build.credit(lab, "10", pot=Pot.PROMO, now=at(9), expires_at=at(11))
    build.metered(lab, at(11))

    used(lab, hour=10)

    assert lots(lab) == [("promo", 0)]
    assert books(lab) == {"receivable": -2_490_000, "revenue": 2_490_000}


def test_what_returns_to_an_expired_lot_expires_again_at_once(lab):
    build.credit(lab, "10", pot=Pot.PROMO, now=at(9), expires_at=at(11))
    run(lab, "a", at(10), at(11))
    build.metered(lab)
    assert books(lab) == {"promo_expense": -2_490_000, "revenue": 2_490_000}

    stop(lab, "a", at(10.5))
    build.metered(lab)

    assert transfers(lab)[3:] == [
        ("usage_reversal", "revenue", "promo_lot", 1_245_000),
        ("expiry", "promo_lot", "promo_expense", 1_245_000),
    ]
    assert lots(lab) == [("promo", 0)]
    assert books(lab) == {"promo_expense": -1_245_000, "revenue": 1_245_000}
    assert failing() == []


# --- corrections


def test_less_usage_reverses_the_newest_burns_back_into_their_lots(lab):
    build.credit(lab, "1", pot=Pot.PROMO, now=at(9))
    build.credit(lab, "1", now=at(9))
    run(lab, "a", at(9), at(10))
    build.metered(lab)
    assert [
        (burn.lot.pot if burn.lot else None, burn.amount_micros) for burn in Burn.objects.order_by("id")
    ] == [
        ("promo", 1_000_000),
        ("paid", 1_000_000),
        (None, 490_000),
    ]

    stop(lab, "a", at(9.5))
    build.metered(lab)

    assert [burn.reversed_micros for burn in Burn.objects.order_by("id")] == [0, 755_000, 490_000]
    assert transfers(lab)[5:] == [
        ("usage_reversal", "revenue", "receivable", 490_000),
        ("usage_reversal", "revenue", "paid_lot", 755_000),
    ]
    assert lots(lab) == [("promo", 0), ("paid", 755_000)]
    assert charged(lab) == {"15 09:00": ("1800", 1_245_000)}
    assert failing() == []


def test_usage_that_goes_and_comes_again_posts_a_new_cause_each_time(lab):
    run(lab, "a", at(9), at(11))
    build.metered(lab)
    stop(lab, "a", at(10))
    build.metered(lab)

    build.usage(lab, at(10), at(11))
    build.metered(lab)

    key = ChargeKey.objects.get()
    assert list(Transfer.objects.order_by("created_at", "id").values_list("cause", flat=True)) == [
        f"usage:{key.id}:20260515T0900:1:1",
        f"usage:{key.id}:20260515T1000:1:1",
        f"usage-reversal:{key.id}:20260515T1000:2:1",
        f"usage:{key.id}:20260515T1000:3:1",
    ]
    assert books(lab) == {"receivable": -4_980_000, "revenue": 4_980_000}
    assert failing() == []


def test_what_comes_back_pays_what_is_charged_in_the_same_step(lab):
    build.credit(lab, "2.49")
    run(lab, "a", at(9), at(10))
    build.metered(lab)

    stop(lab, "a", at(9.5))
    build.usage(lab, at(8), at(8.5), sku="a100")
    build.metered(lab)

    assert books(lab) == {"bank": -2_490_000, "revenue": 2_490_000}
    assert failing() == []


# --- what is owed


@pytest.fixture
def indebted(db):
    """An organization that owes 2.49 on an open invoice for April and 2.49 for May, not invoiced yet."""
    organization = build.organization("lab", now=APRIL)
    run(organization, "april", APRIL, APRIL + HOUR)
    build.metered(organization, APRIL + HOUR)
    build.closed(organization, "2026-04")
    run(organization, "may", at(9), at(10))
    build.metered(organization)
    assert books(organization)["receivable"] == -4_980_000
    return organization


def test_a_payment_settles_the_oldest_invoice_then_usage_then_becomes_credit(indebted):
    invoice = Invoice.objects.get()

    assert build.credit(indebted, "1").settled_micros == 1_000_000
    invoice.refresh_from_db()
    assert invoice.state == "open"
    assert build.credit(indebted, "2").settled_micros == 2_000_000
    invoice.refresh_from_db()
    assert invoice.state == "paid"
    assert BillingProgress.objects.get().unbilled_receipts_micros == 510_000
    grant = build.credit(indebted, "3")

    assert (grant.settled_micros, grant.lot.amount_micros) == (1_980_000, 1_020_000)
    assert BillingProgress.objects.get().unbilled_receipts_micros == 2_490_000
    assert list(InvoicePayment.objects.order_by("id").values_list("amount_micros", flat=True)) == [
        1_000_000,
        1_490_000,
    ]
    assert books(indebted) == {"bank": -6_000_000, "paid_lot": 1_020_000, "revenue": 4_980_000}
    assert OutboxEvent.objects.filter(event_type="invoices.invoice_paid").count() == 1
    assert failing() == []


def test_what_was_paid_ahead_is_taken_off_the_next_invoice(indebted):
    build.credit(indebted, "4")

    closed = build.closed(indebted, "2026-05", now=NOW + timedelta(days=30))

    # 2.49 on April's, 1.51 ahead: 0.98 of May's is due.
    assert (closed.invoice.total_minor, closed.invoice.due_minor, closed.invoice.state) == (249, 98, "open")
    assert BillingProgress.objects.get().unbilled_receipts_micros == 0
    assert failing() == []


def test_less_usage_reduces_what_is_owed_while_nobody_asked_for_it(indebted):
    stop(indebted, "may", at(9.5))
    build.metered(indebted)

    assert books(indebted) == {"receivable": -3_735_000, "revenue": 3_735_000}
    assert not CreditLot.objects.exists()
    assert failing() == []


def test_less_usage_that_was_invoiced_becomes_paid_credit(indebted):
    stop(indebted, "april", APRIL + HOUR / 2)
    build.metered(indebted)

    # The invoice stays owed as it is.
    assert books(indebted) == {"paid_lot": 1_245_000, "receivable": -4_980_000, "revenue": 3_735_000}
    assert [(lot.source, lot.pot) for lot in CreditLot.objects.all()] == [("usage_reversal", "paid")]
    key = ChargeKey.objects.get(period__label="2026-04")
    assert (key.receivable_micros, key.billed_receivable_micros) == (1_245_000, 1_245_000)
    assert failing() == []


def test_less_usage_that_was_paid_ahead_becomes_paid_credit(indebted):
    build.credit(indebted, "4.98")

    stop(indebted, "may", at(9.5))
    build.metered(indebted)

    assert books(indebted) == {"bank": -4_980_000, "paid_lot": 1_245_000, "revenue": 3_735_000}
    assert BillingProgress.objects.get().unbilled_receipts_micros == 1_245_000
    assert failing() == []


def test_less_usage_that_was_partly_paid_ahead_reduces_the_debt_first(indebted):
    build.credit(indebted, "4")  # 1.51 of May's 2.49.

    stop(indebted, "may", at(9.5))
    build.metered(indebted)

    # 0.98 was owed; the other 0.265 were paid and come back.
    assert books(indebted) == {"bank": -4_000_000, "paid_lot": 265_000, "revenue": 3_735_000}
    assert BillingProgress.objects.get().unbilled_receipts_micros == 1_245_000
    assert failing() == []
