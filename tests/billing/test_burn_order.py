"""Which credit pays: a month of an organization in a day, beside a plain model of integers.

Lots of both pots are granted, codes redeemed, credit held and taken back, hours used in time and late, and lots expire
in between. After every charge each lot's balance, the debt and what is available are what the model says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from apps.billing import selectors
from apps.billing import services as billing
from apps.billing.models import CreditLot, Pot
from apps.core.money import from_micros
from apps.vouchers import services as vouchers
from tests import build
from tests.billing.runs import HOUR, at
from tests.depth import examples
from tests.money import books, failing

PRICE = 1_000_000  # Micros an hour.
VOUCHER = 1_500_000
BEFORE = timedelta(minutes=20)  # Everything happens that long before a whole hour, at which usage is charged.


@dataclass
class Lot:
    """A lot of the model; hours count from midnight, and a lot takes effect with the hour of its grant."""

    pot: Pot
    left: int
    priority: int
    effective: int
    expires: int | None

    def pays(self, hour: int) -> bool:
        return self.pot == Pot.PAID or (
            self.effective <= hour and (self.expires is None or hour < self.expires)
        )

    def counts_at(self, hour: int) -> bool:
        return self.expires is None or hour < self.expires


@dataclass
class Model:
    """The rules as they are written: the order, what pays which hour, what is owed, what expires."""

    lots: list[Lot] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    held: int = 0
    owed: int = 0

    def grant(self, lot: Lot) -> None:
        if lot.pot == Pot.PAID:
            settled = min(self.owed, lot.left)
            self.owed -= settled
            lot.left -= settled
        if lot.left:
            self.lots.append(lot)

    def charge(self, until: int) -> None:
        order = sorted(
            range(len(self.lots)),
            key=lambda place: (
                self.lots[place].priority,
                (self.lots[place].expires is None, self.lots[place].expires),
                0 if self.lots[place].pot == Pot.PROMO else 1,
                self.lots[place].effective,
                place,
            ),
        )
        for hour in sorted(self.waiting):
            cost = PRICE
            for place in order:
                if self.lots[place].pays(hour):
                    share = min(self.lots[place].left, cost)
                    self.lots[place].left -= share
                    cost -= share
            self.owed += cost
        self.waiting = []
        for lot in self.lots:
            if not lot.counts_at(until):
                lot.left = 0

    @property
    def available(self) -> int:
        return sum(lot.left for lot in self.lots) - self.owed - self.held


grants = st.tuples(
    st.just("grant"),
    st.sampled_from(list(Pot)),
    st.integers(1, 3_000_000),
    st.sampled_from([10, 50]),
    st.none() | st.integers(1, 6),
)
steps = st.lists(
    st.one_of(
        grants,
        grants,
        st.just(("voucher",)),
        st.tuples(st.just("hold"), st.integers(1, 2_000_000)),
        st.tuples(st.just("take back"), st.integers(0, 9)),
        # Of the hour that runs, or late.
        st.tuples(st.just("use"), st.integers(0, 3)),
        st.tuples(st.just("use"), st.just(0)),
        st.tuples(st.just("charge"), st.integers(1, 4)),
    ),
    min_size=4,
    max_size=12,
)


@pytest.fixture(autouse=True)
def prices(db):
    build.price_book({"unit_price": str(from_micros(PRICE))})


def moment(hour: int) -> datetime:
    """Return when things happen in an hour."""
    return at(hour) + HOUR - BEFORE


@settings(
    max_examples=examples(6),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(steps=steps)
def test_credit_of_any_origin_burns_in_its_order_and_ends_at_its_end(lab, steps):
    with transaction.atomic():
        campaign = build.campaign(
            str(from_micros(VOUCHER)), kind="unique", organization_max=99, credit_days=1, now=at(0)
        )
        model, hour = Model(), 4

        for name, *arguments in [*steps, ("charge", 1)]:
            if name == "grant":
                pot, micros, priority, lasts = arguments
                expires = None if lasts is None else hour + lasts
                build.credit(
                    lab,
                    str(from_micros(micros)),
                    pot=pot,
                    priority=priority,
                    expires_at=None if expires is None else at(expires),
                    now=moment(hour),
                )
                model.grant(Lot(pot, micros, priority, hour, expires))
            elif name == "voucher":
                code = build.voucher(campaign, now=moment(hour))
                vouchers.redeem(actor=build.actor(lab), organization=lab, code=code, now=moment(hour))
                # A day, up to the next whole hour.
                model.grant(Lot(Pot.PROMO, VOUCHER, 50, hour, hour + 25))
            elif name == "hold":
                hold(lab, model, arguments[0], hour)
            elif name == "take back" and model.lots:
                take_back(lab, model, arguments[0] % len(model.lots), hour)
            elif name == "use":
                used = max(hour - arguments[0], 0)
                build.usage(lab, at(used), at(used) + HOUR, now=at(used) + HOUR)
                model.waiting.append(used)
            elif name == "charge":
                hour += arguments[0]
                build.metered(lab, at(hour))
                model.charge(hour)
                check(lab, model, hour)
        assert failing() == []
        transaction.set_rollback(True)


def hold(lab, model: Model, micros: int, hour: int) -> None:
    """Reserve credit for an allocation that never starts: it changes what is available, not which lot pays."""
    asked = {"subject": f"allocation-{model.held}-{hour}", "amount": str(from_micros(micros))}
    if model.available < micros:
        with pytest.raises(billing.InsufficientCredit):
            build.hold(lab, **asked, now=moment(hour), expires_at=at(100))
        return
    build.hold(lab, **asked, now=moment(hour), expires_at=at(100))
    model.held += micros


def take_back(lab, model: Model, place: int, hour: int) -> None:
    """Take all that is left of a lot."""
    lot = CreditLot.objects.order_by("created_at", "id")[place]
    asked = {"actor": build.actor(), "lot_id": lot.id, "amount_micros": None, "reason": "tests"}
    if not model.lots[place].left:
        with pytest.raises(billing.CreditSpent):
            billing.withdraw_credit(**asked, now=moment(hour))
        return
    assert billing.withdraw_credit(**asked, now=moment(hour)) == model.lots[place].left
    model.lots[place].left = 0


def check(lab, model: Model, hour: int) -> None:
    rows = CreditLot.objects.order_by("created_at", "id").select_related("account")
    assert [lot.account.balance_micros for lot in rows] == [lot.left for lot in model.lots]
    assert -books(lab).get("receivable", 0) == model.owed
    assert selectors.balance(lab, now=at(hour)).available_micros == model.available
