"""The tick, on the database: hours, revisions, queues, and that nothing is counted twice or missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from apps.metering import facts, selectors, services
from apps.metering.models import DirtyBatch, MeteringState, Resource, UsageChange, UsageHour
from apps.metering.services import counting
from apps.organizations.models import BillingPeriod
from tests import build
from tests.metering.events import (
    EARLIER,
    NOW,
    heartbeat,
    minutes,
    reading,
    recorded,
    resized,
    send,
    started,
    stopped,
    tick,
    usage,
)


def test_counts_a_finished_run_by_the_hour(lab):
    send(started("a", EARLIER + minutes(30)), stopped("a", EARLIER + minutes(90)))

    tick(lab.pk)

    assert usage(lab.pk) == {
        ("gpu_hours", "h100", "a", "05-15 09:00"): "14400",
        ("gpu_hours", "h100", "a", "05-15 10:00"): "14400",
    }
    assert not DirtyBatch.objects.exists()
    assert MeteringState.objects.get().metered_until == NOW


def test_a_tick_without_news_moves_the_cutoff_and_writes_nothing_else(lab):
    send(recorded("a", EARLIER, EARLIER + minutes(10)))
    tick(lab.pk)
    changes = UsageChange.objects.count()

    tick(lab.pk, NOW + minutes(1))

    assert MeteringState.objects.get().metered_until == NOW + minutes(1)
    assert UsageChange.objects.count() == changes == 1
    assert UsageHour.objects.get().revision == 1


def test_a_running_resource_is_counted_up_to_each_cutoff(lab):
    send(started("a", NOW - minutes(2), gpus=1), heartbeat("a", NOW - minutes(1)))

    tick(lab.pk, NOW - minutes(1.5))
    assert usage(lab.pk) == {("gpu_hours", "h100", "a", "05-15 11:00"): "30"}
    tick(lab.pk, NOW - minutes(0.5))
    assert usage(lab.pk) == {("gpu_hours", "h100", "a", "05-15 11:00"): "90"}
    tick(lab.pk, NOW + minutes(30))
    assert usage(lab.pk) == {("gpu_hours", "h100", "a", "05-15 11:00"): "120"}
    assert UsageHour.objects.get().revision == 3


def test_silence_ends_a_run_and_a_late_event_proves_that_it_went_on(lab):
    send(started("a", EARLIER, gpus=1))
    tick(lab.pk)
    assert usage(lab.pk) == {("gpu_hours", "h100", "a", "05-15 09:00"): "60"}

    send(heartbeat("a", EARLIER + minutes(90)))
    tick(lab.pk)

    assert usage(lab.pk) == {
        ("gpu_hours", "h100", "a", "05-15 09:00"): "3600",
        ("gpu_hours", "h100", "a", "05-15 10:00"): "1860",
    }


def test_usage_that_vanishes_stays_as_a_row_of_zero(lab):
    send(started("a", EARLIER), heartbeat("a", EARLIER + minutes(90)))
    tick(lab.pk)
    UsageChange.objects.all().delete()

    send(stopped("a", EARLIER + minutes(30)))
    tick(lab.pk)

    assert usage(lab.pk) == {("gpu_hours", "h100", "a", "05-15 09:00"): "14400"}
    gone = UsageHour.objects.get(hour=EARLIER + minutes(60))
    assert (gone.quantity, gone.revision) == (Decimal(0), 2)
    assert set(UsageChange.objects.values_list("sku", "hour")) == {
        ("h100", EARLIER),
        ("h100", EARLIER + minutes(60)),
    }


def test_a_resize_splits_the_run_exactly(lab):
    send(
        started("a", EARLIER), resized("a", EARLIER + minutes(15), "0.5"), stopped("a", EARLIER + minutes(30))
    )

    tick(lab.pk)

    assert usage(lab.pk) == {("gpu_hours", "h100", "a", "05-15 09:00"): "7650"}


def test_no_gpus_are_instance_seconds(lab):
    send(recorded("a", EARLIER, EARLIER + timedelta(milliseconds=1500), gpus=0))

    tick(lab.pk)

    assert usage(lab.pk) == {("instance_hours", "h100", "a", "05-15 09:00"): "1.5"}


def test_readings_add_up_at_their_time(lab):
    send(
        reading(EARLIER, "egress_gb", "1.5", subject="bucket"),
        reading(EARLIER + minutes(59), "egress_gb", "0.000001", subject="bucket"),
        reading(NOW, "egress_gb", 3, subject="bucket"),
        reading(NOW + minutes(1), "egress_gb", 7, subject="bucket"),
    )

    tick(lab.pk)
    assert usage(lab.pk) == {
        ("egress_gb", "", "bucket", "05-15 09:00"): "1.500001",
        ("egress_gb", "", "bucket", "05-15 12:00"): "3",
    }
    tick(lab.pk, NOW + minutes(1))
    assert usage(lab.pk)["egress_gb", "", "bucket", "05-15 12:00"] == "10"


def test_an_earlier_cutoff_takes_nothing_back(lab):
    send(started("a", NOW - minutes(1), gpus=1))
    tick(lab.pk)

    tick(lab.pk, NOW - minutes(30))

    assert usage(lab.pk) == {("gpu_hours", "h100", "a", "05-15 11:00"): "60"}
    assert MeteringState.objects.get().metered_until == NOW


def test_hours_split_where_a_month_ends_in_the_organizations_zone(db):
    # Kathmandu is 5:45 ahead: its May began at 18:15 UTC.
    kathmandu = build.organization("lab", now=datetime(2026, 5, 2, tzinfo=UTC), timezone="Asia/Kathmandu")
    evening = datetime(2026, 4, 30, 18, tzinfo=UTC)
    send(recorded("a", evening, evening + minutes(60), gpus=1))

    tick(kathmandu.pk)

    assert usage(kathmandu.pk) == {
        ("gpu_hours", "h100", "a", "04-30 18:00"): "900",
        ("gpu_hours", "h100", "a", "04-30 18:15"): "2700",
    }
    assert list(BillingPeriod.objects.of(kathmandu.pk).values_list("label", flat=True)) == [
        "2026-04",
        "2026-05",
    ]


def test_only_sums_that_change_are_queued_for_charging(lab):
    build.project(lab, "one")
    send(recorded("a", EARLIER, EARLIER + minutes(10)))
    tick(lab.pk)
    UsageChange.objects.all().delete()

    # The same time under another project wins by its id: the sum of the hour stays.
    send(recorded("a", EARLIER, EARLIER + minutes(10), id="z", project="one"))
    tick(lab.pk)

    assert UsageHour.objects.counted().get().project.slug == "one"
    assert not UsageChange.objects.exists()


def test_steps_are_limited_and_add_up(lab):
    send(*(recorded(f"r{number}", EARLIER, EARLIER + minutes(1), gpus=1) for number in range(7)))
    send(*(started(f"s{number}", NOW, gpus=1) for number in range(5)))

    assert tick(lab.pk, NOW, limit=3) == 5
    assert len(usage(lab.pk)) == 7
    assert tick(lab.pk, NOW + minutes(1), limit=3) == 2
    assert len(usage(lab.pk)) == 12


def test_a_resource_with_a_backlog_of_news_is_counted_in_one_step(lab):
    send(started("a", EARLIER))
    for minute in range(1, 60):
        send(heartbeat("a", EARLIER + minutes(minute)))
    assert (DirtyBatch.objects.count(), selectors.backlog()) == (60, 60)

    step = services.meter_organization(organization_id=lab.pk, until=NOW, now=NOW, limit=2)

    assert (step.resources, step.more, selectors.backlog()) == (1, False, 0)
    assert usage(lab.pk) == {("gpu_hours", "h100", "a", "05-15 09:00"): "28800"}


def test_a_backlog_of_many_resources_takes_the_steps_that_its_resources_take(lab):
    send(*(started(f"r{number}", EARLIER, gpus=1) for number in range(10)))
    for minute in range(1, 60):
        send(*(heartbeat(f"r{number}", EARLIER + minutes(minute)) for number in range(10)))
    assert (DirtyBatch.objects.count(), selectors.backlog()) == (60, 600)

    # Two steps of five, and one to see that nothing is left.
    assert tick(lab.pk, limit=5) == 3
    assert selectors.backlog() == 0
    assert usage(lab.pk) == {
        ("gpu_hours", "h100", f"r{number}", "05-15 09:00"): "3600" for number in range(10)
    }


def test_news_that_come_while_a_backlog_drains_are_counted(lab):
    send(*(started(f"r{number}", EARLIER, gpus=1) for number in range(6)))
    for minute in range(1, 20):
        send(*(heartbeat(f"r{number}", EARLIER + minutes(minute)) for number in range(6)))
    assert services.meter_organization(organization_id=lab.pk, until=NOW, now=NOW, limit=2).more

    for minute in range(20, 60):
        send(*(heartbeat(f"r{number}", EARLIER + minutes(minute)) for number in range(6)))
    send(stopped("r0", EARLIER + minutes(30)))

    assert tick(lab.pk, limit=2) <= 8
    assert usage(lab.pk) == {
        ("gpu_hours", "h100", f"r{number}", "05-15 09:00"): "3600" if number else "1800"
        for number in range(6)
    }


def test_what_a_step_claims_beyond_its_limit_goes_back(lab):
    send(*(recorded(f"r{number:03d}", EARLIER, EARLIER + minutes(1)) for number in range(600)))
    assert [len(batch.resource_ids) for batch in DirtyBatch.objects.order_by("pk")] == [250, 250, 100]

    step = services.meter_organization(organization_id=lab.pk, until=NOW, now=NOW, limit=300)

    assert (step.resources, step.more, selectors.backlog()) == (300, True, 300)
    assert set(DirtyBatch.objects.values_list("organization", flat=True)) == {lab.pk}
    assert all(
        since == [EARLIER] * len(since) for since in DirtyBatch.objects.values_list("since", flat=True)
    )
    tick(lab.pk)
    assert len(usage(lab.pk)) == 600


def test_a_step_reads_the_same_number_of_queries_however_many_resources(lab, django_assert_num_queries):
    send(*(recorded(f"r{number}", EARLIER, EARLIER + minutes(1)) for number in range(50)))
    tick(lab.pk, NOW - minutes(1))
    send(*(recorded(f"r{number}", EARLIER + minutes(1), EARLIER + minutes(2)) for number in range(50)))

    # Savepoints 4; state: set wait, lock, reset wait 3; news: fold, claim 2;
    # resources: with news, unfinished 2; events 1; periods: earliest, latest, starts 3; hours: read, write 2;
    # changes 1; resources 1; state 1.
    with django_assert_num_queries(20):
        services.meter_organization(organization_id=lab.pk, until=NOW, now=NOW)


def test_organizations_with_work_are_those_behind_or_with_news(lab):
    other = build.organization("other", now=EARLIER)
    tick(lab.pk)
    tick(other.pk)
    assert selectors.organizations_with_work(NOW) == []

    send(recorded("a", EARLIER, EARLIER + minutes(1)))

    assert selectors.organizations_with_work(NOW) == [lab.pk]
    assert set(selectors.organizations_with_work(NOW + minutes(1))) == {lab.pk, other.pk}


def test_the_same_subject_in_two_organizations_is_two_resources(lab):
    other = build.organization("other", now=EARLIER)
    send(
        recorded("a", EARLIER, EARLIER + minutes(1), gpus=1),
        recorded("a", EARLIER, EARLIER + minutes(2), gpus=1, organization="other"),
    )

    tick(lab.pk)
    tick(other.pk)

    assert Resource.objects.count() == 2
    assert usage(lab.pk) == {("gpu_hours", "h100", "a", "05-15 09:00"): "60"}
    assert usage(other.pk) == {("gpu_hours", "h100", "a", "05-15 09:00"): "120"}


def test_usage_of_years_is_written_in_slices_and_is_the_same(lab, monkeypatch):
    other = build.organization("other", now=EARLIER)
    for organization in (lab, other):
        begin = EARLIER - timedelta(days=3)
        events = [
            started("long", begin, organization=organization.slug, id=f"{organization.slug}-1"),
            stopped(
                "long", EARLIER + minutes(10), organization=organization.slug, id=f"{organization.slug}-2"
            ),
            recorded(
                "short",
                begin,
                begin + minutes(100),
                organization=organization.slug,
                id=f"{organization.slug}-3",
            ),
            reading(
                begin + minutes(90),
                "egress_gb",
                5,
                organization=organization.slug,
                id=f"{organization.slug}-4",
            ),
        ]
        assert send(*events).accepted == 4
        monkeypatch.setattr(counting, "SLICE_HOURS", 5 if organization == lab else 20_000)
        tick(organization.pk)
    whole = usage(other.pk)

    assert len(whole) == 73 + 2 + 1
    assert {key[:2] + key[3:] + (value,) for key, value in usage(lab.pk).items()} == {
        key[:2] + key[3:] + (value,) for key, value in whole.items()
    }
    # A stop that arrives late takes back what lies in other slices.
    monkeypatch.setattr(counting, "SLICE_HOURS", 5)
    send(stopped("long", EARLIER - timedelta(days=2), id="late"))
    tick(lab.pk)
    assert sum(1 for key in usage(lab.pk) if key[2] == "long") == 24
    assert UsageHour.objects.filter(organization=lab, resource__subject="long").count() == 73


@pytest.mark.parametrize("minute", [0, 30])
def test_what_precedes_an_hour_that_is_counted_in_parts_is_counted_too(lab, monkeypatch, minute):
    """Usage that an earlier start or reading proves for the hours before the first crowded one."""
    monkeypatch.setattr(facts, "FACTS_MAX", 1)
    begin = EARLIER - minutes(120)
    crowded = EARLIER + minutes(60 + minute)
    send(
        reading(begin, "egress_gb", 7, subject="a"),
        started("a", begin + minutes(30), gpus=1),
        heartbeat("a", begin + minutes(100)),
    )
    tick(lab.pk, begin + minutes(100))

    send(*(resized("a", crowded + minutes(after), after + 1) for after in (1, 2, 3)))
    send(reading(begin + minutes(110), "egress_gb", 5, subject="a"))
    tick(lab.pk, crowded + minutes(4))

    hours = usage(lab.pk)
    assert {key[3]: quantity for key, quantity in hours.items() if key[0] == "egress_gb"} == {
        "05-15 07:00": "7",
        "05-15 08:00": "5",
    }
    gpu_seconds = sum(Decimal(quantity) for key, quantity in hours.items() if key[0] == "gpu_hours")
    alone = (crowded + minutes(1) - begin - minutes(30)) // timedelta(seconds=1)
    # One GPU until the first resize, then 2, 3 and 4 for a minute each.
    assert gpu_seconds == alone + 60 * (2 + 3 + 4)
