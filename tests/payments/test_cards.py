"""Charging saved cards: invoices on their schedule, automatic top-up within its cap, one attempt at a time."""

from __future__ import annotations

import html
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Thread
from uuid import UUID

import pytest
import time_machine
from django.db import IntegrityError
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.errors import Conflict, NotFound, ValidationFailed
from apps.core.ids import uuid7
from apps.core.permissions import Role
from apps.invoices.documents.content import content_of
from apps.invoices.models import InvoiceState
from apps.notifications.models import Mail
from apps.notifications.rendering import render
from apps.organizations import services as organizations
from apps.outbox.models import OutboxEvent
from apps.payments import gateway
from apps.payments import services as payments
from apps.payments.gateway.client import StripeGateway
from apps.payments.models import (
    AutoTopUp,
    AutoTopUpState,
    Collection,
    CollectionState,
    Payment,
    PaymentKind,
    PaymentMethod,
    PaymentState,
)
from apps.payments.services import attempts, auto_top_up, cards, charging, collecting
from tests import build
from tests.money import books, failing, lots
from tests.payments.conftest import APRIL
from tests.payments.paid import card, paid, pay, top_up
from tests.threads import at_once

pytestmark = pytest.mark.django_db

ALWAYS_ASKS = "4000002760003184"
DECLINES_LATER = "4000000000000341"


def mails():
    rows = Mail.objects.filter(template__startswith="payments/")
    return sorted(rows.values_list("template", flat=True))


# --- Invoices ---


def test_an_invoice_is_paid_with_the_saved_card(stripe, old_lab, invoice):
    card(stripe, old_lab)

    payment = pay(old_lab, invoice)

    invoice.refresh_from_db()
    assert (payment.state, payment.settled_minor, invoice.state) == ("succeeded", 1_000, InvoiceState.PAID)
    assert books(old_lab) == {"clearing": -10_000_000, "revenue": 10_000_000}
    assert failing() == []


def test_an_invoice_is_paid_in_parts(stripe, old_lab, invoice):
    card(stripe, old_lab)

    pay(old_lab, invoice, amount=Decimal("4.00"))
    invoice.refresh_from_db()
    assert (invoice.state, invoice.outstanding_minor()) == (InvoiceState.OPEN, 600)
    with pytest.raises(ValidationFailed):
        pay(old_lab, invoice, amount=Decimal("6.01"))
    pay(old_lab, invoice)

    invoice.refresh_from_db()
    assert invoice.state == InvoiceState.PAID
    with pytest.raises(collecting.InvoiceNotOpen):
        pay(old_lab, invoice)


def test_without_a_card_there_is_a_page_and_only_one(stripe, old_lab, invoice):
    first = pay(old_lab, invoice)
    second = pay(old_lab, invoice)

    assert first.id == second.id
    assert first.checkout_url.startswith(stripe.url)
    stripe.pay(first.checkout_url)
    payments.sync_payment(first.id, now=timezone.now())
    invoice.refresh_from_db()
    assert invoice.state == InvoiceState.PAID


def test_a_card_whose_bank_asks_is_refused_here_and_can_pay_on_the_page(stripe, old_lab, invoice):
    card(stripe, old_lab, ALWAYS_ASKS)

    with pytest.raises(gateway.CardRefused):
        pay(old_lab, invoice)
    payment = pay(old_lab, invoice, by_card=False)

    assert stripe.confirm(stripe.pay(payment.checkout_url, ALWAYS_ASKS))
    assert payments.sync_payment(payment.id, now=timezone.now()).state == PaymentState.SUCCEEDED


