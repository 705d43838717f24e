"""Grants, usage, corrections, redelivery, expiry and closing in any order, beside a model of plain integers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from django.db.models import Q, Sum
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from apps.billing.models import ChargeHour, Pot
from apps.core.money import from_micros
from apps.invoices.models import Invoice, InvoiceLine
from apps.ledger.models import Transfer
from apps.organizations.models import BillingPeriod, PeriodState
from tests import build
from tests.depth import examples
from tests.metering.events import heartbeat, started, stopped
from tests.money import books, failing

PRICE_MICROS = 2_490_000
FIRST = datetime(2026, 5, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Ledger(RuleBasedStateMachine):
    """The clock stands on whole hours, so that everything before it is charged once it is metered."""

    def __init__(self) -> None:
        super().__init__()
        self.transaction = transaction.atomic()
        self.transaction.__enter__()

    @initialize()
    def begin(self) -> None:
        self.clock = datetime(2026, 5, 31, 20, tzinfo=UTC)
        self.lab = build.organization("lab", now=FIRST)
        build.price_book({"unit_price": str(from_micros(PRICE_MICROS))})
        self.sent: list[dict[str, Any]] = []
        self.usage: dict[str, tuple[datetime, datetime]] = {}
        self.runs: list[str] = []
        self.granted = {Pot.PAID: 0, Pot.PROMO: 0}
        self.metered = True

    # --- what happens

    @rule(hours=st.sampled_from([1, 5, 30, 400]))
    def time_passes(self, hours: int) -> None:
        self.clock += timedelta(hours=hours)
        self.meter()

    @rule(
        pot=st.sampled_from(list(Pot)),
        micros=st.integers(1, 9_000_000),
        priority=st.sampled_from([10, 50]),
        expires=st.none() | st.integers(1, 40),
    )
    def grant(self, pot: Pot, micros: int, priority: int, expires: int | None) -> None:
        build.credit(
            self.lab,
            str(from_micros(micros)),
            pot=pot,
            priority=priority,
            expires_at=self.clock + timedelta(hours=expires) if expires else None,
            now=self.clock,
        )
        self.granted[pot] += micros

    @rule(ago=st.sampled_from([60, 90, 300, 2_000, 50_000]), minutes=st.integers(1, 150))
    def interval(self, ago: int, minutes: int) -> None:
        start, end = self._span(ago, minutes)
        name = f"interval-{len(self.usage)}"
        self._send(build.usage_event(self.lab, start, end, subject=name))
        self.usage[name] = (start, end)

    @rule(ago=st.sampled_from([60, 90, 300, 2_000]), minutes=st.integers(2, 150))
    def run(self, ago: int, minutes: int) -> None:
        start, end = self._span(ago, minutes)
        name = f"run-{len(self.usage)}"
        self._send(started(name, start, gpus=1), heartbeat(name, end - MINUTE))
        self.usage[name] = (start, end)
        self.runs.append(name)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def shorten(self, data: st.DataObject) -> None:
        """A stop that comes late takes usage back, all but its first minute at most."""
        name = data.draw(st.sampled_from(self.runs))
        start, end = self.usage[name]
        minutes = data.draw(st.integers(1, int((end - start) / MINUTE)))
        stop = start + minutes * MINUTE
        self._send(stopped(name, stop, id=f"stop-{len(self.sent)}"))
        self.usage[name] = (start, stop)

    @precondition(lambda self: self.sent)
    @rule()
    def redeliver(self) -> None:
        outcome = build.events(*reversed(self.sent), now=self.clock)
        assert (outcome.accepted, outcome.duplicates) == (0, len(self.sent))

    @rule()
    def meter(self) -> None:
        build.metered(self.lab, self.clock)
        self.metered = True

    @rule(finalize=st.booleans())
    def close(self, finalize: bool) -> None:
        period = BillingPeriod.objects.of(self.lab.id).exclude(state=PeriodState.FINAL).first()
        if period is None or period.ends_at > self.clock:
            return
        invoice = build.closed(self.lab, period.label, finalize=finalize, now=self.clock).invoice
        for line in InvoiceLine.objects.filter(invoice=invoice).select_related("key__period"):
            # Whatever was invoiced before, the lines of a key add up to its quantity at its price, rounded once.
            final = Q(invoice__in=Invoice.objects.final()) | Q(invoice=invoice)
            sums = InvoiceLine.objects.filter(final, key=line.key).aggregate(
                Sum("amount_minor"), Sum("quantity")
            )
            seconds = self._seconds()[line.key.period.label]
            assert sums["quantity__sum"] == seconds
            assert sums["amount_minor__sum"] == _round(seconds * PRICE_MICROS, 3600 * 10_000)
        self.metered = True

    # --- what always holds

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not self.metered:
            return
        posted = ChargeHour.objects.values_list("key__period__label").annotate(Sum("amount_micros"))
        costs = {label: _round(seconds * PRICE_MICROS, 3600) for label, seconds in self._seconds().items()}
        assert {label: micros for label, micros in posted if micros} == costs

        book = books(self.lab)
        expired = _sum(kind="expiry")
        assert -book.get("bank", 0) == self.granted[Pot.PAID]
        assert -book.get("promo_expense", 0) == self.granted[Pot.PROMO] - _sum(credit__kind="promo_expense")
        rounded = _sum(kind="invoice", credit__kind="receivable") - _sum(
            kind="invoice", debit__kind="receivable"
        )
        has = book.get("paid_lot", 0) + book.get("promo_lot", 0) + book.get("receivable", 0)
        assert has == sum(self.granted.values()) - sum(costs.values()) - expired + rounded

    @invariant()
    def proof_holds(self) -> None:
        assert failing() == []

    def teardown(self) -> None:
        try:
            build.metered(self.lab, self.clock)
            self.metered = True
            self.agrees_with_the_model()
            self.proof_holds()
        finally:
            transaction.set_rollback(True)
            self.transaction.__exit__(None, None, None)

    # --- helpers

    def _span(self, ago: int, minutes: int) -> tuple[datetime, datetime]:
        start = max(self.clock - ago * MINUTE, FIRST)
        return start, min(start + minutes * MINUTE, self.clock)

    def _send(self, *events: dict[str, Any]) -> None:
        build.events(*events, now=self.clock)
        self.sent += events
        self.metered = False

    def _seconds(self) -> dict[str, int]:
        """Return the seconds used in each month."""
        found: dict[str, int] = {}
        for start, end in self.usage.values():
            for label, seconds in _by_month(start, end):
                found[label] = found.get(label, 0) + seconds
        return found


def _by_month(start: datetime, end: datetime) -> Iterator[tuple[str, int]]:
    while start < end:
        following = (start.replace(day=1, hour=0, minute=0) + timedelta(days=32)).replace(day=1)
        stop = min(end, following)
        yield f"{start:%Y-%m}", int((stop - start).total_seconds())
        start = stop


def _round(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def _sum(**conditions: Any) -> int:
    total = Transfer.objects.filter(**conditions).aggregate(total=Sum("amount_micros", default=0))["total"]
    return int(total)


@pytest.mark.django_db
def test_any_order_of_events_agrees_with_the_model() -> None:
    run_state_machine_as_test(
        Ledger,
        settings=settings(
            max_examples=examples(12),
            stateful_step_count=14,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
