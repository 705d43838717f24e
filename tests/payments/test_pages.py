"""The payments of a page: what became of each in words, in the order and of the kind that the address asks for."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from html import unescape
from urllib.parse import urlencode

import pytest
from django.urls import reverse
from django.utils import timezone

from apps.core.ids import uuid7
from apps.core.permissions import Role
from apps.payments import services as payments
from apps.payments.models import AutoTopUp, Dispute, Payment, PaymentKind, PaymentState, Refund
from tests import build
from tests.payments.paid import card, paid, refunded, top_up
from tests.portal import test_old_pages as old_pages
from tests.portal import test_undo as undoing
from tests.staff import staff_client
from tests.threads import at_once

pytestmark = pytest.mark.django_db


@pytest.fixture
def client(lab):
    return build.browser(build.member(lab, Role.OWNER))


def disputed(stripe, lab, amount, *, won=None):
    """Pay, let the holder dispute it, and end the dispute if it is said how."""
    payment = paid(stripe, lab, amount)
    charge = next(stripe.store.newest("charge"))["id"]
    dispute = stripe.act("dispute", charge=charge)
    payments.sync_dispute(dispute["id"], now=timezone.now())
    if won is not None:
        stripe.act("end-dispute", dispute=dispute["id"], won=won)
        payments.sync_dispute(dispute["id"], now=timezone.now())
    return payment


def shown(client, lab, **query):
    """Return amounts and states of the rows of the page."""
    page = client.get(f"/app/{lab.slug}/payments?{urlencode(query)}")
    assert page.status_code == 200
    return [(str(payment.amount), str(state.word)) for payment, state in page.context["payments"]]


def test_a_payment_that_was_taken_back_does_not_just_say_paid(stripe, lab, client):
    other = build.organization("other")
    paid(stripe, lab, "10.00")
    disputed(stripe, lab, "11.00")
    disputed(stripe, lab, "12.00", won=False)
    disputed(stripe, lab, "13.00", won=True)
    refunded(paid(stripe, lab, "14.00"))
    refunded(paid(stripe, lab, "15.00"), "5.00")
    top_up(lab, "16.00")
    disputed(stripe, other, "99.00")

    rows = shown(client, lab)

    assert rows == [
        ("16.00", "Waiting for payment"),
        ("15.00", "Paid, partly refunded"),
        ("14.00", "Refunded"),
        ("13.00", "Paid; the dispute was won"),
        ("12.00", "Lost in a dispute"),
        ("11.00", "Disputed: the bank has the money"),
        ("10.00", "Paid"),
    ]
    assert shown(client, lab, sort="amount") == rows[::-1]
    assert shown(client, lab, sort="-amount", state="disputed") == rows[3:6]
    assert shown(client, lab, state="refunded") == rows[1:3]
    assert shown(client, lab, state="waiting") == rows[:1]
    assert shown(client, lab, state="unpaid") == []
    later = timezone.now().date() + timedelta(days=2)
    assert shown(client, lab, first=later, sort="amount") == []
    assert "No payment is like that" in client.get("/app/lab/payments?state=unpaid").text
    for amount, word in rows[3:6:2]:
        payment = Payment.objects.get(organization=lab, amount_minor=int(amount.replace(".", "")))
        assert word.replace("'", "&#x27;") in client.get(f"/app/lab/payments/{payment.pk}").text


def test_pages_of_a_list_keep_order_and_filter_and_no_stranger_moves_them(stripe, lab, client, monkeypatch):
    monkeypatch.setattr("apps.payments.views.PAYMENTS_SHOWN", 3)
    for number in range(5):
        top_up(lab, f"{10 + number % 3}.00")
    strange = top_up(build.organization("other"), "11.00")

    page = client.get("/app/lab/payments?sort=-amount&state=waiting")
    (older,) = re.findall(r'href="(\?[^"]+)" rel="next">More', page.text)
    rest = client.get("/app/lab/payments" + older.replace("&amp;", "&"))

    rows = [payment for payment, _state in (*page.context["payments"], *rest.context["payments"])]
    expected = Payment.objects.filter(organization=lab).order_by("-amount_minor", "-pk")
    assert rows == list(expected)
    assert len(page.context["payments"]) == 3
    assert "sort=-amount" in older
    assert "state=waiting" in older
    moved = client.get(f"/app/lab/payments?sort=-amount&before={strange.pk}")
    assert [payment for payment, _state in moved.context["payments"]] == rows[:3]


def test_staff_read_disputes_in_words_and_amounts_as_money(stripe, lab):
    disputed(stripe, lab, "25.00")
    dispute = Dispute.objects.get()
    staff = staff_client()

    found = staff.get(reverse("admin:payments_dispute_changelist")).text
    row = staff.get(reverse("admin:payments_dispute_change", args=[dispute.pk])).text
    report = staff.get(reverse("admin:payments_reconciliation_report")).context
    counted = staff.get(report["disputes_url"]).context["cl"].result_count

    assert "To answer" in found
    assert "needs_response</" not in found
    assert "25.00 USD" in row
    assert "25000000" not in row
    assert counted == report["report"].open_disputes == 1


def test_whoever_comes_back_while_stripe_does_not_answer_sees_what_is_known(stripe, lab, client):
    payment = top_up(lab, "16.00")
    assert stripe.pay(payment.checkout_url)
    setup = payments.start_card_setup(actor=build.actor(lab), organization=lab, now=timezone.now())
    setup = payments.open_card_setup(setup_id=setup.id, now=timezone.now())
    assert stripe.pay(setup.checkout_url)
    stripe.act("fault", match="GET /v1/.*", action="error", status=500, when="before", times=100)

    page = client.get("/app/lab/payments/returned", follow=True)
    listed = client.get(f"/app/lab/payments?setup={setup.session_id}")

    assert (page.status_code, listed.status_code) == (200, 200)
    assert "Waiting for payment" in page.text
    assert "We keep asking" in page.text
    assert "Go on paying" not in page.text
    stripe.act("clear-faults")
    later = client.get(f"/app/lab/payments/{payment.id}").text
    assert "The credit is there." in later
    assert "We keep asking" not in later


# --- Automatic top-up ---

AUTO = "/app/lab/payments/auto-top-up"
AMOUNTS = {"threshold": "10", "amount": "25", "monthly_cap": "60"}


def of_rule():
    row = AutoTopUp.objects.get()
    return row.state, row.threshold_minor, row.amount_minor, row.monthly_cap_minor


def test_an_old_page_of_automatic_top_up_takes_back_nothing(stripe, lab, client):
    card(stripe, lab)
    client.post(AUTO, {"do": "on", **AMOUNTS})
    old = client.get(AUTO).text

    client.post(AUTO, old_pages.shown(old, **AMOUNTS | {"monthly_cap": "80"}), follow=True)
    done = client.post(AUTO, old_pages.shown(old, **AMOUNTS | {"amount": "30.00"}), follow=True)

    assert of_rule() == ("active", 1000, 3000, 8000)
    assert "The amounts of automatic top-up are saved." in done.text
    undoing.undo(client, done)
    assert of_rule() == ("active", 1000, 2500, 8000)


def test_saving_amounts_does_not_turn_on_what_was_turned_off_meanwhile(stripe, lab, client):
    card(stripe, lab)
    client.post(AUTO, {"do": "on", **AMOUNTS})
    old = client.get(AUTO).text
    assert ">Turn on<" not in old

    client.post(AUTO, {"do": "off"})
    AutoTopUp.objects.update(failures_in_a_row=2)
    done = client.post(AUTO, old_pages.shown(old, **AMOUNTS | {"amount": "30"}), follow=True)

    assert of_rule() == ("off", 1000, 3000, 6000)
    assert AutoTopUp.objects.get().failures_in_a_row == 2
    assert "The amounts are saved, but automatic top-up is not on." in unescape(done.text)


def test_automatic_top_up_is_turned_on_and_off_by_its_buttons_and_undo(stripe, lab, client):
    card(stripe, lab)
    assert 'name="do" value="on">Turn on<' in client.get(AUTO).text
    client.post(AUTO, {"do": "on", **AMOUNTS})
    assert of_rule() == ("active", 1000, 2500, 6000)

    off = client.post(AUTO, {"do": "off"}, follow=True)
    assert of_rule() == ("off", 1000, 2500, 6000)
    undoing.undo(client, off)
    assert of_rule() == ("active", 1000, 2500, 6000)


def test_the_cap_that_stays_limits_the_amount_that_changes(stripe, lab, client):
    card(stripe, lab)
    client.post(AUTO, {"do": "on", **AMOUNTS})
    old = client.get(AUTO).text

    refused = client.post(AUTO, old_pages.shown(old, **AMOUNTS | {"amount": "61"}))

    assert refused.status_code == 422
    assert "The monthly cap must allow at least one top-up." in refused.text
    assert of_rule() == ("active", 1000, 2500, 6000)


def test_amounts_that_a_page_says_are_there_but_are_not_are_asked_for(stripe, lab, client):
    card(stripe, lab)
    sent = {f"initial-{name}": value for name, value in AMOUNTS.items()} | AMOUNTS

    refused = client.post(AUTO, sent)

    assert refused.status_code == 422
    assert "Give all three amounts at first." in refused.text
    assert not AutoTopUp.objects.exists()


def test_a_refund_that_names_no_amount_is_of_all_that_can_go_back(stripe, lab):
    payment = paid(stripe, lab)
    client = build.browser(build.member(lab, Role.OWNER))

    answer = client.post(
        f"/app/lab/payments/{payment.id}", {"amount": "", "reason": "leaving", "attempt": uuid7()}
    )

    assert answer.status_code == 302
    assert Refund.objects.get().amount_minor == 2500


# --- One form, sent more than once ---


def pay_path(invoice):
    return f"/app/lab/invoices/{invoice.id}/pay"


def attempt_of(page):
    return re.search(r'name="attempt" value="([0-9a-f-]{36})"', page.text)[1]


@pytest.mark.django_db(transaction=True)
def test_one_form_at_once_pays_a_part_from_credit_once(old_lab, credit_and_debt):
    owner = build.member(old_lab, Role.OWNER)
    path = pay_path(credit_and_debt)
    sent = {"amount": "4", "by": "credit", "attempt": attempt_of(build.browser(owner).get(path))}

    answers = at_once(*[partial(build.browser(owner).post, path, sent) for _each in range(3)])

    payment = Payment.objects.get(kind=PaymentKind.INVOICE)
    assert (payment.amount_minor, payment.state) == (400, PaymentState.SUCCEEDED)
    assert {answer.headers["Location"] for answer in answers} == {f"/app/lab/payments/{payment.id}"}
    assert credit_and_debt.payments.get().amount_micros == 4_000_000


def test_a_form_that_charged_the_card_leads_to_its_payment_and_another_pays_more(stripe, old_lab, invoice):
    card(stripe, old_lab)
    client = build.browser(build.member(old_lab, Role.OWNER))
    path = pay_path(invoice)
    sent = {"amount": "4", "by": "card", "attempt": attempt_of(client.get(path))}

    first = client.post(path, sent)
    again = client.post(path, sent, follow=True)
    assert again.redirect_chain[0][0] == first.headers["Location"]
    assert "This was sent before, and nothing is paid twice." in again.text
    rest = {"amount": "", "by": "card", "attempt": attempt_of(client.get(path))}
    assert client.post(path, rest).status_code == 302
    over = client.post(path, rest, follow=True)

    assert "This was sent before" in over.text, "also when nothing is left to pay"
    assert [charge["amount"] for charge in stripe.store.newest("charge")] == [600, 400]


def test_a_form_whose_card_was_refused_pays_another_way(stripe, old_lab, invoice):
    card(stripe, old_lab, "4000000000000341")
    client = build.browser(build.member(old_lab, Role.OWNER))
    sent = {"amount": "4", "by": "card", "attempt": attempt_of(client.get(pay_path(invoice)))}

    refused = client.post(pay_path(invoice), sent)
    assert refused.status_code == 402
    assert attempt_of(refused) == sent["attempt"]
    for _twice in range(2):
        answer = client.post(pay_path(invoice), sent | {"by": "checkout"})
        assert answer.headers["Location"].startswith(stripe.url), "its page, and no other"

    states = Payment.objects.order_by("pk").values_list("state", flat=True)
    assert list(states) == [PaymentState.FAILED, PaymentState.OPEN]


def test_a_form_asks_for_one_refund_of_all_or_a_part(stripe, lab, client):
    payment = paid(stripe, lab)
    path = f"/app/lab/payments/{payment.id}"
    part = {"amount": "5", "reason": "leaving", "attempt": attempt_of(client.get(path))}
    rest = {"amount": "", "reason": "leaving", "attempt": uuid7()}

    for sent in (part, part, rest, rest):
        assert client.post(path, sent).status_code == 302

    assert list(Refund.objects.order_by("pk").values_list("amount_minor", flat=True)) == [500, 2000]


def test_staff_ask_for_one_refund_with_one_form(stripe, lab):
    payment = paid(stripe, lab)
    staff = staff_client()
    path = reverse("admin:payments_payment_refund", args=[payment.pk])
    sent = {"amount": "5", "destination": "card", "reason": "sorry", "attempt": attempt_of(staff.get(path))}

    for _twice in range(2):
        assert staff.post(path, sent).status_code == 302

    assert Refund.objects.get().amount_minor == 500
