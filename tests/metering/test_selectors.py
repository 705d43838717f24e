"""What pages and explanations read."""

from __future__ import annotations

from decimal import Decimal

from apps.core.periods import floor_hour
from apps.metering import selectors
from apps.metering.facts import latest_facts
from apps.metering.intervals import from_ms, to_ms
from apps.metering.models import Resource
from apps.metering.selectors import evidence
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
)


def test_running_resources_say_what_runs_since_when(lab):
    project = build.project(lab, "ml")
    send(
        started("gone", EARLIER),
        stopped("gone", EARLIER + minutes(5)),
        started("silent", EARLIER),
        started("new", NOW - minutes(1), gpus="0.5"),
        started("old", NOW - minutes(90), project="ml"),
        resized("old", NOW - minutes(60), 4),
        heartbeat("old", NOW - minutes(0.5)),
    )
    tick(lab.pk, NOW - minutes(0.25))

    running = selectors.running_resources(lab.pk, NOW - minutes(0.25))

    assert [(item.resource.subject, item.gpus, item.since, item.project_id) for item in running] == [
        ("old", Decimal(4), NOW - minutes(90), project.pk),
        ("new", Decimal("0.5"), NOW - minutes(1), None),
    ]
    described = selectors.describe_resources(Resource.objects.order_by("subject"), NOW)
    assert [(item.resource.subject, item.is_running, item.until) for item in described] == [
        ("gone", False, EARLIER + minutes(5)),
        ("new", False, NOW),
        ("old", True, None),
        ("silent", False, EARLIER + minutes(1)),
    ]


def test_only_the_last_hours_events_say_what_runs_since_when(lab):
    send(
        started("busy", EARLIER - minutes(60)),
        *(stopped("busy", EARLIER - minutes(50 - number), id=f"stop-{number}") for number in range(0, 40, 2)),
        *(
            started("busy", EARLIER - minutes(49 - number), id=f"start-{number}")
            for number in range(0, 40, 2)
        ),
        *(
            resized("busy", EARLIER + minutes(number / 2), 2 + number, id=f"size-{number}")
            for number in range(40)
        ),
        started("busy", EARLIER + minutes(30), gpus=3, sku="a100", id="again"),
        heartbeat("busy", NOW - minutes(0.5)),
        started("over", EARLIER - minutes(60)),
        *(resized("over", EARLIER - minutes(50 - number), 2, id=f"over-{number}") for number in range(40)),
        stopped("over", EARLIER + minutes(120)),
    )
    tick(lab.pk)

    busy, over = selectors.describe_resources(Resource.objects.order_by("subject"), NOW)

    assert (busy.is_running, busy.sku, busy.gpus) == (True, "a100", 3)
    assert busy.since == EARLIER - minutes(11)  # What started again without a stop goes on.
    assert (over.since, over.until) == (EARLIER - minutes(60), EARLIER + minutes(120))
    hours = {row.resource.pk: to_ms(floor_hour(NOW - minutes(1))) for row in (busy, over)}
    assert sum(map(len, latest_facts(hours, to_ms(NOW)).values())) <= 8


def test_usage_adds_up_by_what_is_asked(lab):
    send(
        recorded("a", EARLIER, EARLIER + minutes(120), gpus=1),
        recorded("b", EARLIER, EARLIER + minutes(30), gpus=2, sku="a100"),
        reading(EARLIER, "egress_gb", "1.5", subject="bucket"),
    )
    tick(lab.pk)

    total = selectors.usage_rows(lab.pk, EARLIER, NOW)
    assert [(row.meter, row.quantity) for row in total] == [
        ("egress_gb", Decimal("1.5")),
        ("gpu_hours", Decimal(10800)),
    ]
    by_sku = selectors.usage_rows(lab.pk, EARLIER, NOW, ["sku"], "hour")
    assert [(row.start, row.sku, row.quantity) for row in by_sku] == [
        (EARLIER, "", Decimal("1.5")),
        (EARLIER, "a100", Decimal(3600)),
        (EARLIER, "h100", Decimal(3600)),
        (EARLIER + minutes(60), "h100", Decimal(3600)),
    ]
    assert selectors.usage_rows(lab.pk, NOW, NOW + minutes(60)) == []


def behind(lab, meter, sku, region):
    return selectors.events_behind(
        list(selectors.hours_in_slot(lab.pk, meter, sku, region, EARLIER).order_by("pk"))
    )


def test_an_explanation_reads_the_events_of_its_hour_only_and_says_when_it_is_cut(
    lab, monkeypatch, django_assert_num_queries
):
    days = [minutes(60 * number) for number in range(24)]
    for name in ("a", "b", "c"):
        send(
            started(name, EARLIER - minutes(90)),
            *(heartbeat(name, EARLIER - minutes(80) + day) for day in days[:2]),
            *(heartbeat(name, EARLIER + minutes(number)) for number in range(3)),
            stopped(name, EARLIER + minutes(130)),
        )
    tick(lab.pk)
    rows = list(selectors.hours_in_slot(lab.pk, "gpu_hours", "h100", "eu", EARLIER).order_by("pk"))

    for page in (rows[:1], rows):
        with django_assert_num_queries(7):  # Period, facts, turns, beats, causes, next of each, those events.
            found = selectors.events_behind(page)
    assert [[event.type.removeprefix("allocation.") for event in item.events] for item in found] == [
        ["started", "heartbeat", "heartbeat", "heartbeat", "stopped"]
    ] * 3
    assert not any(item.is_cut for item in found)

    monkeypatch.setattr(evidence, "EVENTS_SHOWN_MAX", 2)
    (one,) = selectors.events_behind(rows[:1])
    assert one.is_cut
    assert len(one.events) == 4  # Two of the hour, the cause before it and the proof after it.


def test_an_hour_is_explained_by_its_intervals_and_events(lab):
    send(
        started("a", EARLIER - minutes(30)),
        heartbeat("a", EARLIER + minutes(10)),
        resized("a", EARLIER + minutes(30), 4),
        heartbeat("a", EARLIER + minutes(70)),
        stopped("a", EARLIER + minutes(80)),
        recorded("b", EARLIER, EARLIER + minutes(1), sku="a100"),
    )
    tick(lab.pk)

    (found,) = behind(lab, "gpu_hours", "h100", "eu")

    assert found.row.quantity == 30 * 60 * 8 + 30 * 60 * 4
    assert [
        (from_ms(segment.start), from_ms(segment.end), segment.milli_gpus) for segment in found.segments
    ] == [
        (EARLIER, EARLIER + minutes(30), 8000),
        (EARLIER + minutes(30), EARLIER + minutes(60), 4000),
    ]
    assert [(event.type, event.time) for event in found.events] == [
        ("allocation.started", EARLIER - minutes(30)),
        ("allocation.heartbeat", EARLIER + minutes(10)),
        ("allocation.resized", EARLIER + minutes(30)),
        ("allocation.heartbeat", EARLIER + minutes(70)),
    ]


def test_a_reading_is_explained_by_its_event(lab):
    send(reading(EARLIER, "egress_gb", "1.5"), reading(EARLIER + minutes(1), "requests", 7))
    tick(lab.pk)

    (found,) = behind(lab, "egress_gb", "", "")

    assert found.segments == []
    assert [event.quantity for event in found.events] == [Decimal("1.5")]
