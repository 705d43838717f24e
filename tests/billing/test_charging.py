"""What usage costs: exact, whatever the split, the order, the price change or the calendar."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext

from apps.billing import selectors
from apps.billing.models import BillingProgress, Burn, ChargeHour, ChargeKey
from apps.billing.services import ChargeStep, charge_organization
from apps.core.ids import uuid7
from apps.ledger.models import Transfer
from apps.metering.selectors import UsageSlot
from apps.metering.services import meter_organization
from apps.pricing import services as pricing
from apps.pricing.models import PriceBook, Region, Sku
from apps.pricing.rating import Tier
from apps.pricing.rows import PriceRow
from tests import build
from tests.billing.runs import HOUR, at, charged, plain, run, stop
from tests.build import NOW
from tests.metering.events import heartbeat, started, stopped
from tests.money import books, failing, transfers

STEP = timedelta(seconds=5)
EXACT = 19_920_000


def one_event(lab):
    build.usage(lab, at(9), at(10), gpus="8", subject="a")


def steps(lab, **fields):
    starts = (at(9) + number * STEP for number in range(720))
    return [build.usage_event(lab, start, start + STEP, gpus="8", **fields) for start in starts]


def one_resource_in_720_events(lab):
    build.events(*steps(lab, subject="a"))


def shuffled_and_ticked_in_between(lab):
    sent = steps(lab, subject="a")
    random.Random(7).shuffle(sent)  # noqa: S311  To be repeated, not to be secret.
    for first in range(0, 720, 120):
        build.events(*sent[first : first + 120])
        build.metered(lab)


def resources_of_their_own(lab):
    build.events(*steps(lab))


def lifecycle_with_a_tick_every_five_minutes(lab):
    beats = [heartbeat("a", at(9) + number * STEP) for number in range(1, 720)]
    build.events(started("a", at(9)))
    for number in range(12):
        build.events(*beats[number * 60 : (number + 1) * 60], now=at(9) + (number + 1) * 60 * STEP)
        build.metered(lab, at(9) + (number + 1) * 60 * STEP)
    build.events(stopped("a", at(10)))


def lifecycle_backwards(lab):
    build.events(stopped("a", at(10)), *(heartbeat("a", at(10) - number * STEP) for number in range(1, 720)))
    build.metered(lab)
    build.events(started("a", at(9)))


@pytest.mark.parametrize(
    "send",
    [
        one_event,
        one_resource_in_720_events,
        shuffled_and_ticked_in_between,
        resources_of_their_own,
        lifecycle_with_a_tick_every_five_minutes,
        lifecycle_backwards,
    ],
)
def test_eight_gpus_for_720_times_five_seconds_cost_exactly_19_92(lab, send):
    build.price_book({"unit_price": "2.49"})

    send(lab)
    build.metered(lab)

    assert charged(lab) == {"15 09:00": ("28800", EXACT)}
    assert books(lab) == {"receivable": -EXACT, "revenue": EXACT}
    assert failing() == []


def test_amounts_are_rounded_cumulatively_so_that_the_sum_never_drifts(lab):
    build.price_book({"unit_price": "0.0000007"})

    build.usage(lab, at(6), at(10))
    build.metered(lab)

    # 0.7, 1.4, 2.1 and 2.8 micros up to each hour.
    assert [amount for _quantity, amount in charged(lab).values()] == [1, 0, 1, 1]


def test_a_late_hour_moves_those_after_it_by_their_rounding(lab):
    build.price_book({"unit_price": "0.0000007"})
    build.usage(lab, at(7), at(10))
    build.metered(lab)
    assert [amount for _quantity, amount in charged(lab).values()] == [1, 0, 1]

    build.usage(lab, at(6), at(7))
    build.metered(lab)

    assert [amount for _quantity, amount in charged(lab).values()] == [1, 0, 1, 1]
    assert books(lab) == {"receivable": -3, "revenue": 3}
    assert failing() == []


def test_how_far_usage_is_rated_is_looked_for_from_a_moment_on(lab):
    build.price_book({"unit_price": "2.4"})
    build.usage(lab, at(8), at(11))
    build.metered(lab)
    book = PriceBook.objects.get()

    for scope in ({"organization_id": lab.id}, {"book_id": book.id}):
        found = [selectors.rated_until(since=since, **scope) for since in (at(0), at(10), at(11))]
        assert found == [at(11), at(11), None]
    assert selectors.rated_until(since=at(0), book_id=uuid7()) is None


def test_a_price_change_inside_a_running_allocation_splits_exactly(lab):
    build.price_book({"unit_price": "2.49"}, name="Standard")
    build.price_book({"unit_price": "3"}, name="Standard", effective_from=at(10))

    run(lab, "a", at(9.5), at(10.5), gpus=8)
    build.metered(lab)

    keys = ChargeKey.objects.order_by("price__unit_price")
    assert [
        (
            plain(key.price.unit_price),
            [(plain(hour.quantity), hour.amount_micros) for hour in key.hours.all()],
        )
        for key in keys
    ] == [("2.49", [("14400", 9_960_000)]), ("3", [("14400", 12_000_000)])]
    assert failing() == []


def test_a_new_version_with_the_same_price_continues_the_key(lab):
    build.price_book({"unit_price": "2.49"}, {"sku": "a100", "unit_price": "1"}, name="Standard")
    build.price_book(
        {"unit_price": "2.49"}, {"sku": "a100", "unit_price": "2"}, name="Standard", effective_from=at(10)
    )

    run(lab, "a", at(9.5), at(10.5), gpus=8)
    build.metered(lab)

    (key,) = ChargeKey.objects.all()
    assert [hour.amount_micros for hour in key.hours.order_by("hour")] == [9_960_000, 9_960_000]


@pytest.mark.parametrize(
    ("zone", "start", "end", "expected"),
    [
        (
            "UTC",
            datetime(2026, 2, 27, tzinfo=UTC),
            datetime(2026, 4, 3, tzinfo=UTC),
            {"2026-02": "48", "2026-03": "744", "2026-04": "48"},
        ),
        # 31 March has 23 hours less one: clocks go forward.
        (
            "Europe/Oslo",
            datetime(2026, 2, 27, tzinfo=UTC),
            datetime(2026, 4, 3, tzinfo=UTC),
            {"2026-02": "47", "2026-03": "743", "2026-04": "50"},
        ),
        (
            "America/New_York",
            datetime(2026, 2, 27, tzinfo=UTC),
            datetime(2026, 4, 3, tzinfo=UTC),
            {"2026-02": "53", "2026-03": "743", "2026-04": "44"},
        ),
        # And back: October has an hour more.
        (
            "Europe/Oslo",
            datetime(2026, 9, 29, tzinfo=UTC),
            datetime(2026, 11, 3, tzinfo=UTC),
            {"2026-09": "46", "2026-10": "745", "2026-11": "49"},
        ),
        (
            "Asia/Kolkata",
            datetime(2026, 2, 27, tzinfo=UTC),
            datetime(2026, 4, 3, tzinfo=UTC),
            {"2026-02": "42.5", "2026-03": "744", "2026-04": "53.5"},
        ),
        (
            "Asia/Kathmandu",
            datetime(2026, 2, 27, tzinfo=UTC),
            datetime(2026, 4, 3, tzinfo=UTC),
            {"2026-02": "42.25", "2026-03": "744", "2026-04": "53.75"},
        ),
    ],
)
def test_months_end_in_the_organizations_zone(db, zone, start, end, expected):
    organization = build.organization(timezone=zone, now=start)
    build.price_book({"unit_price": "1"})

    build.usage(organization, start, end, now=end)
    build.metered(organization, end)

    keys = ChargeKey.objects.annotate(quantity=Sum("hours__quantity"), micros=Sum("hours__amount_micros"))
    assert {key.period.label: plain(key.quantity / 3600) for key in keys} == expected
    assert {key.period.label: Decimal(key.micros) / 1_000_000 for key in keys} == {
        label: Decimal(hours) for label, hours in expected.items()
    }
    assert failing() == []


def test_an_hour_that_a_period_splits_is_charged_in_two_pieces(db):
    start = datetime(2026, 3, 31, 18, tzinfo=UTC)
    organization = build.organization(timezone="Asia/Kolkata", now=start)
    build.price_book({"unit_price": "2.49"})

    build.usage(organization, start, start + HOUR, now=start + HOUR)
    build.metered(organization, start + HOUR)

    rows = ChargeHour.objects.order_by("hour").values_list("key__period__label", "hour", "amount_micros")
    assert list(rows) == [
        ("2026-03", start, 1_245_000),
        ("2026-04", start + HOUR / 2, 1_245_000),
    ]


def test_the_piece_before_a_period_that_ends_within_the_hour_is_charged_at_its_end(db):
    start = datetime(2026, 3, 31, 18, tzinfo=UTC)
    organization = build.organization(timezone="Asia/Kolkata", now=start)
    build.price_book({"unit_price": "2.49"})
    build.usage(organization, start, start + HOUR / 2, now=start + HOUR / 2)

    build.metered(organization, start + HOUR / 2)

    assert BillingProgress.objects.get().charged_until == start + HOUR / 2
    assert books(organization) == {"receivable": -1_245_000, "revenue": 1_245_000}


def test_the_open_hour_is_not_posted_until_it_has_ended(lab):
    build.price_book({"unit_price": "2.49"})
    run(lab, "a", at(9), at(10))

    assert build.metered(lab, at(9.99)) == ChargeStep(hours=0, micros=0, more=False)
    assert books(lab) == {}

    assert build.metered(lab, at(10)) == ChargeStep(hours=1, micros=2_490_000, more=False)
    assert books(lab) == {"receivable": -2_490_000, "revenue": 2_490_000}
    assert Transfer.objects.get().occurred_at == at(9)


def test_charging_again_changes_nothing(lab):
    build.price_book({"unit_price": "2.49"})
    build.usage(lab, at(6), at(10))
    build.metered(lab)
    before = set(Transfer.objects.values_list("id")), set(ChargeHour.objects.values_list("id", "revision"))

    assert build.metered(lab) == ChargeStep(hours=0, micros=0, more=False)
    assert charge_organization(organization_id=lab.id, now=NOW) == ChargeStep(hours=0, micros=0, more=False)

    assert before == (
        set(Transfer.objects.values_list("id")),
        set(ChargeHour.objects.values_list("id", "revision")),
    )


def test_charging_in_small_steps_gives_the_same_as_at_once(lab):
    build.price_book({"unit_price": "0.0000007"}, {"sku": "b200", "unit_price": "3.33"})
    for sku in ("h100", "b200"):
        build.usage(lab, at(2), at(10), sku=sku)
    build.credit(lab, "10")
    meter_organization(organization_id=lab.id, until=NOW, now=NOW)

    steps = [charge_organization(organization_id=lab.id, now=NOW, limit=3) for _number in range(7)]

    assert [step.hours for step in steps] == [3, 3, 3, 3, 3, 1, 0]
    assert [step.more for step in steps] == [True, True, True, True, True, False, False]
    # 8 hours of 3.33 and six micros in all, ten of it from credit.
    assert books(lab) == {"bank": -10_000_000, "receivable": -16_640_006, "revenue": 26_640_006}
    assert failing() == []


def test_a_step_takes_no_more_than_its_limit_whatever_plan_the_database_picks(lab):
    build.price_book({"unit_price": "2.49"})
    build.usage(lab, at(2), at(10))
    meter_organization(organization_id=lab.id, until=NOW, now=NOW)

    with connection.cursor() as cursor:
        # Without these the claim's plan is a nested loop, in which PostgreSQL may run a subquery once per row.
        cursor.execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
        cursor.execute("SET LOCAL enable_sort = off; SET LOCAL enable_hashagg = off")
        cursor.execute("SET LOCAL enable_material = off; SET LOCAL enable_memoize = off")

    assert charge_organization(organization_id=lab.id, now=NOW, limit=3).hours == 3


def test_unpriced_usage_is_kept_and_billed_once_a_price_is_added(lab):
    version = build.price_book({"sku": "h100", "unit_price": "2.49"})
    build.usage(lab, at(8), at(10), sku="b200")
    build.metered(lab)

    (key,) = ChargeKey.objects.unpriced()
    assert [(plain(hour.quantity), hour.amount_micros) for hour in key.hours.all()] == [("3600", 0)] * 2
    assert books(lab) == {}
    assert failing() == []

    Sku.objects.create(code="b200")
    pricing.add_price_to_published(
        actor=build.actor(),
        version=version,
        row=PriceRow(meter="gpu_hours", sku="b200", unit_price=Decimal("5.5")),
        now=NOW,
    )
    assert build.metered(lab).micros == 11_000_000
    assert build.metered(lab).micros == 0

    assert books(lab) == {"receivable": -11_000_000, "revenue": 11_000_000}
    assert charged(lab) == {"15 08:00": ("3600", 5_500_000), "15 09:00": ("3600", 5_500_000)}
    assert not ChargeHour.objects.filter(key__price=None, quantity__gt=0).exists()
    assert failing() == []


def test_usage_that_no_price_names_is_not_read_at_every_step(lab):
    version = build.price_book({"sku": "h100", "unit_price": "2.49"})
    build.usage(lab, at(8), at(10), sku="b200")
    build.metered(lab)

    with CaptureQueriesContext(connection) as queries:
        assert selectors.slots_newly_priced(lab) == set()

    assert [query["sql"] for query in queries if "billing_chargehour" in query["sql"]] == []
    add_price(version, sku="b200", region="eu", unit_price=Decimal(3))
    assert selectors.slots_newly_priced(lab) == {
        UsageSlot("gpu_hours", "b200", "eu", at(hour)) for hour in (8, 9)
    }


def add_price(version, **fields):
    for code in {fields["sku"]} - set(Sku.objects.values_list("code", flat=True)):
        Sku.objects.create(code=code)
    for code in {fields.get("region", "*")} - {"*", *Region.objects.values_list("code", flat=True)}:
        Region.objects.create(code=code)
    return pricing.add_price_to_published(
        actor=build.actor(), version=version, row=PriceRow(meter="gpu_hours", **fields), now=NOW
    )


TIERED = {
    "model": "graduated",
    "tiers": [
        {"up_to": "2", "unit_price": "10", "flat_fee": "0"},
        {"up_to": None, "unit_price": "1", "flat_fee": "0"},
    ],
}
SAME = {
    "model": "graduated",
    "tiers": (
        Tier(up_to=Decimal(2), unit_price=Decimal(10), flat_fee=Decimal(0)),
        Tier(up_to=None, unit_price=Decimal(1), flat_fee=Decimal(0)),
    ),
}


def test_a_price_added_late_leaves_the_month_that_another_rated(lab):
    first = build.price_book({"sku": "h100", "unit_price": "2.49"}, name="Standard")
    build.price_book({"sku": "b200", **TIERED}, name="Standard", effective_from=at(6))
    build.usage(lab, at(4), at(5), sku="b200")
    build.usage(lab, at(8), at(10), sku="b200")
    build.metered(lab)
    assert charged(lab) == {
        "15 04:00": ("3600", 0),
        "15 08:00": ("3600", 10_000_000),
        "15 09:00": ("3600", 10_000_000),
    }

    # Tiers hold to the month's end, so either would price the rest of May.
    for terms in ({"unit_price": Decimal(3)}, SAME | {"tiers": SAME["tiers"][1:]}):
        with pytest.raises(pricing.PriceExists):
            add_price(first, sku="b200", **terms)
    assert build.metered(lab).micros == 0

    # The same terms are the same price, which begins earlier now: its tiers are counted once.
    add_price(first, sku="b200", **SAME)
    build.metered(lab)
    assert charged(lab) == {
        "15 04:00": ("3600", 10_000_000),
        "15 08:00": ("3600", 10_000_000),
        "15 09:00": ("3600", 1_000_000),
    }
    assert failing() == []


def test_a_price_added_late_leaves_a_price_of_the_organizations_own(lab):
    version = build.price_book({"sku": "h100", "unit_price": "2.49"}, name="Standard")
    Sku.objects.create(code="b200")
    pricing.override_price(
        actor=build.actor(),
        organization=lab,
        row=PriceRow(meter="gpu_hours", sku="b200", unit_price=Decimal(4)),
        effective_from=at(6),
        now=NOW,
    )
    build.usage(lab, at(4), at(5), sku="b200")
    build.usage(lab, at(8), at(9), sku="b200")
    build.metered(lab)

    with pytest.raises(pricing.PriceExists):
        add_price(version, sku="b200", **SAME)
    add_price(version, sku="b200", unit_price=Decimal(5))
    build.metered(lab)

    assert charged(lab) == {"15 04:00": ("3600", 5_000_000), "15 08:00": ("3600", 4_000_000)}
    assert failing() == []


def test_a_volume_price_that_falls_within_one_step_is_posted_as_rise_and_return(lab):
    build.price_book(
        {
            "model": "volume",
            "tiers": [
                {"up_to": "3", "unit_price": "10", "flat_fee": "0"},
                {"up_to": None, "unit_price": "5", "flat_fee": "0"},
            ],
        }
    )
    build.credit(lab, "25")

    build.usage(lab, at(5), at(10))
    build.metered(lab)

    assert charged(lab) == {
        "15 05:00": ("3600", 10_000_000),
        "15 06:00": ("3600", 10_000_000),
        "15 07:00": ("3600", 10_000_000),
        "15 08:00": ("3600", -10_000_000),
        "15 09:00": ("3600", 5_000_000),
    }
    assert books(lab) == {"bank": -25_000_000, "revenue": 25_000_000}
    assert failing() == []


def test_a_volume_price_that_falls_in_a_later_step_returns_credit(lab):
    build.price_book(
        {
            "model": "volume",
            "tiers": [
                {"up_to": "3", "unit_price": "10", "flat_fee": "0"},
                {"up_to": None, "unit_price": "5", "flat_fee": "0"},
            ],
        }
    )
    build.credit(lab, "25")
    build.usage(lab, at(5), at(8))
    build.metered(lab)
    assert books(lab) == {"bank": -25_000_000, "receivable": -5_000_000, "revenue": 30_000_000}

    build.usage(lab, at(8), at(9))
    build.metered(lab)

    assert books(lab) == {"bank": -25_000_000, "paid_lot": 5_000_000, "revenue": 20_000_000}
    assert failing() == []


def test_an_hour_whose_usage_was_withdrawn_takes_the_price_of_its_time(lab):
    build.price_book({"unit_price": "2.49"}, name="Standard")
    run(lab, "a", at(9), at(11))
    build.metered(lab)
    stop(lab, "a", at(10))
    build.metered(lab)
    assert charged(lab) == {"15 09:00": ("3600", 2_490_000)}

    # Nothing is rated from 10 o'clock on, so a price may change there.
    build.price_book({"unit_price": "3"}, name="Standard", effective_from=at(10))
    build.usage(lab, at(10), at(11))
    build.metered(lab)

    assert charged(lab) == {"15 09:00": ("3600", 2_490_000), "15 10:00": ("3600", 3_000_000)}
    assert failing() == []


def test_a_meter_that_adds_up_is_charged_by_its_own_unit(lab):
    build.price_book({"meter": "egress_gb", "unit_price": "0.08"})
    for number in range(3):
        build.events(
            {
                "specversion": "1.0",
                "id": f"egress-{number}",
                "source": "tests",
                "type": "usage.recorded",
                "time": at(9 + number / 2).isoformat(),
                "data": {"organization": "lab", "meter": "egress_gb", "quantity": "1.5"},
            }
        )

    build.metered(lab)

    assert charged(lab) == {"15 09:00": ("3", 240_000), "15 10:00": ("1.5", 120_000)}


def test_free_usage_is_charged_nothing_and_posts_nothing(lab):
    build.price_book({"unit_price": "0"})
    build.usage(lab, at(9), at(10))

    build.metered(lab)

    assert charged(lab) == {"15 09:00": ("3600", 0)}
    assert transfers(lab) == []
    assert not Burn.objects.exists()
    assert failing() == []
