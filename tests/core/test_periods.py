"""Months in time zones, and whole hours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from apps.core import periods


def test_labels_follow_each_other_over_the_year():
    assert (periods.next_label("2026-12"), periods.previous_label("2027-01")) == ("2027-01", "2026-12")
    assert (periods.next_label("2026-01"), periods.previous_label("2026-03")) == ("2026-02", "2026-02")
    assert [periods.is_label(text) for text in ("2026-01", "2026-13", "2026-1", "x2026-01")] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        ("UTC", datetime(2026, 4, 1, tzinfo=UTC)),
        ("Europe/Oslo", datetime(2026, 3, 31, 22, tzinfo=UTC)),
        ("Asia/Kathmandu", datetime(2026, 3, 31, 18, 15, tzinfo=UTC)),
        ("Pacific/Kiritimati", datetime(2026, 3, 31, 10, tzinfo=UTC)),
        ("Pacific/Pago_Pago", datetime(2026, 4, 1, 11, tzinfo=UTC)),
    ],
)
def test_a_month_starts_at_midnight_of_its_zone(zone, start):
    assert periods.month_start("2026-04", zone) == start
    assert periods.label_of(start, zone) == "2026-04"
    assert periods.label_of(start - timedelta(microseconds=1), zone) == "2026-03"


def test_an_hour_is_whole_in_utc():
    india = datetime(2026, 4, 1, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert periods.is_whole_hour(india)
    assert periods.floor_hour(india + timedelta(minutes=59, microseconds=1)) == datetime(
        2026, 4, 1, tzinfo=UTC
    )
    assert not periods.is_whole_hour(india + timedelta(microseconds=1))
