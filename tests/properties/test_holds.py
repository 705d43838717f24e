"""Holds, usage, stops, cancellations and expiry in any order, beside a model of plain integers.

At any moment `available` is credit less usage less what the model says is reserved; in the end nothing is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.billing import selectors
from apps.billing.models import Hold
from apps.billing.services import InsufficientCredit, release_hold
from apps.organizations.models import Organization
from tests import build
from tests.depth import examples
from tests.metering.events import heartbeat, started, stopped
from tests.money import failing

START = datetime(2026, 5, 15, 9, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PRICE = 60_000  # Micros a GPU-minute, so that no amount is rounded.
CREDIT = 40_000_000
SUBJECTS = ("a", "b")

steps = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), st.sampled_from(SUBJECTS), st.integers(1, 30), st.integers(1, 400)),
        st.tuples(st.just("start"), st.sampled_from(SUBJECTS)),
        st.tuples(st.just("stop"), st.sampled_from(SUBJECTS)),
        st.tuples(st.just("cancel"), st.sampled_from(SUBJECTS)),
        st.tuples(st.just("wait"), st.integers(1, 100)),
    ),
    max_size=12,
)


@dataclass
class Allocation:
    """What the model knows of one allocation; minutes count from START."""

    runs_since: int | None = None
    used: list[tuple[int, int]] | None = None
    held: int = 0
    held_at: int = -1
    expires: int = -1

    def intervals(self, minute: int) -> list[tuple[int, int]]:
        done = self.used or []
        return done if self.runs_since is None else [*done, (self.runs_since, minute)]

    def cost(self, minute: int, since: int = -1_000_000) -> int:
        return PRICE * sum(max(end - max(begin, since), 0) for begin, end in self.intervals(minute))

    def reserved(self, minute: int) -> int:
        if not self.held or minute >= self.expires:
            return 0
        # The usage counts from the start of the hour in which the hold was made; START is half past.
        hour = (self.held_at + 30) // 60 * 60 - 30
        return max(self.held - self.cost(minute, since=hour), 0)


def hold(
    lab: Organization,
    known: dict[str, Allocation],
    one: Allocation,
    subject: str,
    minute: int,
    *,
    micros: int,
    lasts: int,
) -> None:
    """Ask for a hold; whether there is one afterwards is what the model says."""
    available = CREDIT - sum(each.cost(minute) + each.reserved(minute) for each in known.values())
    is_live = one.held and minute < one.expires
    now = START + minute * MINUTE
    try:
        build.hold(lab, subject, str(micros // 1_000_000), now=now, expires_at=now + lasts * MINUTE)
    except InsufficientCredit:
        assert not is_live
        assert micros > available
        return
    assert is_live or micros <= available
    if not is_live:
        one.held, one.held_at, one.expires = micros, minute, minute + lasts


@pytest.mark.django_db
@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=steps)
def test_no_order_leaves_credit_reserved(db, steps):
    with transaction.atomic():
        build.price_book({"unit_price": "3.6"})
        lab = build.organization("lab", now=START)
        build.credit(lab, "40", now=START)
        known = {subject: Allocation() for subject in SUBJECTS}
        minute = 0

        def tick() -> None:
            """Let every running allocation prove itself, and count up to now."""
            now = START + minute * MINUTE
            running = [subject for subject, one in known.items() if one.runs_since is not None]
            if running:
                build.events(*(heartbeat(one, now, id=f"beat-{minute}-{one}") for one in running), now=now)
            build.metered(lab, now)

        def check() -> None:
            used = sum(one.cost(minute) for one in known.values())
            reserved = sum(one.reserved(minute) for one in known.values())
            found = selectors.balance(lab, now=START + minute * MINUTE)
            assert (found.held_micros, found.available_micros) == (reserved, CREDIT - used - reserved)

        for name, *arguments in steps:
            minute += arguments[0] if name == "wait" else 1
            now = START + minute * MINUTE
            tick()
            one = known[str(arguments[0])] if name != "wait" else Allocation()
            subject = str(arguments[0])
            if name == "wait":
                check()
            elif name == "hold":
                hold(lab, known, one, subject, minute, micros=arguments[1] * 1_000_000, lasts=arguments[2])
            elif name == "start" and one.runs_since is None:
                build.events(started(subject, now, gpus=1, id=f"start-{minute}"), now=now)
                one.runs_since = minute
            elif name == "stop":
                build.events(stopped(subject, now, id=f"stop-{minute}"), now=now)
                one.used, one.runs_since = one.intervals(minute), None
                one.held = 0
            elif name == "cancel":
                for live in Hold.objects.filter(subject=subject, released_at=None):
                    release_hold(actor=build.actor(lab), hold=live, now=now)
                one.held = 0

        minute += 401
        tick()
        check()
        assert not Hold.objects.filter(released_at=None).exists()
        assert selectors.balance(lab, now=START + minute * MINUTE).held_micros == 0
        assert failing() == []
        transaction.set_rollback(True)
