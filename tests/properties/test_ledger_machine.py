"""Credit, usage, corrections, closing and what undoes it, in any order, beside a model of plain integers.

Whole invoices: three currencies, buyers who move between tax rules, credit notes, cancellations and write-offs.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from django.db.models import QuerySet, Sum
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
from apps.invoices import services as invoices
from apps.invoices.models import (
    BILLED_KINDS,
    PERIOD_KINDS,
    DocumentKind,
    Invoice,
    InvoiceClaim,
    InvoiceLine,
    InvoicePayment,
    InvoiceState,
    InvoiceTax,
)
from apps.invoices.services import CreditExceedsInvoice, NotCancellable
from apps.ledger.models import Transfer
from apps.organizations.models import BillingPeriod, PeriodState
from tests import build
from tests.depth import FULL, examples
from tests.metering.events import heartbeat, started, stopped
from tests.money import books, failing

PRICE_MICROS = 2_490_000
# Micros of a minor unit, and how many times the amounts of the other rules; a yen is the smallest part of one.
CURRENCIES = {"EUR": (10_000, 1), "JPY": (1_000_000, 150), "KWD": (1_000, 1)}
# At home, abroad at the rate of there, reverse charge, and outside the Union.
BUYERS = [("DE", ""), ("FR", ""), ("FR", "FR40303265045"), ("CH", "")]
FIRST = datetime(2026, 5, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Ledger(RuleBasedStateMachine):
    """The clock stands on whole hours, so that everything before it is charged once it is metered."""

    def __init__(self) -> None:
        super().__init__()
        self.transaction = transaction.atomic()
        self.transaction.__enter__()

    @initialize(currency=st.sampled_from(sorted(CURRENCIES)), data=st.data())
    def begin(self, currency: str, data: st.DataObject) -> None:
        self.clock = datetime(2026, 5, 31, 20, tzinfo=UTC)
        self.minor, self.scale = CURRENCIES[currency]
        self.price_micros = PRICE_MICROS * self.scale
        build.seller(tax_registrations=["EU"])
        self.lab = build.organization("lab", currency=currency, now=FIRST)
        build.billing_profile(self.lab, country="DE")
        build.price_book({"unit_price": str(from_micros(self.price_micros))}, currency=currency)
        self.sent: list[dict[str, Any]] = []
        self.usage: dict[str, tuple[datetime, datetime]] = {}
        self.runs: list[str] = []
        self.granted = {Pot.PAID: 0, Pot.PROMO: 0}
        self.metered = True
        # A final invoice, to which something was done already: left to chance alone, that would be rare.
        self.interval(ago=2_000, minutes=100)
        self.run(ago=300, minutes=150)
        self.close(finalize=True)
        self.correct(data)

    # --- what happens

    @rule(hours=st.sampled_from([1, 5, 30, 400]))
    def time_passes(self, hours: int) -> None:
        self.clock += timedelta(hours=hours)
        self.meter()

    @rule(
        pot=st.sampled_from(list(Pot)),
        micros=st.integers(1, 9_000_000) | st.integers(10_000_000, 90_000_000),
        priority=st.sampled_from([10, 50]),
        expires=st.none() | st.integers(1, 40),
    )
    def grant(self, pot: Pot, micros: int, priority: int, expires: int | None) -> None:
        micros *= self.scale
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

    @rule(buyer=st.sampled_from(BUYERS))
    def buyer_moves(self, buyer: tuple[str, str]) -> None:
        build.billing_profile(self.lab, country=buyer[0], vat_id=buyer[1])

    @rule(finalize=st.sampled_from([True, True, False]), data=st.data())
    def close_and_correct(self, finalize: bool, data: st.DataObject) -> None:
        self.close(finalize=finalize)
        if self._correctable():
            self.correct(data)

    def close(self, *, finalize: bool) -> None:
        period = BillingPeriod.objects.of(self.lab.id).exclude(state=PeriodState.FINAL).first()
        if period is None:
            return
        self.clock = max(self.clock, period.ends_at)
        invoice = build.closed(self.lab, period.label, finalize=finalize, now=self.clock).invoice
        self.metered = True
        if invoice is None:
            return
        drafted = InvoiceLine.objects.filter(invoice=invoice)
        for line in drafted.select_related("key__period"):
            # Whatever was invoiced before, the lines of a key add up to its quantity at its price, rounded once.
            told = InvoiceLine.objects.filter(key=line.key, kind__in=BILLED_KINDS)
            sums = (
                told.filter(invoice__in=Invoice.objects.final()) | drafted.filter(key=line.key)
            ).aggregate(Sum("amount_minor"), Sum("quantity"))
            seconds = self._seconds()[line.key.period.label]
            assert sums["quantity__sum"] == seconds
            assert sums["amount_minor__sum"] == _round(seconds * self.price_micros, 3600 * self.minor)
        for group in InvoiceTax.objects.filter(invoice=invoice):
            sign = -1 if group.base_minor < 0 else 1
            assert group.tax_minor == sign * _round(abs(group.base_minor) * int(group.percent * 100), 10_000)
        if finalize and invoice.kind == DocumentKind.INVOICE:
            # What it posted makes its revenue and what it leaves to pay whole minor units.
            of_invoice = {"reference": str(invoice.id), "kind__in": ["invoice", "tax"]}
            claimed = _total(InvoiceClaim.objects.filter(invoice=invoice), "micros")
            owed = _sum(debit__kind="receivable", **of_invoice) - _sum(
                credit__kind="receivable", **of_invoice
            )
            assert claimed + owed == invoice.due_minor * self.minor + invoice.receipts_micros
            revenue = _sum(credit__kind="revenue", **of_invoice) - _sum(debit__kind="revenue", **of_invoice)
            covered = _total(drafted, "ledger_micros")
            assert covered + revenue == invoice.subtotal_minor * self.minor

    @precondition(lambda self: self._correctable())
    @rule(data=st.data())
    def correct(self, data: st.DataObject) -> None:
        how = data.draw(st.sampled_from(["all", "amount", "line", "amount", "line", "cancel", "write off"]))
        if how == "cancel":
            self._cancel(data)
        elif how == "write off":
            self._write_off(data)
        else:
            self._credit(data, how)

    def _credit(self, data: st.DataObject, how: str) -> None:
        """Whatever staff ask for, nothing gives more than it has left."""
        invoice = data.draw(st.sampled_from(self._correctable()))
        what: dict[str, Any] = {}
        if how == "amount":
            what["amount_minor"] = data.draw(st.integers(1, invoice.total_minor + 1))
        elif how == "line":
            line = data.draw(st.sampled_from(list(invoice.lines.order_by("position"))))
            net = data.draw(st.integers(1, max(line.amount_minor - line.discount_minor, 1)))
            what["lines_minor"] = {line.id: net}
        try:
            note = invoices.credit_invoice(
                actor=build.actor(), invoice=invoice, reason="Outage", now=self.clock, **what
            )
        except CreditExceedsInvoice as refused:
            left = refused.details["left"]
            assert left < {"all": 1, "amount": what.get("amount_minor", 0)}.get(how, left + 1)
            return
        assert how != "amount" or note.total_minor == -what["amount_minor"]
        for line in InvoiceLine.objects.filter(invoice=note):
            told = InvoiceLine.objects.filter(key=line.key, invoice__in=Invoice.objects.final())
            assert _total(told, "amount_minor") >= _total(told, "discount_minor")

    def _cancel(self, data: st.DataObject) -> None:
        invoice = data.draw(st.sampled_from(self._correctable()))
        try:
            note = invoices.cancel_invoice(
                actor=build.actor(), invoice=invoice, reason="Wrong", now=self.clock
            )
        except NotCancellable:
            return
        sums = InvoiceLine.objects.filter(invoice__in=[invoice, note]).aggregate(
            **{name: Sum(name) for name in ("quantity", "amount_minor", "discount_minor", "tax_minor")}
        )
        assert not any(sums.values())

    def _write_off(self, data: st.DataObject) -> None:
        if owed := self._correctable(InvoiceState.OPEN):
            invoice = data.draw(st.sampled_from(owed))
            invoices.write_off(actor=build.actor(), invoice=invoice, reason="Insolvent", now=self.clock)

    # --- what always holds

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not self.metered:
            return
        posted = ChargeHour.objects.values_list("key__period__label").annotate(Sum("amount_micros"))
        costs = {
            label: _round(seconds * self.price_micros, 3600) for label, seconds in self._seconds().items()
        }
        assert {label: micros for label, micros in posted if micros} == costs

        final = Invoice.objects.final()
        standing = final.filter(kind__in=PERIOD_KINDS).exclude(state=InvoiceState.CANCELLED)
        asking = standing.filter(kind=DocumentKind.INVOICE)
        # What documents say beyond what the ledger had: of revenue, and of what is left to pay.
        revenue_residue = _total(standing, "subtotal_minor") * self.minor - _total(
            InvoiceLine.objects.filter(invoice__in=standing), "ledger_micros"
        )
        taxed = _total(asking, "tax_minor") - _total(asking, "tax_credit_minor")
        due_residue = (
            (_total(asking, "due_minor") - taxed) * self.minor
            + _total(asking, "receipts_micros")
            - _total(InvoiceClaim.objects.filter(invoice__in=asking), "micros")
        )
        waived = final.filter(kind=DocumentKind.CREDIT_NOTE)
        expected = {
            "bad_debt": -_total(InvoicePayment.objects.filter(kind="write_off"), "amount_micros"),
            "bank": -self.granted[Pot.PAID],
            "breakage": _sum(kind="expiry", credit__kind="breakage"),
            "promo_expense": _sum(credit__kind="promo_expense") - self.granted[Pot.PROMO],
            "revenue": sum(costs.values()) + revenue_residue + _total(waived, "subtotal_minor") * self.minor,
            "rounding": due_residue - revenue_residue,
            "tax_payable": _total(final, "tax_minor") * self.minor,
        }
        book = books(self.lab)
        has = sum(book.pop(kind, 0) for kind in ("paid_lot", "promo_lot", "receivable"))
        assert book == {kind: micros for kind, micros in expected.items() if micros}
        assert has == -sum(expected.values())

    @invariant()
    def nothing_gives_more_than_it_has(self) -> None:
        for invoice in Invoice.objects.final().invoices():
            notes = invoice.credit_notes.all()
            assert 0 <= -_total(notes, "total_minor") <= invoice.total_minor
            for line in invoice.lines.filter(corrections__kind="credit").distinct():
                given = line.corrections.filter(kind="credit")
                for name in ("amount_minor", "discount_minor", "tax_minor"):
                    assert 0 <= -_total(given, name) <= getattr(line, name)

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

    def _correctable(self, *states: InvoiceState) -> list[Invoice]:
        return list(
            Invoice.objects.invoices()
            .filter(state__in=states or (InvoiceState.OPEN, InvoiceState.PAID))
            .order_by("finalized_at", "id")
        )

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
    return _total(Transfer.objects.filter(**conditions), "amount_micros")


def _total(rows: QuerySet[Any], name: str) -> int:
    return int(rows.aggregate(total=Sum(name, default=0))["total"])


@pytest.mark.django_db
def test_any_order_of_events_agrees_with_the_model() -> None:
    run_state_machine_as_test(
        Ledger,
        settings=settings(
            max_examples=examples(8),
            stateful_step_count=20,
            deadline=None,
            derandomize=not FULL,
            suppress_health_check=list(HealthCheck),
        ),
    )