@pytest.mark.parametrize(
    ("number", "detached", "refusal"),
    [(DECLINES_LATER, False, gateway.CardRefused), ("4242424242424242", True, gateway.RefusedByStripe)],
)
def test_what_a_card_cannot_pay_is_said_at_once_and_paid_another_way(
    stripe, old_lab, invoice, number, detached, refusal
):
    method = card(stripe, old_lab, number)
    if detached:
        stripe.engine.detach_method(method.method_id)

    with pytest.raises(refusal):
        pay(old_lab, invoice)
    failed = Payment.objects.get()
    assert failed.state == PaymentState.FAILED
    assert failed.failure_message
    sent = Mail.objects.get(template="payments/mail/failed")
    assert sent.context["url"].endswith(f"/app/lab/invoices/{invoice.id}/pay")

    page = pay(old_lab, invoice, by_card=False)
    assert stripe.pay(page.checkout_url)
    assert payments.sync_payment(page.id, now=timezone.now()).state == PaymentState.SUCCEEDED


@pytest.mark.parametrize("has_intent", [False, True])
def test_a_card_that_was_removed_meanwhile_is_not_charged(stripe, old_lab, invoice, has_intent):
    method = card(stripe, old_lab)
    payment = payments.start_invoice_payment(
        actor=build.actor(old_lab), organization=old_lab, invoice_id=invoice.id, by_card=True, now=timezone.now()
    )  # fmt: skip
    if has_intent:
        stripe.act("fault", match=".*/confirm", action="error", status=500, when="before", times=3)
        with pytest.raises(gateway.GatewayError):
            payments.charge_card(payment_id=payment.id, now=timezone.now())
    PaymentMethod.objects.filter(pk=method.pk).update(removed_at=timezone.now(), is_default=False)

    with pytest.raises(gateway.CardRefused, match="The card was removed"):
        payments.pay(payment_id=payment.id, now=timezone.now() + attempts.LEASE)

    assert list(stripe.store.newest("charge")) == []
    assert {intent["status"] for intent in stripe.store.newest("payment_intent")} <= {"canceled"}
    assert mails() == ["payments/mail/failed"]
    assert pay(old_lab, invoice).checkout_url


def test_a_card_that_stripe_lost_between_two_steps_fails_the_charge(stripe, lab):
    method = card(stripe, lab)
    rule(lab)
    payment = payments.start_if_low(organization_id=lab.id, now=timezone.now())
    stripe.act("fault", match=".*/confirm", action="error", status=500, when="before", times=3)
    with pytest.raises(gateway.GatewayError):
        payments.charge_card(payment_id=payment.id, now=timezone.now())
    stripe.engine.detach_method(method.method_id)

    with pytest.raises(gateway.RefusedByStripe):
        payments.resume(payment_id=payment.id, now=timezone.now() + attempts.LEASE)

    payment.refresh_from_db()
    assert payment.state == PaymentState.FAILED
    assert AutoTopUp.objects.get().failures_in_a_row == 1
    assert mails() == ["payments/mail/auto_top_up"]


def test_a_customer_whom_stripe_refuses_locks_no_invoice(stripe, old_lab, invoice):
    stripe.act("fault", match="POST /v1/customers", action="error", status=400, when="before", times=2)

    for _time in range(2):
        with pytest.raises(gateway.RefusedByStripe):
            pay(old_lab, invoice)
    assert pay(old_lab, invoice).checkout_url


def test_the_named_invoice_is_paid_before_older_ones(stripe, old_lab, invoice):
    build.usage(old_lab, APRIL + timedelta(days=25), APRIL + timedelta(days=25, hours=2))
    later = build.closed(old_lab, "2026-05", now=datetime(2026, 6, 10, tzinfo=UTC)).invoice
    card(stripe, old_lab)

    pay(old_lab, later)

    invoice.refresh_from_db()
    later.refresh_from_db()
    assert (invoice.state, later.state) == (InvoiceState.OPEN, InvoiceState.PAID)
    assert failing() == []


def test_another_organization_s_invoice_is_no_invoice(stripe, invoice):
    other = build.organization("other")

    with pytest.raises(NotFound):
        pay(other, invoice)


def collected(run_jobs, now):
    payments.collect_due(now=now)
    run_jobs()


