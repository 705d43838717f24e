"""Which credit pays: PostgreSQL's order and the charging of hours against a plain model, over random lots."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.billing.models import CreditLot, Pot
from apps.core.money import from_micros
from tests import build
from tests.billing.runs import HOUR, at
from tests.build import NOW
from tests.money import books

PRICE = 1_000_000  # Micros an hour.


@dataclass(frozen=True)
class Given:
    """A lot as it is granted; hours count from midnight. `effective` is that of its grant."""

    pot: Pot
    micros: int
    priority: int
    effective: int
    expires: int | None

    def pays(self, hour: int) -> bool:
        if self.pot == Pot.PAID:
            return True
        return self.effective <= hour and (self.expires is None or hour + 1 <= self.expires)


@st.composite
def lots(draw: st.DrawFn) -> Given:
    effective = draw(st.integers(0, 9))
    return Given(
        pot=draw(st.sampled_from(list(Pot))),
        micros=draw(st.integers(1, 3_000_000)),
        priority=draw(st.sampled_from([10, 50])),
        effective=effective,
        # Nothing expires before the charge at 12 o'clock but promotional credit, whose hours it does not pay.
        expires=draw(st.none() | st.integers(effective + 1, 14)),
    )


def model(given_lots: list[Given], hours: list[int]) -> tuple[list[int], int]:
    """Return what each lot still has and what is owed, by the rules as they are written."""
    left = [lot.micros for lot in given_lots]
    order = sorted(
        range(len(given_lots)),
        key=lambda index: (
            given_lots[index].priority,
            float("inf") if given_lots[index].expires is None else given_lots[index].expires,
            0 if given_lots[index].pot == Pot.PROMO else 1,
            given_lots[index].effective,
            index,
        ),
    )
    owed = 0
    for hour in sorted(hours):
        cost = PRICE
        for index in order:
            if given_lots[index].pays(hour):
                share = min(left[index], cost)
                left[index] -= share
                cost -= share
        owed += cost
    # All of it is charged in one step; after it what has expired by then is gone.
    for index, lot in enumerate(given_lots):
        if lot.expires is not None and lot.expires <= 12:
            left[index] = 0
    return left, owed


def moment(hour: int) -> datetime:
    return at(hour)


@pytest.fixture(autouse=True)
def prices(db):
    build.price_book({"unit_price": str(from_micros(PRICE))})


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_lots=st.lists(lots(), max_size=6), hours=st.sets(st.integers(4, 11), min_size=1, max_size=5))
def test_lots_burn_in_their_order(lab, given_lots, hours):
    with transaction.atomic():
        # Those of one hour are created in the order of the list; created_at is the moment of the grant.
        for lot in given_lots:
            build.credit(
                lab,
                str(from_micros(lot.micros)),
                pot=lot.pot,
                priority=lot.priority,
                expires_at=moment(lot.expires) if lot.expires is not None else None,
                now=moment(lot.effective),
            )
        build.events(*(build.usage_event(lab, moment(hour), moment(hour) + HOUR) for hour in hours))

        build.metered(lab, NOW)

        left, owed = model(given_lots, sorted(hours))
        rows = CreditLot.objects.order_by("id").select_related("account")
        assert [lot.account.balance_micros for lot in rows] == left
        assert -books(lab).get("receivable", 0) == owed
        transaction.set_rollback(True)
