"""Billing periods against a model that only knows calendars: each month ends where the zone then in force says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import IntegrityError, connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.organizations import services as organizations
from apps.organizations.models import BillingPeriod, PeriodState
from tests import build
from tests.depth import examples

# Half hours, daylight saving on both hemispheres at odd times, the two ends of the world, a skipped day.
ZONES = [
    "UTC",
    "Europe/Oslo",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
    "Africa/Cairo",
]
START = datetime(2025, 9, 1, tzinfo=UTC)
moments = st.integers(0, 400 * 24 * 60).map(lambda minutes: START + timedelta(minutes=minutes))


def month_start(year: int, month: int, zone: str) -> datetime:
    return datetime(year + (month - 1) // 12, (month - 1) % 12 + 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def expected(
    created: datetime, zone: str, changes: list[tuple[datetime, str]], until: datetime
) -> list[tuple]:
    """Walk through time from the creation on; at each moment the current month's end is that of the zone in force."""
    local = created.astimezone(ZoneInfo(zone))
    year, month = local.year, local.month
    rows, start, end = [], month_start(year, month, zone), month_start(year, month + 1, zone)
    for moment, new_zone in [*changes, (until, "")]:
        while end <= moment:
            rows.append((f"{year:04d}-{month:02d}", start, end))
            year, month = year + month // 12, month % 12 + 1
            start, end = end, month_start(year, month + 1, zone)
        if new_zone:
            zone = new_zone
            moved = month_start(year, month + 1, zone)
            end = moved if moved > moment else end
    return [*rows, (f"{year:04d}-{month:02d}", start, end)]


def rows_of(organization) -> list[tuple]:
    return list(BillingPeriod.objects.of(organization.id).values_list("label", "starts_at", "ends_at"))


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    zone=st.sampled_from(ZONES),
    created=moments,
    changes=st.lists(st.tuples(moments, st.sampled_from(ZONES)), max_size=4),
    looks=st.lists(moments, max_size=4),
)
def test_periods_are_those_of_a_calendar_whatever_was_asked_when(db, zone, created, changes, looks):
    changes = sorted((moment, zone) for moment, zone in changes if moment >= created)
    until = max([created, *looks, *(moment for moment, _zone in changes)])
    with transaction.atomic():
        organization = build.organization(timezone=zone, now=created)
        steps = [(moment, "", "") for moment in looks if moment >= created]
        steps += [(moment, "change", new_zone) for moment, new_zone in changes]
        for moment, kind, new_zone in sorted(steps, key=lambda step: step[0]):
            if kind:
                organizations.change_timezone(
                    actor=build.actor(), organization=organization, timezone=new_zone, now=moment
                )
            else:
                organizations.ensure_periods(organization_id=organization.id, covering=moment, now=moment)
        organizations.ensure_periods(organization_id=organization.id, covering=until, now=until)
        found = rows_of(organization)
        model = expected(created, zone, changes, until)
        transaction.set_rollback(True)

    assert found == model


def test_rows_are_made_backwards_while_nothing_is_final(db):
    organization = build.organization(now=datetime(2026, 5, 15, tzinfo=UTC))

    period = organizations.ensure_periods(
        organization_id=organization.id, covering=datetime(2026, 2, 28, 23, tzinfo=UTC), now=build.NOW
    )

    assert period.label == "2026-02"
    assert [row[0] for row in rows_of(organization)] == ["2026-02", "2026-03", "2026-04", "2026-05"]
    assert (
        organizations.period_containing(organization.id, datetime(2026, 3, 1, tzinfo=UTC)).label == "2026-03"
    )
    assert organizations.period_containing(organization.id, datetime(2026, 6, 1, tzinfo=UTC)) is None


def test_nothing_is_made_before_a_final_period(db):
    organization = build.organization(now=datetime(2026, 5, 15, tzinfo=UTC))
    BillingPeriod.objects.of(organization.id).update(state=PeriodState.FINAL, finalized_at=build.NOW)

    with pytest.raises(organizations.PeriodsFinal):
        organizations.ensure_periods(
            organization_id=organization.id, covering=datetime(2026, 4, 30, tzinfo=UTC), now=build.NOW
        )

    assert [row[0] for row in rows_of(organization)] == ["2026-05"]


def test_a_new_end_that_is_past_already_waits_one_period(db):
    now = datetime(2026, 5, 31, 20, tzinfo=UTC)  # Already June in Kiritimati (UTC+14).
    organization = build.organization(now=now)
    organizations.ensure_periods(organization_id=organization.id, covering=now + timedelta(hours=5), now=now)

    organizations.change_timezone(
        actor=build.actor(), organization=organization, timezone="Pacific/Kiritimati", now=now
    )

    assert rows_of(organization) == [
        ("2026-05", datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)),
        ("2026-06", datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 30, 10, tzinfo=UTC)),
    ]


def test_postgresql_keeps_periods_apart(transactional_db):
    organization = build.organization(now=datetime(2026, 5, 15, tzinfo=UTC))

    with (
        pytest.raises(IntegrityError, match="organizations_billingperiod_apart"),
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "INSERT INTO organizations_billingperiod (id, organization_id, label, starts_at, ends_at, state) "
            "VALUES (gen_random_uuid(), %s, '2026-06', '2026-05-31T23:00Z', '2026-07-01T00:00Z', 'open')",
            [organization.id],
        )

    assert [row[0] for row in rows_of(organization)] == ["2026-05"]
