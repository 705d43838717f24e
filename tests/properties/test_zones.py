"""Closing in any zone: every second of usage is billed once, in the month that a calendar says.

The model counts seconds against months that it walks itself, see `tests.organizations.test_periods.expected`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db import transaction
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from apps.core.periods import next_label
from apps.invoices.models import InvoiceLine
from apps.organizations import services as organizations
from apps.organizations.models import BillingPeriod
from tests import build
from tests.depth import examples
from tests.organizations.test_periods import ZONES, expected

# Leap day and both changes of daylight saving time lie between.
CREATED, LATER = datetime(2028, 2, 1, tzinfo=UTC), datetime(2028, 5, 4, tzinfo=UTC)
HOURS_AROUND = 30  # A month's start in any zone is less than that from its start in UTC, and a bit.
MONTHS = (3, 4)

type Interval = tuple[datetime, int]


def near(month: int, second: int) -> datetime:
    """Return a moment some seconds from the start of a month in UTC."""
    return datetime(2028, month, 1, tzinfo=UTC) + timedelta(seconds=second)


def midnight(month: int, day: int, zone: str) -> datetime:
    return datetime(2028, month, day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


moments = st.builds(near, st.sampled_from(MONTHS), st.integers(-HOURS_AROUND * 3600, HOURS_AROUND * 3600))
usages = st.tuples(moments, st.integers(1, 5 * 3600))


def seconds_by_month(usage: list[Interval], rows: list[tuple[Any, ...]]) -> dict[str, int]:
    """Return how many seconds of usage each month has; every second is in exactly one."""
    found: dict[str, int] = {}
    for start, seconds in usage:
        end = start + timedelta(seconds=seconds)
        for label, first, last in rows:
            inside = int((min(end, last) - max(start, first)).total_seconds())
            if inside > 0:
                found[label] = found.get(label, 0) + inside
    assert sum(found.values()) == sum(seconds for _start, seconds in usage), "the model misses nothing"
    return found


def billed(zone: str, created: datetime, changes: list[tuple[datetime, str]], usage: list[Interval]) -> Any:
    """Let an organization live and return quantity and amount of its final invoices by month, and its months."""
    organization = build.organization(timezone=zone, now=created)
    steps: list[tuple[datetime, Any]] = list(changes)
    steps += [(start + timedelta(seconds=seconds), start) for start, seconds in usage]
    for moment, step in sorted(steps, key=lambda row: row[0]):
        if isinstance(step, str):
            # Hours that end where a month did are counted before the next month's end moves.
            build.metered(organization, moment)
            organizations.change_timezone(
                actor=build.actor(), organization=organization, timezone=step, now=moment
            )
        else:
            build.usage(organization, step, moment, now=moment)
    label = f"{created.astimezone(ZoneInfo(zone)):%Y-%m}"
    while BillingPeriod.objects.of(organization.id).filter(label=label, ends_at__gt=LATER).first() is None:
        organizations.ensure_periods(organization_id=organization.id, covering=LATER)
        build.closed(organization, label, now=LATER)
        label = next_label(label)
    lines = InvoiceLine.objects.filter(organization=organization, invoice__number__isnull=False)
    assert all(
        line.usage_period == line.invoice.period.label for line in lines.select_related("invoice__period")
    )
    found = {line.usage_period: (int(line.quantity), line.amount_minor) for line in lines}
    assert len(found) == len(lines), "one line a month"
    rows = BillingPeriod.objects.of(organization.id).order_by("starts_at")
    return found, list(rows.values_list("label", "starts_at", "ends_at"))


@settings(
    max_examples=examples(4),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    zone=st.sampled_from(ZONES),
    created=st.sampled_from([CREATED, datetime(2028, 2, 17, 11, 30, tzinfo=UTC)]),
    changes=st.lists(st.tuples(moments, st.sampled_from(ZONES)), max_size=2),
    usage=st.lists(usages, min_size=1, max_size=3),
)
# Over the start of summer time in Oslo and its month's end; over leap day on Kiritimati (+14) and in Pago Pago (−11).
@example(
    zone="Europe/Oslo",
    created=CREATED,
    changes=[],
    usage=[
        (midnight(3, 26, "Europe/Oslo"), 5 * 3600),
        (midnight(4, 1, "Europe/Oslo") - timedelta(seconds=1), 2),
    ],
)
@example(
    zone="Pacific/Kiritimati",
    created=CREATED,
    changes=[],
    usage=[
        (midnight(2, 29, "Pacific/Kiritimati"), 26 * 3600),
        (midnight(3, 1, "UTC") - timedelta(hours=1), 7200),
    ],
)
@example(
    zone="Pacific/Pago_Pago",
    created=datetime(2028, 2, 29, 10, 59, 59, tzinfo=UTC),
    changes=[],
    usage=[(midnight(3, 1, "Pacific/Pago_Pago") - timedelta(seconds=1801), 3602)],
)
# Moved east in mid-month, then west an hour before the month that began in the east ends there.
@example(
    zone="Pacific/Pago_Pago",
    created=datetime(2028, 2, 10, 12, 34, 56, tzinfo=UTC),
    changes=[
        (datetime(2028, 2, 15, 3, tzinfo=UTC), "Pacific/Kiritimati"),
        (midnight(4, 1, "Pacific/Kiritimati") - timedelta(hours=1), "Australia/Lord_Howe"),
    ],
    usage=[(near(month, -14 * 3600 - 1), 26 * 3600) for month in (3, 4)],
)
def test_every_second_is_billed_once_in_the_month_of_the_calendar(db, zone, created, changes, usage):
    changes = sorted((moment, name) for moment, name in changes if moment >= created)
    usage = [(start, seconds) for start, seconds in usage if start >= created]
    with transaction.atomic():
        build.price_book({"unit_price": "36"}, now=CREATED)  # A cent a second.
        found, rows = billed(zone, created, changes, usage)
        transaction.set_rollback(True)

    assert rows == expected(created, zone, changes, LATER)
    assert found == {label: (seconds, seconds) for label, seconds in seconds_by_month(usage, rows).items()}
