"""Where the money stands, in each state that an organization can be in, and what asking costs."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from apps.billing import selectors, usage
from apps.billing.models import Pot
from apps.billing.usage import UsageQuery
from apps.core.errors import InvalidRequest
from apps.metering.models import Resource
from apps.metering.services import meter_organization
from apps.pricing import services as pricing
from apps.pricing.models import Sku
from apps.pricing.rows import PriceRow
from tests import build
from tests.billing.runs import HOUR, at, run, stop
from tests.build import NOW


@pytest.fixture(autouse=True)
def prices(db):
    return build.price_book({"sku": "h100", "unit_price": "2.4"})


def balance(lab, now=NOW, **expected):
    """Assert the fields of the balance that are not zero or none."""
    found = selectors.balance(lab, now=now)
    fields = {
        name: getattr(found, name)
        for name in (
            "available_micros",
            "paid_micros",
            "promo_micros",
            "accrued_micros",
            "held_micros",
            "receivable_micros",
            "burn_rate_micros",
            "runway_ends_at",
        )
    }
    assert {name.removesuffix("_micros"): value for name, value in fields.items() if value} == expected
    return found


def test_nothing_yet(lab):
    found = balance(lab)

    assert (found.currency, found.billing_state) == ("USD", "healthy")


def test_credit_of_both_kinds(lab):
    build.credit(lab, "10")
    build.credit(lab, "5", pot=Pot.PROMO)

    balance(lab, available=15_000_000, paid=10_000_000, promo=5_000_000)


def test_only_credit_in_force_counts(lab):
    build.credit(lab, "5", pot=Pot.PROMO, now=at(9), expires_at=at(11))
    build.credit(lab, "7", now=at(12))

    balance(lab, at(10.5), available=5_000_000, promo=5_000_000)
    balance(lab, at(12), available=7_000_000, paid=7_000_000)


def test_the_open_hour_is_accrued_and_not_posted(lab):
    build.credit(lab, "10", now=at(9))
    run(lab, "a", at(11.5), at(12))
    build.metered(lab, at(11.75))

    balance(
        lab,
        at(11.75),
        available=9_400_000,
        paid=10_000_000,
        accrued=600_000,
        burn_rate=2_400_000,
        runway_ends_at=at(11.75) + timedelta(seconds=9_400_000 * 3600 // 2_400_000),
    )


def test_usage_beyond_the_credit_is_owed_and_nothing_is_available(lab):
    build.credit(lab, "1")
    build.usage(lab, at(9), at(10))
    build.metered(lab)

    balance(lab, available=-1_400_000, receivable=1_400_000)


def test_accrued_usage_is_netted_against_the_lots_that_may_pay_it(lab):
    build.credit(lab, "10", pot=Pot.PROMO, now=at(11))
    build.usage(lab, at(10), at(10.5), now=NOW)
    build.metered(lab, at(10.75), now=NOW)

    # The promotional lot took effect after the hour, so the 1.20 will be owed.
    balance(lab, available=8_800_000, promo=10_000_000, accrued=1_200_000)


def test_credit_that_has_run_out_ends_the_runway_now(lab):
    run(lab, "a", at(11), at(12))
    build.metered(lab, at(11.99))

    found = selectors.balance(lab, now=at(11.99))

    assert found.available_micros < 0
    assert found.runway_ends_at == at(11.99)


def test_a_pending_correction_counts_at_once(lab):
    build.credit(lab, "10")
    run(lab, "a", at(9), at(10))
    build.metered(lab)
    stop(lab, "a", at(9.5))
    meter_organization(organization_id=lab.id, until=NOW, now=NOW)

    balance(lab, available=8_800_000, paid=7_600_000, accrued=-1_200_000)


def test_usage_paid_ahead_of_its_invoice_is_not_owed_and_an_open_invoice_is(lab):
    build.usage(lab, at(9), at(10))
    build.metered(lab)
    build.credit(lab, "1")
    balance(lab, available=-1_400_000, receivable=1_400_000)

    build.closed(lab, "2026-05", now=NOW + timedelta(days=30))

    balance(lab, available=-1_400_000, receivable=1_400_000)


def test_unpriced_usage_costs_nothing_until_it_has_a_price(lab, prices):
    build.credit(lab, "10", now=at(9))
    build.usage(lab, at(9), at(10), sku="b200")
    run(lab, "b", at(11.5), at(12), sku="b200")
    build.metered(lab, at(11.75))
    balance(lab, at(11.75), available=10_000_000, paid=10_000_000)
    (row,) = usage.usage_with_amounts(lab, query(lab), now=at(11.75))
    assert (row["amount"], row["quantity"], row["unpriced_quantity"]) == ("0.000000", "1.250000", "1.250000")

    Sku.objects.create(code="b200")
    pricing.add_price_to_published(
        actor=build.actor(),
        version=prices,
        row=PriceRow(meter="gpu_hours", sku="b200", unit_price=Decimal(4)),
        now=NOW,
    )
    build.metered(lab, at(11.75))

    balance(
        lab,
        at(11.75),
        available=5_000_000,
        paid=6_000_000,
        accrued=1_000_000,
        burn_rate=4_000_000,
        runway_ends_at=at(11.75) + timedelta(hours=1.25),
    )
    (row,) = usage.usage_with_amounts(lab, query(lab), now=at(11.75))
    assert (row["amount"], row["quantity"], row["unpriced_quantity"]) == ("5.000000", "1.250000", "0.000000")


def query(lab, **parameters):
    return UsageQuery.parse(parameters, zone=lab.timezone, now=NOW)


def test_usage_is_split_by_project_and_resource_and_adds_up(lab):
    build.project(lab, "train")
    build.usage(lab, at(9), at(10), subject="a", project="train", gpus="2")
    build.usage(lab, at(9), at(10), subject="b", gpus="1")
    build.metered(lab)

    by_project = usage.usage_with_amounts(lab, query(lab, group_by="project"), now=NOW)
    by_resource = usage.usage_with_amounts(lab, query(lab, group_by="resource", interval="day"), now=NOW)

    assert [(row["project"], row["gpu_hours"], row["amount"]) for row in by_project] == [
        ("train", "2.000000", "4.800000"),
        (None, "1.000000", "2.400000"),
    ]
    assert [(row["start"], row["resource"], row["amount"]) for row in by_resource] == [
        (at(0), "a", "4.800000"),
        (at(0), "b", "2.400000"),
    ]


@pytest.mark.parametrize(
    ("asked", "days", "passes"),
    [
        ({"interval": "hour"}, 31, True),
        ({"interval": "hour"}, 32, False),
        ({"interval": "day"}, 366, True),
        ({"interval": "day"}, 401, False),
        ({"group_by": "resource"}, 401, False),
        ({"interval": "month", "group_by": "sku,project"}, 4_000, True),
        ({}, 4_000, True),
    ],
)
def test_a_range_of_many_rows_is_asked_for_in_parts(asked, days, passes):
    # The night that clocks are set back makes October an hour longer than its days.
    first, zone = date(2026, 10, 1), "Europe/Berlin"
    parameters = {"from": first.isoformat(), "to": (first + timedelta(days=days)).isoformat(), **asked}

    if passes:
        UsageQuery.parse(parameters, zone=zone, now=NOW)
    else:
        with pytest.raises(InvalidRequest, match="Ask for one range after the other"):
            UsageQuery.parse(parameters, zone=zone, now=NOW)


# --- what asking costs: however much there is


@pytest.fixture
def busy(lab):
    for number in range(12):
        build.credit(lab, "1", pot=Pot.PROMO, now=at(9) + number * timedelta(minutes=1))
        run(lab, f"r{number}", at(8), at(12))
    build.metered(lab, at(11.9))
    return lab


def test_a_balance_takes_the_same_queries_however_many_lots_and_resources(busy, django_assert_num_queries):
    # Running resources, their events; periods with how far they are charged; what is not posted; prices; charged
    # hours; the guard with the book; lots; holds.
    with django_assert_num_queries(9):
        selectors.balance(busy, now=at(11.9))


def test_usage_with_amounts_takes_the_same_queries_however_many_groups(busy, django_assert_num_queries):
    # Periods with how far they are charged; what is not posted; prices; charged hours; the sums.
    with django_assert_num_queries(5):
        usage.usage_with_amounts(busy, query(busy, group_by="resource"), now=at(11.9))


def test_resources_with_their_cost_take_the_same_queries_however_many(busy, django_assert_num_queries):
    resources = list(Resource.objects.filter(organization=busy))

    # Periods with how far they are charged; what is not posted; prices; charged hours; costs; events. No resource
    # has a project.
    with django_assert_num_queries(6):
        rows = usage.resource_rows(busy, resources, now=at(11.9))

    assert {row["cost"] for row in rows} == {"9.360000"}


def test_charging_takes_as_many_queries_for_two_hours_as_for_many(lab, django_assert_max_num_queries):
    build.credit(lab, "100")
    build.usage(lab, at(1), at(2))
    build.metered(lab)
    counts = []
    for number in (2, 8):
        # The first hour was charged before, the last are new.
        build.usage(lab, at(1), at(1) + number * HOUR, subject=f"s{number}")
        with django_assert_max_num_queries(100) as seen:
            build.metered(lab)
        counts.append(len(seen))

    assert counts[0] == counts[1]
