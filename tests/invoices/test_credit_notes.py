"""Credit notes by staff, cancellations and write-offs: what they give, what they never exceed, what the books say."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from django.db import connection

from apps.audit.models import AuditEvent
from apps.billing.models import Pot
from apps.core.errors import ValidationFailed
from apps.invoices import services as invoices
from apps.invoices.documents import einvoice
from apps.invoices.documents.content import content_of
from apps.invoices.documents.pdf import pdf_of
from apps.invoices.explain import Wanted, explain
from apps.invoices.models import Invoice, InvoiceLine, InvoiceTax
from apps.invoices.services import CreditExceedsInvoice, NotCancellable, NotCreditable
from apps.outbox.models import OutboxEvent
from tests import build
from tests.billing.runs import HOUR, run, stop
from tests.build import NOW
from tests.invoices.conftest import APRIL
from tests.invoices.test_documents import broken_rules, printed
from tests.money import books, failing, lines, lots

JUNE = datetime(2026, 6, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 3, tzinfo=UTC)


@pytest.fixture
def lab(db):
    build.seller()
    lab = build.organization("lab", currency="EUR", now=APRIL)
    build.billing_profile(lab, legal_name="Lab GmbH", country="DE")
    build.price_book({"unit_price": "10"}, {"sku": "a100", "unit_price": "3.33"}, currency="EUR")
    return lab


@pytest.fixture
def invoice(lab):
    """10.00 and 3.33, at 19 %: 15.86, nothing of it paid."""
    build.usage(lab, APRIL, APRIL + HOUR)
    build.usage(lab, APRIL, APRIL + HOUR, sku="a100")
    return build.closed(lab, "2026-04").invoice


def test_the_billing_state_follows_an_invoice_and_what_undoes_it_at_once(lab):
    def state():
        lab.refresh_from_db()
        return lab.billing_state

    build.credit(lab, "11", now=APRIL)
    build.usage(lab, APRIL, APRIL + HOUR)
    build.metered(lab)
    assert state() == "healthy"

    invoice = build.closed(lab, "2026-04").invoice  # 1.00 of credit is left; the tax is 1.90.
    assert state() == "depleted"

    credit(invoice)
    assert state() == "healthy"


def credit(invoice, **what):
    return invoices.credit_invoice(
        actor=build.actor(), invoice=invoice, reason="An outage of our side", now=NOW, **what
    )


def cancel(invoice, now=NOW):
    return invoices.cancel_invoice(actor=build.actor(), invoice=invoice, reason="Wrong address", now=now)


def amounts(document):
    return tuple(
        getattr(document, f"{name}_minor") for name in ("subtotal", "discount", "tax", "total", "due")
    )


def state(invoice):
    return Invoice.objects.get(pk=invoice.pk).state


def test_a_part_by_amount_reduces_what_is_owed(lab, invoice):
    note = credit(invoice, amount_minor=500)

    assert (note.number, note.kind, note.state) == ("CN-2026-000001", "credit_note", "issued")
    # 5.00 over 3.96 and 11.90 is 1.25 and 3.75; the tax in them is 5.00 × 2.53 / 15.86 = 0.80.
    assert amounts(note) == (-420, 0, -80, -500, 0)
    assert lines(note) == [
        ("credit", "2026-04", "a100", "0", -105, 0),
        ("credit", "2026-04", "h100", "0", -315, 0),
    ]
    assert books(lab) == {"receivable": -10_860_000, "revenue": 9_130_000, "tax_payable": 1_730_000}
    assert state(invoice) == "open"
    event = AuditEvent.objects.get(action="invoice.credited")
    assert (event.reason, event.diff["credit_note"]) == ("An outage of our side", "CN-2026-000001")
    assert (event.diff["amount"], event.diff["currency"]) == ("5.00", "EUR")
    assert failing() == []


def test_by_line_takes_the_tax_of_the_line(lab, invoice):
    line = InvoiceLine.objects.get(invoice=invoice, sku="a100")

    note = credit(invoice, lines_minor={line.id: 333})

    assert lines(note) == [("credit", "2026-04", "a100", "-3600", -333, 0)]
    assert amounts(note) == (-333, 0, -63, -396, 0)
    assert failing() == []


def test_all_that_is_left_settles_the_invoice(lab, invoice):
    credit(invoice, amount_minor=500)

    note = credit(invoice)

    assert (note.total_minor, state(invoice)) == (-1086, "paid")
    assert books(lab) == {}
    assert failing() == []
    with pytest.raises(CreditExceedsInvoice):
        credit(invoice)
    assert Invoice.objects.credit_notes().count() == 2


def test_a_paid_invoice_gives_credit(lab, invoice):
    build.credit(lab, "15.86")

    credit(invoice, amount_minor=1000)

    assert lots(lab) == [("paid", 8_400_000), ("paid", 1_600_000)]
    assert state(invoice) == "paid"
    assert failing() == []


def test_the_promotional_part_goes_to_expense(lab):
    build.credit(lab, "4", pot=Pot.PROMO, now=APRIL)
    build.usage(lab, APRIL, APRIL + HOUR)
    invoice = build.closed(lab, "2026-04").invoice
    assert amounts(invoice) == (1000, 400, 114, 714, 714)

    note = credit(invoice, amount_minor=357)

    # Half: 3.00 of the net 6.00, with 2.00 of the discount beside it, and 0.57 of the tax.
    assert amounts(note) == (-500, -200, -57, -357, 0)
    assert books(lab) == {
        "promo_expense": -2_000_000,
        "receivable": -3_570_000,
        "revenue": 5_000_000,
        "tax_payable": 570_000,
    }
    assert failing() == []


@pytest.mark.parametrize("amount", [0, -1, 1587])
def test_more_than_the_invoice_or_nothing_is_refused_and_writes_nothing(lab, invoice, amount):
    before = books(lab)

    with pytest.raises(CreditExceedsInvoice) as refused:
        credit(invoice, amount_minor=amount)

    assert refused.value.details == {"left": 1586}
    assert books(lab) == before
    assert not Invoice.objects.credit_notes().exists()


def test_more_than_a_line_has_left_is_refused(lab, invoice):
    line = InvoiceLine.objects.get(invoice=invoice, sku="a100")
    credit(invoice, lines_minor={line.id: 300})

    for nets in ({line.id: 34}, {}, {line.id: 0}, {build.user().pk: 1}):
        with pytest.raises(CreditExceedsInvoice):
            credit(invoice, lines_minor=nets)


def test_drafts_notes_and_cancelled_invoices_are_not_credited(lab, invoice):
    note = credit(invoice, amount_minor=100)
    build.usage(lab, MAY, MAY + HOUR)
    draft = build.closed(lab, "2026-05", finalize=False, now=JUNE).invoice

    for document in (note, draft):
        with pytest.raises(NotCreditable):
            credit(document)
    with pytest.raises(ValidationFailed):
        invoices.credit_invoice(actor=build.actor(), invoice=invoice, reason=" ", now=NOW)


def test_a_waiver_changes_nothing_about_later_corrections(lab):
    run(lab, "a", APRIL, APRIL + 4 * HOUR)
    invoice = build.closed(lab, "2026-04").invoice
    credit(invoice, amount_minor=2380)
    stop(lab, "a", APRIL + 3 * HOUR)
    build.usage(lab, MAY, MAY + 5 * HOUR)

    may = build.closed(lab, "2026-05", now=JUNE).invoice

    assert lines(may)[1] == ("adjustment", "2026-04", "h100", "-3600", -1000, 0)
    assert failing() == []


def test_what_a_later_note_gave_back_is_not_left(lab):
    run(lab, "a", APRIL, APRIL + 2 * HOUR)
    invoice = build.closed(lab, "2026-04").invoice
    stop(lab, "a", APRIL + HOUR)
    may = build.closed(lab, "2026-05", now=JUNE).invoice
    assert amounts(may) == (-1000, 0, -190, -1190, 0)
    line = invoice.lines.get()
    for what in ({"lines_minor": {line.id: 1001}}, {"amount_minor": 1191}):
        with pytest.raises(CreditExceedsInvoice) as refused:
            credit(invoice, **what)
        assert refused.value.details == {"left": 1190}
    with pytest.raises(NotCancellable, match="Write a credit note about what is left"):
        cancel(invoice, now=JUNE)

    credit(invoice, lines_minor={line.id: 400})
    note = credit(invoice)

    assert amounts(note) == (-600, 0, -114, -714, 0)
    # The usage that came back is credit, which does not pay an open invoice by itself.
    assert books(lab) == {"paid_lot": 10_000_000, "receivable": -10_000_000}
    assert failing() == []


def test_what_a_later_invoice_took_off_is_not_left_of_either(lab):
    run(lab, "a", APRIL, APRIL + 2 * HOUR)
    run(lab, "b", APRIL, APRIL + HOUR)
    invoice = build.closed(lab, "2026-04").invoice
    stop(lab, "a", APRIL + HOUR)
    build.usage(lab, MAY, MAY + 5 * HOUR)
    may = build.closed(lab, "2026-05", now=JUNE).invoice
    assert [line[4] for line in lines(may)] == [5000, -1000]

    assert (credit(invoice).total_minor, credit(may).total_minor) == (-2380, -4760)

    for document in (invoice, may):
        with pytest.raises(CreditExceedsInvoice):
            credit(document)
    assert failing() == []


@pytest.mark.parametrize("seed", range(4))
def test_random_waivers_never_exceed_and_the_books_always_agree(lab, seed):
    chance = random.Random(seed)  # noqa: S311  To be repeated, not to be secret.
    build.credit(lab, "3.3333", pot=Pot.PROMO, now=APRIL)
    if seed % 2:
        build.credit(lab, f"{chance.randint(0, 30)}.17", now=APRIL)
    for number in range(4):
        build.usage(lab, APRIL, APRIL + chance.randint(7, 500) * HOUR / 60, sku=f"sku-{number}")
    invoice = build.closed(lab, "2026-04").invoice
    left = invoice.total_minor
    while left:
        amount = chance.randint(1, left)
        note = credit(invoice, amount_minor=amount)
        assert note.total_minor == -amount
        if left in (invoice.total_minor, amount):  # After the first note and after the last.
            assert failing() == []
        left -= amount
        with pytest.raises(CreditExceedsInvoice):
            credit(invoice, amount_minor=left + 1)
    assert sum(InvoiceTax.objects.values_list("tax_minor", flat=True)) == 0


def test_a_note_is_printed_and_valid_and_names_what_it_corrects(lab, invoice):
    for what in ({"amount_minor": 500}, {}):
        said = content_of(Invoice.objects.get(pk=credit(invoice, **what).pk))
        assert broken_rules(einvoice.xml_of(said)) == []
        text = printed(pdf_of(said, None))
        for words in ("Credit note", "INV-2026-000001", "Why", "An outage of our side", "credited"):
            assert words in text
        assert "How to pay" not in text


# --- cancellation


def test_a_cancelled_invoice_is_invoiced_anew_with_what_is_right_now(lab, invoice):
    note = cancel(invoice)

    assert (note.number, note.kind, state(invoice)) == ("CN-2026-000001", "cancellation", "cancelled")
    assert amounts(note) == (-1333, 0, -253, -1586, 0)
    assert books(lab) == {"receivable": -13_330_000, "revenue": 13_330_000}
    assert failing() == []

    build.billing_profile(lab, country="FR", vat_id="FR40303265045")
    may = build.closed(lab, "2026-05", now=JUNE).invoice

    assert lines(may) == [
        ("usage", "2026-04", "a100", "3600", 333, 0),
        ("usage", "2026-04", "h100", "3600", 1000, 0),
    ]
    assert amounts(may) == (1333, 0, 0, 1333, 1333)
    assert failing() == []


def test_documents_that_contradict_one_another_are_shown_all_the_same(invoice):
    note = cancel(invoice)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            "UPDATE invoices_invoiceline SET quantity = quantity - 1 WHERE invoice_id = %s", [note.id]
        )
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")

    told = explain(note, Wanted())["lines"]

    assert [line["arithmetic"]["correction"] for line in told] == [None, None]


def test_money_paid_on_a_cancelled_invoice_is_used_by_the_next(lab, invoice):
    build.credit(lab, "10")
    cancel(invoice)

    # 10.00 ahead of 13.33.
    assert books(lab)["receivable"] == -3_330_000
    may = build.closed(lab, "2026-05", now=JUNE).invoice
    assert amounts(may) == (1333, 0, 253, 1586, 586)
    assert failing() == []


def test_what_was_paid_beyond_the_usage_is_credit_again(lab, invoice):
    build.credit(lab, "15.86")
    cancel(invoice)

    assert books(lab) == {"bank": -15_860_000, "paid_lot": 2_530_000, "revenue": 13_330_000}
    assert failing() == []
    may = build.closed(lab, "2026-05", now=JUNE).invoice
    assert (amounts(may), may.state) == ((1333, 0, 253, 1586, 0), "paid")
    assert books(lab) == {"bank": -15_860_000, "revenue": 13_330_000, "tax_payable": 2_530_000}
    assert failing() == []


def test_tax_that_credit_paid_is_credit_again(lab):
    build.credit(lab, "20", now=APRIL)
    build.usage(lab, APRIL, APRIL + HOUR)
    invoice = build.closed(lab, "2026-04").invoice
    assert lots(lab) == [("paid", 8_100_000)]

    cancel(invoice)

    assert lots(lab) == [("paid", 8_100_000), ("paid", 1_900_000)]
    assert failing() == []


def test_usage_that_came_back_since_is_taken_from_its_credit(lab):
    run(lab, "a", APRIL, APRIL + 2 * HOUR)
    invoice = build.closed(lab, "2026-04").invoice
    stop(lab, "a", APRIL + HOUR)
    build.metered(lab)
    assert lots(lab) == [("paid", 10_000_000)]

    cancel(invoice)

    assert books(lab) == {"receivable": -10_000_000, "revenue": 10_000_000}
    assert failing() == []
    may = build.closed(lab, "2026-05", now=JUNE).invoice
    assert amounts(may) == (1000, 0, 190, 1190, 1190)
    assert failing() == []


def test_credit_that_is_spent_already_stops_a_cancellation(lab):
    run(lab, "a", APRIL, APRIL + 2 * HOUR)
    invoice = build.closed(lab, "2026-04").invoice
    stop(lab, "a", APRIL + HOUR)
    build.metered(lab)
    build.usage(lab, MAY, MAY + HOUR)
    build.metered(lab)
    before = books(lab)

    with pytest.raises(NotCancellable):
        cancel(invoice)

    assert (books(lab), state(invoice)) == (before, "open")
    assert failing() == []


def test_an_invoice_that_a_later_one_corrects_is_cancelled_after_it(lab):
    run(lab, "a", APRIL, APRIL + 2 * HOUR)
    april = build.closed(lab, "2026-04").invoice
    stop(lab, "a", APRIL + HOUR)
    build.usage(lab, MAY, MAY + 5 * HOUR)
    may = build.closed(lab, "2026-05", now=JUNE).invoice
    build.credit(lab, "200", now=JUNE)
    before = books(lab)

    with pytest.raises(NotCancellable, match="Cancel that first") as refused:
        cancel(april, now=JUNE)

    assert refused.value.details == {"corrected_by": "INV-2026-000002"}
    assert (books(lab), state(april)) == (before, "paid")
    for document in (may, april):
        note = cancel(document, now=JUNE)
        explain(note, Wanted())
        assert failing() == []
    june = build.closed(lab, "2026-06", now=JULY).invoice
    assert lines(june) == [
        ("usage", "2026-04", "h100", "3600", 1000, 0),
        ("usage", "2026-05", "h100", "18000", 5000, 0),
    ]
    assert failing() == []


def test_an_invoice_is_cancelled_once_and_never_after_a_waiver(lab, invoice):
    credit(invoice, amount_minor=1)
    with pytest.raises(NotCancellable):
        cancel(invoice)
    assert state(invoice) == "open"


def test_receipts_and_rounding_are_undone_too(lab):
    build.price_book({"sku": "odd", "unit_price": "0.3333"}, name="more", currency="EUR")
    build.usage(lab, APRIL, APRIL + HOUR / 3)
    build.metered(lab)
    build.credit(lab, "1.111111")
    invoice = build.closed(lab, "2026-04").invoice
    assert invoice.receipts_micros == 1_111_111

    cancel(invoice)

    assert books(lab) == {"bank": -1_111_111, "receivable": -2_222_222, "revenue": 3_333_333}
    assert failing() == []


# --- write-off


def test_a_write_off_takes_what_is_left_as_bad_debt(lab, invoice):
    build.credit(lab, "10")

    invoices.write_off(actor=build.actor(), invoice=invoice, reason="Insolvent", now=NOW)

    assert state(invoice) == "uncollectible"
    assert books(lab) == {
        "bad_debt": -5_860_000,
        "bank": -10_000_000,
        "revenue": 13_330_000,
        "tax_payable": 2_530_000,
    }
    assert failing() == []
    told = {"amount": "5.86", "currency": "EUR"}
    assert AuditEvent.objects.get(action="invoice.written_off").diff.items() >= told.items()
    assert OutboxEvent.objects.get(event_type="invoices.invoice_written_off").payload.items() >= told.items()
    with pytest.raises(NotCreditable):
        invoices.write_off(actor=build.actor(), invoice=invoice, reason="Again", now=NOW)


def test_the_api_tells_credited_apart_from_paid(lab, invoice):
    credit(invoice, amount_minor=500)
    build.credit(lab, "1")
    client = build.client(build.api_key(lab))

    row = client.get(f"/api/v1/billing/invoices/{invoice.id}").json()

    assert {name: row[name] for name in ("total", "due", "paid", "credited", "outstanding")} == {
        "total": "15.86", "due": "15.86", "paid": "1.00", "credited": "5.00", "outstanding": "9.86",
    }  # fmt: skip
    (note,) = client.get(f"/api/v1/billing/credit-notes?corrects={invoice.id}").json()["data"]
    assert (note["reason"], note["total"]) == ("An outage of our side", "5.00")
