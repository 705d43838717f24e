"""Closing periods: when, in which order, what lands on which invoice, and how it is rounded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from apps.audit.models import AuditEvent
from apps.billing import usage
from apps.billing.models import Pot
from apps.core.errors import NotFound
from apps.invoices import services as invoices
from apps.invoices.models import Invoice, InvoiceCounter, InvoiceLine, PeriodClose
from apps.invoices.services import PeriodNotEnded, PeriodOutOfOrder
from apps.invoices.services.close import compose_document
from apps.ledger.models import Transfer
from apps.organizations.models import BillingPeriod
from apps.outbox.models import OutboxEvent
from apps.pricing import services as pricing
from apps.pricing.models import Sku
from apps.pricing.rows import PriceRow
from tests import build
from tests.billing.runs import HOUR, run, stop
from tests.build import NOW
from tests.invoices.conftest import APRIL
from tests.money import books, failing, lines, transfers

MAY = datetime(2026, 5, 3, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)


def amounts(invoice):
    invoice.refresh_from_db()
    return {
        name: getattr(invoice, f"{name}_minor")
        for name in ("subtotal", "discount", "tax", "total", "due")
        if getattr(invoice, f"{name}_minor")
    }


def states(organization):
    return list(BillingPeriod.objects.of(organization.id).values_list("label", "state"))


# --- one invoice


def test_a_period_becomes_one_numbered_invoice(lab):
    build.price_book({"unit_price": "2.49"}, {"sku": "a100", "unit_price": "1"})
    build.usage(lab, APRIL, APRIL + HOUR, gpus="8")
    build.usage(lab, APRIL, APRIL + 2 * HOUR, sku="a100")

    closed = build.closed(lab, "2026-04")

    assert closed.invoice.number == "INV-2026-000001"
    assert (closed.invoice.state, closed.invoice.finalized_at) == ("open", NOW)
    assert lines(closed.invoice) == [
        ("usage", "2026-04", "a100", "7200", 200, 0),
        ("usage", "2026-04", "h100", "28800", 1992, 0),
    ]
    assert amounts(closed.invoice) == {"subtotal": 2192, "total": 2192, "due": 2192}
    assert states(lab)[0] == ("2026-04", "final")
    assert PeriodClose.objects.get().closed_by == "tests"
    assert AuditEvent.objects.filter(action="period.closed").count() == 1
    assert OutboxEvent.objects.get(event_type="invoices.period_closed").payload["number"] == "INV-2026-000001"
    assert failing() == []


def test_closing_again_changes_nothing(lab):
    build.price_book({"unit_price": "2.49"})
    build.usage(lab, APRIL, APRIL + HOUR)
    first = build.closed(lab, "2026-04").invoice
    # By June credit is missing for longer than the grace, which the spend guard says when it looks.
    steps = AuditEvent.objects.exclude(action__in=["billing_state.changed", "billing.stop_requested"])
    before = Transfer.objects.count(), InvoiceLine.objects.count(), steps.count()

    assert build.closed(lab, "2026-04", now=JUNE).invoice == first
    assert build.closed(lab, "2026-04", finalize=False, now=JUNE).invoice == first

    assert before == (Transfer.objects.count(), InvoiceLine.objects.count(), steps.all().count())
    assert Invoice.objects.count() == 1


def test_a_period_without_usage_is_final_without_an_invoice(lab):
    assert build.closed(lab, "2026-04").invoice is None
    assert states(lab) == [("2026-04", "final"), ("2026-05", "open")]
    assert not InvoiceCounter.objects.exists()
    assert failing() == []


def test_a_total_of_zero_is_numbered_and_paid(lab):
    build.price_book({"unit_price": "0"})
    build.usage(lab, APRIL, APRIL + HOUR)

    invoice = build.closed(lab, "2026-04").invoice

    assert (invoice.number, invoice.state, amounts(invoice)) == ("INV-2026-000001", "paid", {})
    assert lines(invoice) == [("usage", "2026-04", "h100", "3600", 0, 0)]
    assert failing() == []


def test_running_resources_are_split_at_the_periods_end(lab):
    build.price_book({"unit_price": "1"})
    end = datetime(2026, 5, 1, tzinfo=UTC)
    run(lab, "a", end - HOUR, end + HOUR)

    build.closed(lab, "2026-04", now=end)
    build.metered(lab, NOW)
    invoice = build.closed(lab, "2026-05", now=JUNE).invoice

    assert lines(Invoice.objects.get(period__label="2026-04")) == [
        ("usage", "2026-04", "h100", "3600", 100, 0)
    ]
    assert lines(invoice) == [("usage", "2026-05", "h100", "3600", 100, 0)]


# --- rounding


def test_a_line_is_rounded_from_the_exact_amount_and_never_from_micros(lab):
    build.price_book({"unit_price": "0.0149999996"})
    build.usage(lab, APRIL, APRIL + HOUR)

    invoice = build.closed(lab, "2026-04").invoice

    # 15 000 micros were posted, which would round to two cents.
    assert lines(invoice) == [("usage", "2026-04", "h100", "3600", 1, 0)]
    assert InvoiceLine.objects.get().ledger_micros == 15_000
    assert failing() == []


def test_parts_are_whole_minor_units_and_rounding_explains_the_rest(lab):
    build.price_book({"unit_price": "2.4949"}, {"sku": "a100", "unit_price": "0.0051"})
    build.credit(lab, "0.403", pot=Pot.PROMO, now=APRIL)
    build.credit(lab, "1.0006", now=APRIL)
    build.usage(lab, APRIL, APRIL + HOUR)
    build.usage(lab, APRIL + HOUR, APRIL + 2 * HOUR, sku="a100")

    invoice = build.closed(lab, "2026-04").invoice

    assert lines(invoice) == [
        ("usage", "2026-04", "a100", "3600", 1, 0),
        ("usage", "2026-04", "h100", "3600", 249, 40),
    ]
    # Owed are 1.0913 + 0.0051 = 1.0964.
    assert amounts(invoice) == {"subtotal": 250, "discount": 40, "total": 210, "due": 110}
    # 2.50 was posted to the micro, so only the receivable is rounded.
    assert transfers(lab)[-1] == ("invoice", "receivable", "rounding", 3_600)
    assert books(lab) == {
        "bank": -1_000_600,
        "promo_expense": -403_000,
        "receivable": -1_100_000,
        "revenue": 2_500_000,
        "rounding": 3_600,
    }
    assert failing() == []


@pytest.mark.parametrize(
    ("promo", "discount"), [("0.004", 0), ("0.0149", 1), ("0.016", 2), ("2.49", 249), ("9", 249)]
)
def test_promotional_credit_is_a_discount_rounded_once(lab, promo, discount):
    build.price_book({"unit_price": "2.49"})
    build.credit(lab, promo, pot=Pot.PROMO, now=APRIL)
    build.usage(lab, APRIL, APRIL + HOUR)

    invoice = build.closed(lab, "2026-04").invoice

    assert lines(invoice) == [("usage", "2026-04", "h100", "3600", 249, discount)]
    assert invoice.total_minor == 249 - discount
    assert failing() == []


@pytest.mark.parametrize(
    ("currency", "price", "minor", "residue"),
    [("JPY", "373.5", 374, 500_000), ("KWD", "0.7654", 765, -400), ("USD", "2.494999", 249, -4_999)],
)
def test_every_currency_is_rounded_to_its_own_minor_unit(db, currency, price, minor, residue):
    organization = build.organization(currency=currency, now=APRIL)
    build.price_book({"unit_price": price}, currency=currency)
    build.usage(organization, APRIL, APRIL + HOUR)

    invoice = build.closed(organization, "2026-04").invoice

    assert amounts(invoice) == {"subtotal": minor, "total": minor, "due": minor}
    unit = {"JPY": 1_000_000, "KWD": 1_000, "USD": 10_000}[currency]
    assert books(organization) == {"receivable": -minor * unit, "revenue": minor * unit}
    assert {row[3] for row in transfers(organization) if row[0] == "invoice"} == {abs(residue)}
    assert failing() == []


# --- when


def test_refuses_a_period_that_has_not_ended_or_does_not_exist(lab):
    with pytest.raises(PeriodNotEnded):
        build.closed(lab, "2026-04", now=APRIL)
    with pytest.raises(NotFound):
        build.closed(lab, "2025-01")

    assert states(lab) == [("2026-04", "open")]
    assert not Invoice.objects.exists()


def test_refuses_to_finalise_out_of_order(lab):
    build.price_book({"unit_price": "1"})
    for start in (APRIL, MAY):
        build.usage(lab, start, start + HOUR)
    build.metered(lab)

    with pytest.raises(PeriodOutOfOrder) as refused:
        build.closed(lab, "2026-05", now=JUNE)

    assert refused.value.details == {"earlier": "2026-04"}
    assert states(lab) == [("2026-04", "open"), ("2026-05", "open"), ("2026-06", "open")]
    assert not Invoice.objects.exists()
    assert not InvoiceCounter.objects.exists()


def test_a_draft_exists_from_one_hour_on_and_is_final_at_72(lab):
    build.price_book({"unit_price": "1"})
    build.usage(lab, APRIL, APRIL + HOUR)
    end = datetime(2026, 5, 1, tzinfo=UTC)

    def due(after):
        return [
            (closed.period.label, closed.invoice.state)
            for closed in invoices.close_due_periods(organization_id=lab.id, now=end + after)
        ]

    assert due(timedelta(minutes=59)) == []
    assert due(timedelta(hours=1)) == [("2026-04", "draft")]
    assert due(timedelta(hours=1, minutes=59)) == []  # Rewritten once an hour.
    assert due(timedelta(hours=71, minutes=50)) == [("2026-04", "draft")]
    assert due(timedelta(hours=72)) == [("2026-04", "open")]
    assert due(timedelta(hours=73)) == []
    assert Invoice.objects.count() == 1


def test_the_sweep_queues_each_organization_that_is_due_once(lab, captured_jobs):
    build.organization("fresh", now=JUNE)

    assert invoices.queue_due_periods(now=datetime(2026, 5, 1, 1, tzinfo=UTC)) == 1
    queued = [job for job in captured_jobs.queued if job[0] == "invoices.close_due_periods"]
    assert [arguments["organization_id"] for _name, arguments in queued] == [str(lab.id)]

    invoices.close_due_periods(organization_id=lab.id, now=datetime(2026, 5, 4, tzinfo=UTC))
    assert invoices.queue_due_periods(now=datetime(2026, 5, 4, tzinfo=UTC)) == 0


def test_imported_history_becomes_final_by_command_only_and_drafts_stay_apart(lab):
    build.price_book({"unit_price": "1"})
    march = datetime(2026, 3, 3, tzinfo=UTC)
    for hours, start in ((1, march), (2, APRIL), (3, MAY)):
        build.usage(lab, start, start + hours * HOUR, now=NOW)
    build.metered(lab)

    closed = invoices.close_due_periods(organization_id=lab.id, now=JUNE + timedelta(hours=1))

    # March ended before the organization was made; until it is final the others are drafts, each with its own usage.
    assert [(row.period.label, row.invoice.state, row.invoice.total_minor) for row in closed] == [
        ("2026-04", "draft", 200),
        ("2026-05", "draft", 300),
    ]
    assert states(lab)[0] == ("2026-03", "open")

    build.closed(lab, "2026-03", now=JUNE)
    invoices.close_due_periods(organization_id=lab.id, now=JUNE + timedelta(hours=2))

    assert [
        (invoice.period.label, invoice.state, invoice.total_minor)
        for invoice in Invoice.objects.select_related("period").order_by("period__starts_at")
    ] == [("2026-03", "open", 100), ("2026-04", "open", 200), ("2026-05", "draft", 300)]
    assert failing() == []


def test_a_draft_is_rewritten_by_later_usage(lab):
    build.price_book({"unit_price": "1"})
    run(lab, "a", APRIL, APRIL + 2 * HOUR)
    draft = build.closed(lab, "2026-04", finalize=False).invoice
    assert (draft.number, draft.state, amounts(draft)) == (
        None,
        "draft",
        {"subtotal": 200, "total": 200, "due": 200},
    )

    build.usage(lab, APRIL, APRIL + HOUR)
    again = build.closed(lab, "2026-04", finalize=False).invoice

    assert again == draft
    assert lines(draft) == [("usage", "2026-04", "h100", "10800", 300, 0)]
    assert books(lab) == {"receivable": -3_000_000, "revenue": 3_000_000}
    assert build.closed(lab, "2026-04").invoice == draft
    assert Invoice.objects.count() == 1
    assert failing() == []


def test_a_draft_follows_usage_that_is_taken_back(lab):
    build.price_book({"sku": "h100", "unit_price": "1"})
    end = datetime(2026, 5, 1, tzinfo=UTC)
    run(lab, "a", end - HOUR, end + HOUR)
    build.closed(lab, "2026-04", finalize=False)
    stop(lab, "a", end - HOUR + timedelta(milliseconds=1))
    build.closed(lab, "2026-04", finalize=False)
    # A millisecond is left: a line of nothing.
    assert [row[3:5] for row in lines(Invoice.objects.get())] == [("0.001", 0)]


# --- after the invoice


@pytest.fixture
def invoiced(lab):
    """April is invoiced: a run of two hours at 1.00, on the receivable."""
    build.price_book({"unit_price": "1"})
    run(lab, "a", APRIL, APRIL + 2 * HOUR)
    build.closed(lab, "2026-04")
    return lab


def test_later_usage_is_an_adjustment_that_names_the_line_it_corrects(invoiced):
    first = InvoiceLine.objects.get()
    build.usage(invoiced, APRIL, APRIL + HOUR / 2)
    build.usage(invoiced, MAY, MAY + HOUR)

    invoice = build.closed(invoiced, "2026-05", now=JUNE).invoice

    assert lines(invoice) == [
        ("usage", "2026-05", "h100", "3600", 100, 0),
        ("adjustment", "2026-04", "h100", "1800", 50, 0),
    ]
    assert InvoiceLine.objects.get(kind="adjustment").corrects == first
    assert amounts(invoice) == {"subtotal": 150, "total": 150, "due": 150}
    assert amounts(first.invoice) == {"subtotal": 200, "total": 200, "due": 200}
    records = usage.record_rows(list(usage.records_of(build.actor(invoiced))), "USD")
    assert {(row["period"], row["invoice"]) for row in records} == {
        ("2026-04", first.invoice.number),
        ("2026-05", invoice.number),
    }
    assert failing() == []


def test_an_invoice_looks_at_earlier_months_only_where_they_changed(invoiced):
    def looked_at():
        period = BillingPeriod.objects.of(invoiced.id).get(label="2026-05")
        document = compose_document(invoiced, period, now=NOW)
        return [key.period.label for key in document.composition.keys]

    build.usage(invoiced, MAY, MAY + HOUR)
    build.metered(invoiced)
    assert looked_at() == ["2026-05"]

    build.usage(invoiced, APRIL, APRIL + HOUR / 2)
    build.metered(invoiced)
    assert looked_at() == ["2026-04", "2026-05"]
    assert failing() == []


def test_a_second_adjustment_is_the_difference_to_all_that_was_invoiced(invoiced):
    build.usage(invoiced, APRIL, APRIL + HOUR / 2)
    build.closed(invoiced, "2026-05", now=JUNE)
    build.usage(invoiced, APRIL, APRIL + HOUR / 4)
    build.metered(invoiced, JUNE + HOUR)

    invoice = build.closed(invoiced, "2026-06", now=JULY).invoice

    assert lines(invoice) == [("adjustment", "2026-04", "h100", "900", 25, 0)]
    assert InvoiceLine.objects.filter(corrects=InvoiceLine.objects.get(kind="usage")).count() == 2
    assert failing() == []


def test_a_correction_is_split_by_what_the_cut_split_before_it_names(lab, monkeypatch):
    monkeypatch.setattr("apps.invoices.selectors.SPLIT_ROWS_MAX", 1)
    build.price_book({"unit_price": "1"})
    for slug, hours in (("small", 1), ("big", 2)):
        build.project(lab, slug)
        build.usage(lab, APRIL, APRIL + hours * HOUR, project=slug)
    first = build.closed(lab, "2026-04").invoice
    assert [split["project"] for split in first.lines.get().splits] == ["big"]

    # What was cut off is now the largest: that it is in sight is no usage that came late.
    build.usage(lab, APRIL, APRIL + 2 * HOUR, project="small")
    build.usage(lab, APRIL, APRIL + HOUR / 2, project="big")
    line = build.closed(lab, "2026-05", now=JUNE).invoice.lines.get()

    assert line.amount_minor == 250
    assert [(split["project"], split["amount"]) for split in line.splits] == [("big", "0.500000")]


def test_a_key_that_was_never_invoiced_gets_an_ordinary_line(invoiced):
    build.usage(invoiced, APRIL, APRIL + HOUR, sku="late")

    invoice = build.closed(invoiced, "2026-05", now=JUNE).invoice

    assert lines(invoice) == [("usage", "2026-04", "late", "3600", 100, 0)]


def test_less_usage_is_a_negative_adjustment_and_paid_credit(invoiced):
    stop(invoiced, "a", APRIL + HOUR)
    build.metered(invoiced)
    build.usage(invoiced, MAY, MAY + 3 * HOUR)

    invoice = build.closed(invoiced, "2026-05", now=JUNE).invoice

    assert lines(invoice) == [
        ("usage", "2026-05", "h100", "10800", 300, 0),
        ("adjustment", "2026-04", "h100", "-3600", -100, 0),
    ]
    # The credit of the hour that came back paid one of the three.
    assert amounts(invoice) == {"subtotal": 200, "total": 200, "due": 200}
    assert books(invoiced) == {"receivable": -4_000_000, "revenue": 4_000_000}
    assert failing() == []


def test_a_net_below_zero_is_a_credit_note_of_the_period(invoiced):
    stop(invoiced, "a", APRIL + HOUR)
    build.usage(invoiced, MAY, MAY + HOUR / 2)

    may = build.closed(invoiced, "2026-05", now=JUNE).invoice

    assert (may.number, may.kind, may.state) == ("CN-2026-000001", "adjustment_note", "issued")
    assert lines(may) == [
        ("usage", "2026-05", "h100", "1800", 50, 0),
        ("adjustment", "2026-04", "h100", "-3600", -100, 0),
    ]
    assert amounts(may) == {"subtotal": -50, "total": -50}
    # The hour that came back is paid credit; half of it paid the half hour of May.
    assert books(invoiced) == {"paid_lot": 500_000, "receivable": -2_000_000, "revenue": 1_500_000}
    assert PeriodClose.objects.filter(invoice=may).exists()
    assert build.closed(invoiced, "2026-05", now=JUNE).invoice == may
    build.usage(invoiced, JUNE, JUNE + 2 * HOUR, now=JULY)

    june = build.closed(invoiced, "2026-06", now=JULY).invoice

    assert lines(june) == [("usage", "2026-06", "h100", "7200", 200, 0)]
    assert amounts(june) == {"subtotal": 200, "total": 200, "due": 150}
    assert failing() == []


def test_corrections_alone_are_a_credit_note(invoiced):
    stop(invoiced, "a", APRIL + HOUR)

    note = build.closed(invoiced, "2026-05", now=JUNE).invoice

    assert lines(note) == [("adjustment", "2026-04", "h100", "-3600", -100, 0)]
    assert (note.state, amounts(note)) == ("issued", {"subtotal": -100, "total": -100})
    assert failing() == []


def test_added_prices_bill_usage_of_a_closed_month_on_the_next_invoice(lab):
    version = build.price_book({"unit_price": "1", "sku": "h100"})
    build.usage(lab, APRIL, APRIL + HOUR, sku="b200")
    assert build.closed(lab, "2026-04").invoice is None
    Sku.objects.create(code="b200")
    pricing.add_price_to_published(
        actor=build.actor(),
        version=version,
        row=PriceRow(meter="gpu_hours", sku="b200", unit_price=Decimal(4)),
        now=NOW,
    )

    invoice = build.closed(lab, "2026-05", now=JUNE).invoice

    assert lines(invoice) == [("usage", "2026-04", "b200", "3600", 400, 0)]
    assert failing() == []


def test_a_month_without_usage_still_carries_what_an_earlier_one_left(invoiced):
    build.usage(invoiced, APRIL, APRIL + HOUR)
    build.metered(invoiced, JUNE)

    closed = invoices.close_due_periods(organization_id=invoiced.id, now=JUNE + timedelta(hours=72))

    assert [(row.period.label, row.invoice.state) for row in closed] == [("2026-05", "open")]
    assert lines(closed[0].invoice) == [("adjustment", "2026-04", "h100", "3600", 100, 0)]
    assert failing() == []


def test_a_draft_is_void_once_nothing_is_left_on_it(lab):
    build.price_book({"unit_price": "1"})
    end = datetime(2026, 5, 1, tzinfo=UTC)
    run(lab, "a", end - 2 * HOUR, end + HOUR)
    build.metered(lab, end + HOUR)
    build.closed(lab, "2026-04")
    draft = build.closed(lab, "2026-05", finalize=False, now=JUNE).invoice
    assert draft.state == "draft"

    stop(lab, "a", end)
    assert build.closed(lab, "2026-05", finalize=False, now=JUNE).invoice is None
    build.usage(lab, MAY, MAY + HOUR)
    final = build.closed(lab, "2026-05", now=JUNE).invoice

    draft.refresh_from_db()
    assert (draft.state, draft.number, amounts(draft), lines(draft)) == ("void", None, {}, [])
    assert (final.number, lines(final)) == ("INV-2026-000002", [("usage", "2026-05", "h100", "3600", 100, 0)])
    assert failing() == []