def test_the_default_card_is_charged_when_an_invoice_opens(stripe, old_lab, invoice, run_jobs):
    card(stripe, old_lab)

    collected(run_jobs, timezone.now())
    collected(run_jobs, timezone.now())

    invoice.refresh_from_db()
    assert invoice.state == InvoiceState.PAID
    assert Payment.objects.get().is_off_session
    assert Collection.objects.get().state == CollectionState.DONE
    assert mails() == ["payments/mail/receipt"]


def test_a_declined_card_is_tried_again_on_the_schedule_and_people_are_reminded(
    stripe, old_lab, invoice, captured_jobs
):
    card(stripe, old_lab, DECLINES_LATER)
    start = timezone.now()

    def on_day(day):
        payments.collect_due(now=start + timedelta(days=day))
        for collection in Collection.objects.all():
            payments.collect(collection_id=collection.id, now=start + timedelta(days=day))
        for payment in Payment.objects.live():
            payments.charge_card(payment_id=payment.id, now=start)
        return Payment.objects.count()

    assert [on_day(day) for day in (0, 1, 3, 7, 14, 20)] == [1, 1, 2, 3, 4, 4]

    assert set(Payment.objects.values_list("state", flat=True)) == {PaymentState.FAILED}
    assert Collection.objects.get().state == CollectionState.LATE
    assert mails() == [*["payments/mail/failed"] * 4, "payments/mail/invoice_late"]


def test_people_are_reminded_of_the_day_that_the_invoice_says(old_lab, captured_jobs):
    build.seller(payment_days=30, timezone="Pacific/Auckland")
    build.price_book({"unit_price": "2.50"})
    build.usage(old_lab, APRIL, APRIL + timedelta(hours=4))
    invoice = build.closed(old_lab, "2026-04").invoice

    def told(days_before):
        now = invoice.due_at - timedelta(days=days_before)
        payments.collect_due(now=now)
        payments.collect(collection_id=Collection.objects.get().id, now=now)
        return mails()

    due, late = "payments/mail/invoice_due", "payments/mail/invoice_late"
    assert [told(days) for days in (29, 4, 3, 2, 0, -20)] == [[], [], [due], [due], [due, late], [due, late]]
    # Final at noon UTC of 15 May, which is the 16th in Auckland.
    assert {mail.context["due"] for mail in Mail.objects.filter(template__startswith="payments/")} == {
        content_of(invoice)["due_on"],
        "2026-06-15",
    }


def test_money_that_came_to_the_bank_counts_once(old_lab, invoice):
    def record(reference):
        return payments.record_bank_receipt(
            actor=build.actor(),
            invoice_id=invoice.id,
            amount=Decimal("4.00"),
            reference=reference,
            now=timezone.now(),
        )

    assert record("wire 1") == 4_000_000
    with pytest.raises(Conflict):
        record("wire 1")
    with pytest.raises(ValidationFailed):
        record(" ")
    assert record("wire 2") == 4_000_000

    assert books(old_lab) == {"bank": -8_000_000, "receivable": -2_000_000, "revenue": 10_000_000}
    assert failing() == []


def test_an_invoice_is_paid_from_credit_in_parts_and_no_further(old_lab, credit_and_debt):
    def from_credit(amount=None):
        return payments.pay_invoice_from_credit(
            actor=build.actor(old_lab),
            organization=old_lab,
            invoice_id=credit_and_debt.id,
            amount=amount,
            now=timezone.now(),
        )

    part = from_credit(Decimal("4.00"))
    assert (part.state, part.amount_minor, part.paid_with) == (PaymentState.SUCCEEDED, 400, "Credit")
    assert credit_and_debt.outstanding_minor() == 600
    with pytest.raises(ValidationFailed):
        from_credit(Decimal("6.01"))
    from_credit()

    credit_and_debt.refresh_from_db()
    assert credit_and_debt.state == InvoiceState.PAID
    assert books(old_lab) == {"clearing": -25_000_000, "paid_lot": 15_000_000, "revenue": 10_000_000}
    assert [payments.refundable_minor(payment) for payment in Payment.objects.filter(kind="invoice")] == [
        0,
        0,
    ]
    with pytest.raises(collecting.InvoiceNotOpen):
        from_credit()
    assert failing() == []


