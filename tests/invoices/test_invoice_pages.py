"""The pages of invoices, and the way from a line down to the events."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.core import mail

from apps.audit.models import AuditEvent
from apps.core.permissions import Role
from apps.invoices import explain, selectors
from apps.invoices import services as invoices
from apps.invoices.models import Invoice, InvoiceLine
from apps.invoices.wording import state_of
from apps.limits import services as limits
from apps.notifications.models import Mail
from tests import build
from tests.billing.runs import run, stop

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
NOW = datetime(2026, 5, 15, 12, 30, tzinfo=UTC)


@pytest.fixture
def lab(db):
    """A customer who used 2 GPU-hours of 2.49 on 10 April, invoiced, and owes 4.98."""
    with time_machine.travel(NOW, tick=False):
        organization = build.organization("lab", name="Bright Lab", now=MARCH)
        build.price_book({"unit_price": "2.49"}, name="Standard")
        start = datetime(2026, 4, 10, 8, tzinfo=UTC)
        build.usage(organization, start, start + timedelta(hours=2), subject="gpu-box-1", now=NOW)
        build.metered(organization, until=NOW)
        build.closed(organization, "2026-03", now=NOW)
        build.closed(organization, "2026-04", now=NOW)
        yield organization


@pytest.fixture
def client(lab):
    return build.browser(build.member(lab, Role.DEVELOPER))


def words(page):
    content = page.text.split("<main")[1].split("</main>")[0]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", content)))


def test_an_invoice_is_listed_and_says_how_it_stands(client):
    invoice = Invoice.objects.get()

    listed, shown = client.get("/app/lab/invoices"), words(client.get(f"/app/lab/invoices/{invoice.pk}"))

    assert f'href="/app/lab/invoices/{invoice.pk}"' in listed.text
    assert f"{invoice.number} 2026-04" in words(listed)
    assert f"Invoice {invoice.number}" in shown
    assert "Usage from 1 April 2026 up to 1 May 2026." in shown
    assert "h100 eu · GPU-hours 2026-04 · 2.00 × 2.49 2026-04 2.00 2.49 4.98" in shown


def test_an_open_invoice_is_paid_from_its_page_by_who_may(client, lab):
    invoice = Invoice.objects.get()
    path = f"/app/lab/invoices/{invoice.pk}"
    payer = build.browser(build.member(lab, Role.BILLING))

    assert f'href="{path}/pay"' in payer.get(path).text
    assert payer.get(f"{path}/pay").status_code == 200
    assert f'href="{path}/pay"' not in client.get(path).text
    invoices.cancel_invoice(actor=build.actor(), invoice=invoice, reason="tests", now=NOW)
    assert f'href="{path}/pay"' not in payer.get(path).text


def test_a_line_leads_down_to_the_events(client):
    line = InvoiceLine.objects.get()
    path = f"/app/lab/invoices/{line.invoice_id}/lines/{line.pk}"

    page = client.get(path)
    hours = re.findall(r'href="\?hour=([^"]+)"', page.text)
    hour = client.get(f"{path}?hour={hours[0]}")

    assert "2.00 GPU-hours 7,200 GPU-seconds, divided by 3,600" in words(page)
    assert "Standard, version 1" in words(page)
    assert "10 Apr, 08:00 3,600 2.490000 2.490000 10 Apr, 09:00 3,600 2.490000 4.980000" in words(page)
    assert len(hours) == 2
    shown = words(hour)
    assert "gpu-box-1" in shown
    assert "10 Apr, 08:00:00 10 Apr, 09:00:00 1" in shown
    assert "usage.recorded" in shown
    assert "1 event behind it" in shown


TIERS = [
    {"up_to": "2", "unit_price": "3.33", "flat_fee": "1"},
    {"up_to": None, "unit_price": "2.5", "flat_fee": "0"},
]


def test_a_correction_of_tiered_usage_says_what_was_invoiced_before_and_how_it_adds_up(db):
    lab = build.organization("lab", now=datetime(2026, 4, 1, tzinfo=UTC))
    build.price_book({"sku": "tiered", "model": "graduated", "tiers": TIERS}, name="Tiers")
    april, may = datetime(2026, 4, 10, 8, tzinfo=UTC), datetime(2026, 5, 2, 8, tzinfo=UTC)
    run(lab, "a", april, april + timedelta(hours=4), sku="tiered")
    build.closed(lab, "2026-04", now=NOW)
    stop(lab, "a", april + timedelta(hours=1))
    build.usage(lab, may, may + timedelta(hours=3), sku="tiered")
    invoice = build.closed(lab, "2026-05", now=datetime(2026, 6, 5, tzinfo=UTC)).invoice
    usage, correction = invoice.lines.order_by("position")
    assert invoice.kind == "invoice"

    api = build.client(build.api_key(lab)).get(f"/api/v1/billing/invoices/{invoice.pk}/explain").json()
    page = build.browser(build.member(lab, Role.DEVELOPER)).get(
        f"/app/lab/invoices/{invoice.pk}/lines/{correction.pk}"
    )

    # 4 hours: 2 × 3.33 + 1 + 2 × 2.50 = 12.66; 1 hour: 3.33 + 1 = 4.33; 3 hours: 2 × 3.33 + 1 + 2.50 = 10.16.
    said = {line["id"]: line["arithmetic"] for line in api["lines"]}
    assert [(tier["quantity"], tier["amount"]) for tier in said[str(usage.pk)]["tiers"]] == [
        ("2.000000000000", "7.660000000000"),
        ("1.000000000000", "2.500000000000"),
    ]
    assert said[str(usage.pk)]["exact"] == "10.160000000000"
    assert said[str(correction.pk)]["correction"] == {
        "number": "INV-2026-000001",
        "position": 1,
        "invoiced_quantity": "14400",
        "invoiced_amount": "12.66",
        "new_quantity": "3600",
        "new_exact": "4.330000000000",
        "new_amount": "4.33",
    }
    shown = words(page)
    assert "Line 1 of INV-2026-000001, usage of 2026-04." in shown
    assert "Usage as it is known now, 4.33 rounded once 3,600 4.33" in shown
    assert "Invoiced before 14,400 −12.66 This line −10,800 −8.33" in shown
    assert "2 1.00 3.33 1.00 4.33" in shown


def test_an_invoice_is_explained_by_the_same_queries_however_many_lines_it_has(db, django_assert_num_queries):
    lab = build.organization("lab", now=datetime(2026, 4, 1, tzinfo=UTC))
    regions = ("eu", "us", "asia")
    build.price_book(*[{"unit_price": "2", "region": region} for region in regions])
    april, may = datetime(2026, 4, 10, 8, tzinfo=UTC), datetime(2026, 5, 2, 8, tzinfo=UTC)
    for region in regions:
        build.usage(lab, april, april + timedelta(hours=1), region=region)
    build.closed(lab, "2026-04", now=NOW)
    for start in (april + timedelta(hours=1), may):
        for region in regions:
            build.usage(lab, start, start + timedelta(hours=2), region=region)
    made = build.closed(lab, "2026-05", now=datetime(2026, 6, 5, tzinfo=UTC)).invoice
    invoice = selectors.invoice_by_id(build.actor(lab), made.pk)

    # Its lines, their prices, the units of meters, and what was invoiced before of those that correct.
    with django_assert_num_queries(4):
        lines = explain.explain(invoice, explain.Wanted())["lines"]

    assert [line["kind"] for line in lines].count("adjustment") == 3
    assert len(lines) == 6


def test_a_line_of_a_credit_note_is_explained_as_one_of_an_invoice(client, lab):
    note = invoices.credit_invoice(
        actor=build.actor(), invoice=Invoice.objects.get(), reason="A broken node", amount_minor=100, now=NOW
    )
    line = note.lines.get()
    api = build.client(build.api_key(lab))

    page = client.get(f"/app/lab/invoices/{note.pk}/lines/{line.pk}")
    said = api.get(f"/api/v1/billing/credit-notes/{note.pk}/explain").json()

    assert f"/app/lab/invoices/{note.pk}/lines/{line.pk}" in client.get(f"/app/lab/invoices/{note.pk}").text
    assert "Amount −1.00 USD" in words(page)
    assert [(row["kind"], row["amount"], row["arithmetic"]["correction"]) for row in said["lines"]] == [
        ("credit", "-1.00", None)
    ]
    assert api.get(f"/api/v1/billing/invoices/{note.pk}/explain").status_code == 404


def test_a_final_invoice_is_downloaded(client):
    invoice = Invoice.objects.get()
    path = f"/app/lab/invoices/{invoice.pk}/file"

    assert f'href="{path}/pdf"' in client.get(f"/app/lab/invoices/{invoice.pk}").text
    file = client.get(f"{path}/csv")
    assert file.headers["Content-Disposition"] == f'attachment; filename="{invoice.number}.csv"'
    assert "h100,eu,2" in file.text
    assert client.get(f"{path}/pdf").content.startswith(b"%PDF-")
    assert client.get(f"{path}/exe").status_code == 404


def test_a_credit_note_opens_where_its_invoice_does(client, lab):
    invoice = Invoice.objects.get()
    note = invoices.credit_invoice(
        actor=build.actor(), invoice=invoice, reason="A broken node", amount_minor=100, now=NOW
    )
    path = f"/app/lab/invoices/{note.pk}"

    shown = words(client.get(path))

    assert f"Credit note {note.number}" in shown
    assert f"Gives back part of invoice {invoice.number}." in shown
    assert "Gives you 1.00 USD" in shown
    assert "Reason: A broken node" in shown
    for page in ("/app/lab/invoices", f"/app/lab/invoices/{invoice.pk}"):
        assert f'href="{path}"' in client.get(page).text
    assert "Credited or written off −1.00" in words(client.get(f"/app/lab/invoices/{invoice.pk}"))
    assert client.get(f"{path}/file/pdf").content.startswith(b"%PDF-")
    assert f'filename="{note.number}.csv"' in client.get(f"{path}/file/csv").headers["Content-Disposition"]


def test_the_sums_of_an_invoice_that_was_written_off_add_up(client, lab):
    invoice = Invoice.objects.get()
    invoices.write_off(actor=build.actor(), invoice=invoice, reason="Insolvent", now=NOW)

    shown = words(client.get(f"/app/lab/invoices/{invoice.pk}"))

    assert "Total 4.98 Paid 0.00 Credited or written off −4.98 Open 0.00" in shown


def test_an_invoice_is_sent_to_several_addresses(lab, run_jobs):
    owner = build.browser(build.member(lab, Role.OWNER))
    build.billing_profile(lab, billing_emails=["books@lab.example"])
    invoice = Invoice.objects.get()
    path = f"/app/lab/invoices/{invoice.pk}/send"

    assert "books@lab.example" in owner.get(path).text
    refused = owner.post(path, {"to": "books@lab.example\nnobody"})
    assert refused.status_code == 422
    assert "nobody is not an e-mail address." in refused.text
    many = owner.post(path, {"to": " ".join(f"person-{number}@lab.example" for number in range(11))})
    assert many.status_code == 422
    assert "at most 10 addresses" in many.text
    run_jobs()
    assert mail.outbox == []

    sent = owner.post(path, {"to": "a@lab.example, b@lab.example\na@lab.example"}, follow=True)

    assert f"{invoice.number} is on its way to a@lab.example, b@lab.example." in sent.text
    run_jobs()
    assert sorted(address for message in mail.outbox for address in message.to) == [
        "a@lab.example",
        "b@lab.example",
    ]
    assert AuditEvent.objects.get(action="invoice.sent_again").diff == {
        "to": ["a@lab.example", "b@lab.example"]
    }


def test_twenty_mails_of_an_organization_go_out_at_once_and_no_more(lab, limited, monkeypatch):
    # What grows back while a slow machine answers is less than a mail.
    monkeypatch.setattr(limits, "MAILS", replace(limits.MAILS, per_minute=1))
    owner = build.browser(build.member(lab, Role.OWNER))
    path = f"/app/lab/invoices/{Invoice.objects.get().pk}/send"
    tens = [{"to": " ".join(f"p{ten}{number}@lab.example" for number in range(10))} for ten in range(3)]

    first, second, third = (owner.post(path, ten) for ten in tens)

    assert (first.status_code, second.status_code, third.status_code) == (302, 302, 422)
    assert "Wait a little before the next one." in third.text
    assert Mail.objects.filter(template="invoices/mail/document").count() == 20


def test_hours_of_no_line_and_lines_of_no_invoice_do_not_exist(client, lab):
    line = InvoiceLine.objects.get()
    path = f"/app/lab/invoices/{line.invoice_id}/lines/{line.pk}"

    assert client.get(f"{path}?hour=2026-04-10T23:00:00Z").status_code == 404
    assert client.get(f"{path}?hour=yesterday").status_code == 400
    other = build.browser(build.member(build.organization("other"), Role.OWNER))
    for foreign in (f"/app/other/invoices/{line.invoice_id}", path.replace("lab", "other")):
        assert other.get(foreign).status_code == 404


def test_no_invoices_say_when_the_first_comes(lab):
    client = build.browser(build.member(build.organization("fresh"), Role.VIEWER))

    assert "No invoices yet" in client.get("/app/fresh/invoices").text


@pytest.mark.parametrize(
    ("state", "due_in", "word", "tone"),
    [
        ("draft", None, "draft", ""),
        ("paid", timedelta(days=-1), "paid", "ok"),
        ("open", None, "open", "info"),
        ("open", timedelta(days=14), "due in 14 days", "info"),
        ("open", timedelta(days=1, hours=3), "due in 1 day", "caution"),
        ("open", timedelta(hours=3), "due today", "caution"),
        ("open", timedelta(0), "overdue", "danger"),
        ("uncollectible", None, "written off", "danger"),
        ("cancelled", None, "cancelled", ""),
    ],
)
def test_states_are_words(state, due_in, word, tone):
    invoice = Invoice(state=state, due_at=None if due_in is None else NOW + due_in)

    found = state_of(invoice, now=NOW)

    assert (str(found.word), found.tone) == (word, tone)


def test_the_list_is_narrowed_and_sorted_by_its_address(lab, client):
    invoice = Invoice.objects.get()

    def listed(query):
        page = client.get(f"/app/lab/invoices?{query}")
        assert page.status_code == 200
        return [row["id"] for row in page.context["invoices"]]

    for query in (
        "state=open",
        "first=2026-04&last=2026-04",
        "sort=-amount",
        "sort=month&state=open",
        "state=",
    ):
        assert listed(query) == [invoice.pk], query
    for query in (
        "state=paid",
        "state=overdue",
        "last=2026-03",
        "first=2026-05",
        "first=April",
        "state=nonsense",
    ):
        assert listed(query) == [], query
    assert "No invoice is like that" in words(client.get("/app/lab/invoices?state=paid"))
    with time_machine.travel(invoice.due_at, tick=False):
        client = build.browser(build.member(lab, Role.OWNER))  # The session of before has ended by then.
        assert listed("state=overdue") == [invoice.pk]
