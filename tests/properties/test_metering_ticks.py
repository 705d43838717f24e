"""However events are batched and whenever ticks run, the hours are those of one tick at the end."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from unittest import mock

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.metering import facts
from apps.metering.models import UsageChange, UsageHour
from apps.metering.selectors import UsageSlot, slot_quantities
from tests import build
from tests.depth import examples
from tests.metering.events import (
    EARLIER,
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

END = EARLIER + timedelta(hours=4)


def moment(number: int):
    """Return a moment around two whole hours, coarse enough for ties."""
    return EARLIER + timedelta(minutes=40) + number * timedelta(seconds=20)


MOMENTS = st.integers(0, 240).map(moment)
ROWS = st.tuples(
    st.sampled_from(
        ["started", "started", "stopped", "resized", "heartbeat", "heartbeat", "recorded", "reading"]
    ),
    st.sampled_from(["a", "b"]),
    MOMENTS,
    st.integers(0, 200),
    st.sampled_from(["0", "0.5", "8"]),
    st.sampled_from(["h100", "a100"]),
)


def as_event(number: int, kind: str, subject: str, at, length: int, gpus: str, sku: str):
    name = f"e{number:02d}"
    if kind == "started":
        return started(subject, at, id=name, gpus=gpus, sku=sku)
    if kind == "resized":
        return resized(subject, at, gpus, id=name)
    if kind == "recorded":
        return recorded(subject, at, at + length * timedelta(seconds=20), id=name, gpus=gpus, sku=sku)
    if kind == "reading":
        return reading(at, "egress_gb", length, subject=subject, id=name)
    return (stopped if kind == "stopped" else heartbeat)(subject, at, id=name)


EVENTS = st.lists(ROWS, min_size=1, max_size=12).map(
    lambda rows: [as_event(number, *row) for number, row in enumerate(rows)]
)


def counted(organization) -> dict[tuple[object, ...], object]:
    rows = UsageHour.objects.filter(organization=organization).counted()
    return {
        (row.resource.subject, row.meter, row.sku, row.hour): row.quantity
        for row in rows.select_related("resource")
    }


def count_often(organization, events, data) -> None:
    """Send the events one by one in any order, some twice, with ticks at any cut-off in between."""
    order, cutoff = data.draw(st.permutations(events)), EARLIER
    while order:
        size = data.draw(st.integers(1, len(order)))
        batch, order = order[:size], order[size:]
        for event in (*batch, data.draw(st.sampled_from(batch))):
            send({**event, "source": "often", "data": {**event["data"], "organization": "often"}}, now=END)
        cutoff += minutes(data.draw(st.integers(0, 60)))
        tick(organization.pk, min(cutoff, END), limit=data.draw(st.sampled_from([1, 500])))
    tick(organization.pk, END)


def sums_by_slot(organization) -> dict[UsageSlot, Decimal]:
    totals: dict[UsageSlot, Decimal] = defaultdict(Decimal)
    for row in UsageHour.objects.filter(organization=organization).counted():
        totals[UsageSlot(row.meter, row.sku, row.region, row.hour)] += row.quantity
    return dict(totals)


@pytest.mark.django_db
@settings(
    deadline=None,
    max_examples=examples(60),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(EVENTS, st.data())
def test_ticks_at_any_time_count_what_one_tick_at_the_end_counts(db, events, data):
    """Whole resources, or a few hours at a time as for those with very many events."""
    with transaction.atomic():
        once, often = build.organization("lab", now=EARLIER), build.organization("often", now=EARLIER)
        send(*events, now=END)
        tick(once.pk, END)
        with mock.patch.object(facts, "FACTS_MAX", data.draw(st.sampled_from([1, 3, 20_000]))):
            count_often(often, events, data)

        assert counted(often) == counted(once)
        # Every sum that ended up above zero was queued for charging.
        queued = UsageChange.objects.filter(organization=often).values_list("meter", "sku", "region", "hour")
        quantities = slot_quantities(often.pk, {UsageSlot(*slot) for slot in queued})
        assert {slot: total for slot, total in quantities.items() if total} == sums_by_slot(often)
        transaction.set_rollback(True)