def test_without_paid_credit_nothing_is_written(old_lab, invoice):
    with pytest.raises(collecting.NoPaidCredit):
        payments.pay_invoice_from_credit(
            actor=build.actor(old_lab), organization=old_lab, invoice_id=invoice.id, now=timezone.now()
        )

    assert not Payment.objects.exists()


def test_the_pay_page_and_the_pay_route_take_credit(old_lab, credit_and_debt):
    owner = build.member(old_lab, Role.OWNER)
    page = build.browser(owner)
    path = f"/app/lab/invoices/{credit_and_debt.id}/pay"

    assert b"25.00 USD of paid credit" in page.get(path).content
    assert page.post(path, {"amount": "10.01", "by": "credit", "attempt": uuid7()}).status_code == 422
    assert page.post(path, {"amount": "4", "by": "credit", "attempt": uuid7()}).status_code == 302
    answer = build.client(build.api_key(old_lab)).post(
        f"/api/v1/billing/invoices/{credit_and_debt.id}/pay",
        {"by": "credit"},
        format="json",
        headers={"X-Idempotency-Key": "pay-the-rest-1"},
    )

    assert answer.status_code == 201, answer.content
    assert (answer.json()["state"], answer.json()["amount"]) == ("succeeded", "6.00")
    credit_and_debt.refresh_from_db()
    assert credit_and_debt.state == InvoiceState.PAID


# --- Automatic top-up ---


def rule(lab, **fields):
    amounts = {"threshold": "10", "amount": "25", "monthly_cap": "60", **fields}
    return payments.set_auto_top_up(
        actor=build.actor(lab),
        organization=lab,
        now=timezone.now(),
        **{name: Decimal(text) for name, text in amounts.items()},
    )


def look(lab, run_jobs=None):
    payment = payments.start_if_low(organization_id=lab.id, now=timezone.now())
    if payment is not None:
        payments.charge_card(payment_id=payment.id, now=timezone.now())
        payment.refresh_from_db()
    return payment


def test_a_low_balance_is_topped_up_once(stripe, lab):
    card(stripe, lab)
    rule(lab)

    assert look(lab).state == PaymentState.SUCCEEDED
    assert look(lab) is None, "25 is above the threshold"
    assert lots(lab) == [("paid", 25_000_000)]
    assert failing() == []


def test_one_attempt_is_on_its_way_at_a_time_whatever_the_code_does(stripe, lab):
    card(stripe, lab)
    rule(lab)
    first = payments.start_if_low(organization_id=lab.id, now=timezone.now())

    assert payments.start_if_low(organization_id=lab.id, now=timezone.now()) is None
    with pytest.raises(IntegrityError):
        Payment.objects.create(
            organization=lab, kind=PaymentKind.AUTO_TOP_UP, amount_minor=1, currency="USD", started_by="bug",
            created_at=timezone.now(), method=first.method,
        )  # fmt: skip


def test_the_month_s_cap_holds_and_is_mailed_once(stripe, lab):
    card(stripe, lab)
    rule(lab, threshold="1000")

    assert [look(lab) is not None for _time in range(4)] == [True, True, False, False]
    assert lots(lab) == [("paid", 25_000_000)] * 2
    assert mails().count("payments/mail/auto_top_up_cap") == 1


def test_a_bank_that_asks_pauses_it_and_mails_a_link(stripe, lab):
    card(stripe, lab, ALWAYS_ASKS)
    rule(lab)

    assert look(lab).failure_code == "authentication_required"

    assert AutoTopUp.objects.get().state == AutoTopUpState.PAUSED
    assert look(lab) is None
    mail = Mail.objects.get(template="payments/mail/auto_top_up")
    assert mail.context["state"] == "paused"
    assert "/app/lab/" in mail.context["url"]
    page = build.browser(build.member(lab, Role.BILLING)).get(f"/app/lab/payments/{Payment.objects.get().id}")
    assert "Failed: your bank wants to hear from you" in page.text
    assert "lets such a payment through only while you are there to confirm it" in html.unescape(page.text)
    assert "declined" not in page.text


