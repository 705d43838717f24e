"""A closed period recomputed from its events: identical wherever charging priced and placed an hour unusually."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from apps.invoices import services as invoices
from apps.invoices.replay import replay
from apps.organizations import services as organizations
from apps.organizations.models import BillingPeriod
from tests import build
from tests.billing.runs import HOUR, run, stop
from tests.invoices.conftest import APRIL

MARCH = datetime(2026, 3, 20, tzinfo=UTC)
MAY = datetime(2026, 5, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 3, tzinfo=UTC)
TIERS = [
    {"up_to": "2", "unit_price": "4", "flat_fee": "1"},
    {"up_to": None, "unit_price": "2.5", "flat_fee": "0"},
]


def replayed(lab, label="2026-04"):
    """Return the differences of a replay as text, and the total it comes to."""
    lab.refresh_from_db()
    found = replay(lab, BillingPeriod.objects.get(organization=lab, label=label))
    return [difference.describe(lab.currency) for difference in found.differences], found.total_minor


def reading(lab, quantity, time, meter="requests"):
    return {
        "specversion": "1.0", "id": f"{meter}-{time}-{quantity}", "source": "tests", "type": "usage.recorded",
        "time": time.isoformat(),
        "data": {
            "organization": lab.slug, "sku": "api", "region": "eu", "meter": meter, "quantity": quantity,
        },
    }  # fmt: skip


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_usage_older_than_the_first_period_is_in_it_at_the_prices_of_its_time(db, zone):
    lab = build.organization("lab", timezone=zone, now=APRIL)
    build.price_book(
        {"unit_price": "2"}, {"sku": "tiered", "model": "graduated", "tiers": TIERS}, name="Book"
    )
    build.price_book(
        {"unit_price": "3"},
        {"sku": "tiered", "unit_price": "9"},
        name="Book",
        effective_from=MARCH + 4 * HOUR,
    )
    build.usage(lab, APRIL, APRIL + HOUR)
    build.closed(lab, "2026-04")

    for sku in ("h100", "tiered"):
        build.usage(lab, MARCH, MARCH + 6 * HOUR, sku=sku)
    # Across the very start of the first period, where an hour may be cut.
    build.usage(lab, datetime(2026, 3, 31, 16, 10, tzinfo=UTC), datetime(2026, 4, 1, 2, tzinfo=UTC))
    build.closed(lab, "2026-05", now=JULY)

    differences, total = replayed(lab)
    assert differences == []
    # 3.00 of April; of March 4 × 2 and 2 × 3, tiers 1 + 2 × 4 + 2 × 2.5 and 2 × 9; the night at 9:50 × 3.
    assert total == 300 + 1400 + 3200 + 2950
    assert replayed(lab, "2026-05") == ([], 0)


def test_an_hour_of_an_absurd_amount_has_no_price_here_either(lab):
    build.price_book({"unit_price": "2"}, {"meter": "requests", "unit_price": "1000000"})
    build.usage(lab, APRIL, APRIL + HOUR)
    build.events(reading(lab, "1000000000000", APRIL), reading(lab, "1", APRIL + 2 * HOUR))
    build.closed(lab, "2026-04")

    assert replayed(lab) == ([], 200 + 100_000_000)


def test_moved_months_corrected_runs_and_a_cancelled_invoice_replay_identically(db):
    """A currency without minor units, a zone that moves, stops that come late, an invoice that was cancelled."""
    lab = build.organization("lab", currency="JPY", now=APRIL)
    project = build.project(lab, "vision")
    build.price_book({"unit_price": "333.3333"}, currency="JPY")
    run(lab, "long", APRIL, APRIL + 30 * HOUR, project=project.slug)
    run(lab, "over", MAY - 5 * HOUR, MAY + 5 * HOUR)
    build.metered(lab, MAY - HOUR)
    organizations.change_timezone(
        actor=build.actor(), organization=lab, timezone="Asia/Kolkata", now=MAY - HOUR
    )
    april = build.closed(lab, "2026-04").invoice
    invoices.cancel_invoice(actor=build.actor(), invoice=april, reason="tests", now=build.NOW)
    stop(lab, "long", APRIL + 1.2345 * HOUR)
    stop(lab, "over", MAY - 3 * HOUR)
    build.usage(lab, MAY + HOUR, MAY + 40 * HOUR, gpus="0.125", project=project.slug)
    build.closed(lab, "2026-05", now=JULY)

    assert [len(replayed(lab, label)[0]) for label in ("2026-04", "2026-05")] == [0, 0]
    # 1.2345 and 2 hours in April, in May 39 hours of an eighth.
    assert [replayed(lab, label)[1] for label in ("2026-04", "2026-05")] == [1078, 1625]


def test_what_waits_for_the_next_invoice_is_told_from_what_is_wrong(lab):
    build.price_book({"unit_price": "2"})
    build.usage(lab, APRIL, APRIL + HOUR)
    build.closed(lab, "2026-04")
    build.usage(lab, APRIL + 2 * HOUR, APRIL + 5 * HOUR)

    wrong = "gpu_hours h100 eu: computed 8.00 for 14400, invoiced 2.00 for 3600"
    assert replayed(lab) == ([wrong], 800)
    build.metered(lab)
    assert replayed(lab) == ([f"{wrong}; charged since, the next invoice corrects it"], 800)
    build.closed(lab, "2026-05", now=JULY)
    assert replayed(lab) == ([], 800)