def test_a_dispute_turns_it_off_and_says_so(stripe, lab):
    card(stripe, lab)
    rule(lab)
    charge = stripe.engine.get("payment_intent", look(lab).intent_id)["latest_charge"]
    dispute = stripe.act("dispute", charge=charge)

    payments.sync_dispute(dispute["id"], now=timezone.now())

    assert AutoTopUp.objects.get().state == AutoTopUpState.OFF
    assert look(lab) is None, "though nothing is left"
    stripe.act("end-dispute", dispute=dispute["id"], won=False)
    payments.sync_dispute(dispute["id"], now=timezone.now())
    told = [
        render(mail.template, mail.context)
        for mail in Mail.objects.filter(template="payments/mail/dispute").order_by("pk")
    ]
    assert [mail.subject for mail in told] == [
        "A payment of 25.00 USD is disputed",
        "The dispute of 25.00 USD is lost",
    ]
    assert ["Automatic top-up is off now." in mail.text for mail in told] == [True, False]


def test_a_failure_does_not_undo_that_it_was_turned_off(stripe, lab):
    card(stripe, lab, ALWAYS_ASKS)
    rule(lab)
    payment = payments.start_if_low(organization_id=lab.id, now=timezone.now())
    payments.turn_off_auto_top_up(actor=build.actor(lab), organization=lab, now=timezone.now())

    payments.charge_card(payment_id=payment.id, now=timezone.now())

    assert AutoTopUp.objects.get().state == AutoTopUpState.OFF
    mail = Mail.objects.get(template="payments/mail/auto_top_up")
    assert "Nothing was charged, and automatic top-up is off." in render(mail.template, mail.context).text


def test_three_failures_turn_it_off_and_a_failure_waits(stripe, lab):
    card(stripe, lab, DECLINES_LATER)
    rule(lab)

    for failures in (1, 2, 3):
        assert look(lab).state == PaymentState.FAILED
        assert AutoTopUp.objects.get().failures_in_a_row == failures
        assert look(lab) is None, "not again at once"
        AutoTopUp.objects.update(next_attempt_at=None)

    assert AutoTopUp.objects.get().state == AutoTopUpState.DISABLED
    assert look(lab) is None
    assert books(lab) == {}


def test_a_cap_below_one_top_up_is_refused(stripe, lab):
    card(stripe, lab)

    with pytest.raises(ValidationFailed):
        rule(lab, monthly_cap="20")


def test_removing_the_last_card_turns_it_off_and_says_so(stripe, lab):
    method, other = card(stripe, lab), card(stripe, lab)
    rule(lab)

    assert not payments.remove_card(actor=build.actor(lab), method_id=other.id, now=timezone.now())
    assert AutoTopUp.objects.get().state == AutoTopUpState.ACTIVE
    stripe.engine.detach_method(method.method_id)
    for _time in range(2):
        cards.sync_card(method.method_id, now=timezone.now())

    assert AutoTopUp.objects.get().state == AutoTopUpState.OFF
    changes = AuditEvent.objects.filter(action="auto_top_up.changed").order_by("pk")
    assert [change.diff["state"] for change in changes] == ["active", "off"]
    assert OutboxEvent.objects.filter(event_type="payments.auto_top_up_changed").count() == 2
    mail = Mail.objects.get(template="payments/mail/auto_top_up_off")
    told = render(mail.template, mail.context)
    assert "Visa •••• 4242, was removed" in told.text
    assert told.subject == "Automatic top-up is off: there is no card left"


@pytest.mark.django_db(transaction=True)
def test_the_last_card_removed_while_it_is_turned_on_turns_it_off(stripe, lab, monkeypatch):
    method = card(stripe, lab)
    removal = Thread(
        target=lambda: at_once(lambda: cards._remove(build.actor(lab), method, now=timezone.now()))
    )

    def removed_meanwhile(*terms, **more):
        if not removal.ident:
            removal.start()
            removal.join(1.0)  # Or it waits for the lock.
        return attempts.checked_minor(*terms, **more)

    monkeypatch.setattr(auto_top_up, "checked_minor", removed_meanwhile)
    rule(lab)
    removal.join()

    assert AutoTopUp.objects.get().state == "off"


def test_whoever_removes_the_last_card_reads_that_it_is_off(stripe, lab):
    method = card(stripe, lab)
    rule(lab)
    client = build.browser(build.member(lab, Role.OWNER))

    done = client.post(f"/app/lab/payments/cards/{method.pk}", {"do": "remove"}, follow=True)

    assert AutoTopUp.objects.get().state == AutoTopUpState.OFF
    assert "It was the last card, so automatic top-up is off." in done.text


def test_a_card_that_was_detached_at_stripe_can_be_removed(stripe, lab):
    method = card(stripe, lab)
    stripe.engine.detach_method(method.method_id)

    payments.remove_card(actor=build.actor(lab), method_id=method.id, now=timezone.now())

    assert not PaymentMethod.objects.filter(removed_at=None).exists()


def test_a_card_is_removed_once_also_when_stripe_s_news_of_it_comes_first(stripe, lab, monkeypatch):
    method = card(stripe, lab)
    detach = StripeGateway.detach_card

    def and_tell(self, method_id):
        detach(self, method_id)
        cards.sync_card(method_id, now=timezone.now())

    monkeypatch.setattr(StripeGateway, "detach_card", and_tell)

    payments.remove_card(actor=build.actor(lab), method_id=method.id, now=timezone.now())

    assert AuditEvent.objects.filter(action="payment_method.removed").count() == 1
    with pytest.raises(NotFound):
        payments.remove_card(actor=build.actor(lab), method_id=method.id, now=timezone.now())


# --- Interruptions ---


@pytest.mark.parametrize("path", ["POST /v1/payment_intents", "POST /v1/payment_intents/.*/confirm"])
@pytest.mark.parametrize("fault", [{"action": "drop"}, {"action": "error", "status": 500, "when": "before"}])
def test_a_charge_that_was_interrupted_goes_on_and_is_one_charge(stripe, lab, path, fault):
    card(stripe, lab)
    rule(lab)
    payment = payments.start_if_low(organization_id=lab.id, now=timezone.now())
    stripe.act("fault", match=path, times=3, **fault)
    with pytest.raises(gateway.GatewayError):
        payments.charge_card(payment_id=payment.id, now=timezone.now())
    stripe.act("clear-faults")

    with pytest.raises(attempts.AttemptInFlight):
        payments.charge_card(payment_id=payment.id, now=timezone.now())
    found = payments.resume(payment_id=payment.id, now=timezone.now() + attempts.LEASE)

    assert found.state == PaymentState.SUCCEEDED
    assert [charge["status"] for charge in stripe.store.newest("charge")] == ["succeeded"]
    assert lots(lab) == [("paid", 25_000_000)]


def test_a_500_that_stripe_remembers_is_looked_up(stripe, lab):
    card(stripe, lab)
    rule(lab)
    payment = payments.start_if_low(organization_id=lab.id, now=timezone.now())
    stripe.act("fault", match="POST /v1/payment_intents/.*/confirm", action="error", status=500, when="after")
    with pytest.raises(gateway.GatewayError):
        payments.charge_card(payment_id=payment.id, now=timezone.now())

    found = payments.resume(payment_id=payment.id, now=timezone.now() + attempts.LEASE)

    assert found.state == PaymentState.SUCCEEDED
    assert len(list(stripe.store.newest("charge"))) == 1


def test_the_sweep_finds_what_nobody_works_on(stripe, lab, captured_jobs):
    card(stripe, lab)
    rule(lab)
    payment = payments.start_if_low(organization_id=lab.id, now=timezone.now())
    captured_jobs.queued.clear()

    assert payments.queue_abandoned(now=timezone.now()) == 0
    assert payments.queue_abandoned(now=timezone.now() + timedelta(minutes=4)) == 1
    assert captured_jobs.queued == [("payments.resume", {"payment_id": str(payment.id)})]


def test_open_pages_keep_no_younger_payment_waiting(stripe, lab, captured_jobs, monkeypatch):
    monkeypatch.setattr(charging, "SWEPT_AT_ONCE", 2)
    now = timezone.now()
    ages = [50, 40, 20, 4]
    pages = [top_up(lab).id for _age in ages]
    for page, minutes in zip(pages, ages, strict=True):
        Payment.objects.filter(pk=page).update(created_at=now - timedelta(minutes=minutes))

    def looked_at(minutes):
        captured_jobs.queued.clear()
        payments.queue_abandoned(now=now + timedelta(minutes=minutes))
        return [pages.index(UUID(fields["payment_id"])) for _name, fields in captured_jobs.queued]

    assert [looked_at(minute) for minute in range(5)] == [[0, 1], [2, 3], [], [3], []]


def test_only_what_is_due_is_collected(stripe, old_lab, invoice, captured_jobs):
    start, reminded = invoice.due_at - timedelta(days=10), invoice.due_at - timedelta(days=3)

    def collected(now):
        found = payments.collect_due(now=now)
        for collection in Collection.objects.all() if found else ():
            payments.collect(collection_id=collection.id, now=now)
        return found

    assert collected(start) == 0, "no card, and nothing to say yet"
    assert [collected(reminded) for _time in range(2)] == [1, 0]
    card(stripe, old_lab)
    assert [collected(reminded) for _time in range(2)] == [1, 0], "its charge is on its way"
    payments.charge_card(payment_id=Payment.objects.get().id, now=timezone.now())
    assert [collected(reminded) for _time in range(2)] == [1, 0], "it is paid"
    assert Collection.objects.get().state == CollectionState.DONE


def test_an_expiring_default_card_is_told_once(stripe, lab):
    method = card(stripe, lab)
    PaymentMethod.objects.filter(pk=method.pk).update(exp_year=2026, exp_month=12)

    for _day in range(2):
        payments.tell_expiring(now=datetime(2026, 11, 2, tzinfo=UTC))

    assert mails() == ["payments/mail/card_expires"]


def test_nobody_hears_of_the_card_of_a_deleted_organization(stripe, lab):
    method = card(stripe, lab)
    PaymentMethod.objects.filter(pk=method.pk).update(exp_year=2026, exp_month=12)
    organizations.delete_organization(actor=build.actor(lab), organization=lab, now=timezone.now())

    assert payments.tell_expiring(now=datetime(2026, 11, 2, tzinfo=UTC)) == 0


@pytest.mark.parametrize(
    ("year", "month", "word", "is_warned"),
    [
        (2026, 10, "expired", True),
        (2026, 11, "expires soon", False),
        (2026, 12, "expires soon", False),
        (2027, 1, None, False),
        (None, None, None, False),
    ],
)
def test_the_end_of_a_card_is_said_where_it_is_listed(stripe, lab, year, month, word, is_warned):
    method = card(stripe, lab)
    rule(lab)
    PaymentMethod.objects.filter(pk=method.pk).update(exp_year=year, exp_month=month)
    person = build.member(lab, Role.BILLING)

    with time_machine.travel(datetime(2026, 11, 30, 23, 59, tzinfo=UTC), tick=False):
        page = build.browser(person).get("/app/lab/payments").text

    ends = [f">{month:02}/{year}, {state}<" for state in ("expired", "expires soon")] if year else []
    assert [state in page for state in ends] == [word == "expired", word == "expires soon"][: len(ends)]
    assert ("On, but the card that it charges has expired" in page) == is_warned


def test_a_page_paid_with_a_saved_card_keeps_it(stripe, lab):
    paid(stripe, lab)
    intent = next(stripe.store.newest("payment_intent"))

    assert stripe.engine.get("payment_method", intent["payment_method"])["customer"] is not None
