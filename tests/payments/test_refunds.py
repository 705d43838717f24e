"""Refunds and disputes: never more than is there, each move once, whatever order the news has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.billing.models import BillingTransition, CreditLot
from apps.core.actor import Actor, ActorKind
from apps.core.errors import NotFound, ValidationFailed
from apps.core.ids import uuid7
from apps.core.permissions import Role
from apps.invoices import services as invoices
from apps.ledger.models import Transfer
from apps.notifications.models import Mail
from apps.notifications.rendering import render
from apps.payments import gateway
from apps.payments import services as payments
from apps.payments.models import Dispute, Refund, RefundDestination, RefundState
from apps.payments.services import attempts, refunds
from tests import build
from tests.money import books, failing, lots
from tests.payments.paid import card, paid, refunded

pytestmark = pytest.mark.django_db


def staff(name="ada"):
    return Actor(kind=ActorKind.STAFF, id=uuid7(), label=name)


def ask(payment, amount=None, *, actor=None, **fields):
    return payments.request_refund(
        actor=actor or build.actor(payment.organization),
        payment_id=payment.id,
        amount=Decimal(amount) if amount else None,
        reason="not needed",
        now=timezone.now(),
        **fields,
    )


def decide(refund, *, actor=None, approve=True, reason="fine"):
    return payments.decide_refund(
        actor=actor or staff(), refund_id=refund.id, approve=approve, reason=reason, now=timezone.now()
    )


def spend(lab, amount_hours):
    build.price_book({"unit_price": "1"})
    start = build.NOW
    build.usage(lab, start - timedelta(hours=amount_hours), start)
    build.metered(lab, start)


def test_a_refund_leaves_the_lot_when_it_is_approved_and_goes_to_the_card(stripe, lab):
    payment = paid(stripe, lab)
    refund = ask(payment, "10.00")
    assert lots(lab) == [("paid", 25_000_000)]

    decide(refund)
    assert lots(lab) == [("paid", 15_000_000)]
    found = payments.send_refund(refund_id=refund.id, now=timezone.now())

    assert found.state == RefundState.SUCCEEDED
    assert books(lab) == {"clearing": -15_000_000, "paid_lot": 15_000_000}
    assert next(stripe.store.newest("charge"))["amount_refunded"] == 1_000
    assert failing() == []


def test_what_is_spent_or_asked_for_cannot_be_asked_for_again(stripe, lab):
    payment = paid(stripe, lab)
    spend(lab, 5)
    assert payments.refundable_minor(payment) == 2_000

    ask(payment, "15.00")

    assert payments.refundable_minor(payment) == 500
    with pytest.raises(ValidationFailed):
        ask(payment, "5.01")
    ask(payment)
    with pytest.raises(refunds.NothingToRefund):
        ask(payment)


def test_what_was_spent_before_the_decision_is_not_refunded(stripe, lab):
    payment = paid(stripe, lab)
    refund = ask(payment)
    spend(lab, 1)

    with pytest.raises(refunds.NothingToRefund):
        decide(refund)
    assert books(lab) == {"clearing": -25_000_000, "paid_lot": 24_000_000, "revenue": 1_000_000}


def test_a_rejected_request_frees_its_amount(stripe, lab):
    payment = paid(stripe, lab)
    decide(ask(payment), approve=False)

    assert payments.refundable_minor(payment) == 2_500
    with pytest.raises(refunds.RefundDecided):
        decide(Refund.objects.get())


def test_a_customer_reads_why_a_refund_was_rejected_and_nothing_of_why_one_was_approved(stripe, lab):
    payment = paid(stripe, lab)
    browser = build.browser(build.member(lab, Role.BILLING))
    why = "It is credit of <May>: it is refunded by the end of the month."

    with pytest.raises(ValidationFailed):
        decide(ask(payment, "5.00"), approve=False, reason=" ")
    refund = Refund.objects.get()
    assert (refund.state, refund.message) == (RefundState.REQUESTED, "")
    decide(refund, approve=False, reason=f" {why}\n")
    refunded(payment, "4.00")

    assert list(Refund.objects.order_by("pk").values_list("state", "message")) == [
        (RefundState.REJECTED, why),
        (RefundState.SUCCEEDED, ""),
    ]
    rejected, sent = Mail.objects.filter(template="payments/mail/refund").order_by("pk")
    told = render(rejected.template, rejected.context)
    assert f"The credit stays as it is.\n\n{why}\n\n" in told.text
    assert "It is credit of &lt;May&gt;: it is" in told.html
    assert "agreed" not in render(sent.template, sent.context).text
    page = browser.get(f"/app/lab/payments/{payment.id}").text
    assert '<p class="muted">It is credit of &lt;May&gt;: it is' in page
    assert page.count('<p class="muted">') == 1


def test_above_the_limit_a_second_person_decides(stripe, lab, settings):
    settings.REFUND_ALONE_MAX = "10"
    payment = paid(stripe, lab)
    ada = staff()
    small, large = ask(payment, "10.00", actor=ada), ask(payment, "10.01", actor=ada)

    decide(small, actor=ada)
    with pytest.raises(refunds.SecondPersonNeeded):
        decide(large, actor=ada)
    assert decide(large, actor=staff("bob")).state == RefundState.APPROVED


@pytest.mark.parametrize("number", ["4000000000005126", "4000000000007726"])
def test_a_refund_that_the_bank_refuses_comes_back(stripe, lab, number):
    payment = paid(stripe, lab, number=number)
    refund = refunded(payment, "10.00")
    stripe_id = next(stripe.store.newest("refund"))["id"]
    if refund.state == RefundState.PENDING:
        stripe.act("end-refund", refund=stripe_id, succeeds=False)

    for _time in range(2):
        payments.sync_refund(stripe_id, now=timezone.now())

    refund.refresh_from_db()
    assert refund.state == RefundState.FAILED
    assert books(lab) == {"clearing": -25_000_000, "paid_lot": 25_000_000}
    assert payments.refundable_minor(payment) == 2_500
    assert failing() == []


def test_a_refund_as_credit_gives_back_what_was_spent(stripe, lab):
    payment = paid(stripe, lab)
    spend(lab, 20)

    decide(ask(payment, "20.00", actor=staff(), destination=RefundDestination.CREDIT))

    assert lots(lab) == [("paid", 5_000_000), ("promo", 20_000_000)]
    assert list(stripe.store.newest("refund")) == []
    with pytest.raises(ValidationFailed):
        ask(payment, "5.01", actor=staff(), destination=RefundDestination.CREDIT)


def test_no_more_goes_back_than_was_paid_whichever_ways_it_goes(stripe, lab):
    payment = paid(stripe, lab)
    credit = ask(payment, "20.00", destination=RefundDestination.CREDIT)
    assert payments.refundable_minor(payment) == 500
    with pytest.raises(ValidationFailed):
        ask(payment, "5.01")

    made = stripe.engine.create_refund({"payment_intent": payment.intent_id, "amount": "1000"})
    payments.sync_refund(made["id"], now=timezone.now())

    with pytest.raises(refunds.NothingToRefund):
        decide(credit)
    credit.refresh_from_db()
    assert credit.state == RefundState.REQUESTED
    assert lots(lab) == [("paid", 15_000_000)]


def test_a_refund_that_was_interrupted_is_one_refund(stripe, lab):
    refund = refunded(paid(stripe, lab), "10.00", sent=False)
    stripe.act("fault", match="POST /v1/refunds", action="drop", times=3)
    with pytest.raises(gateway.GatewayTimeout):
        payments.send_refund(refund_id=refund.id, now=timezone.now())

    found = payments.send_refund(refund_id=refund.id, now=timezone.now() + attempts.LEASE)

    assert found.state == RefundState.SUCCEEDED
    assert len(list(stripe.store.newest("refund"))) == 1
    assert books(lab) == {"clearing": -15_000_000, "paid_lot": 15_000_000}


def test_a_refund_that_stripe_refuses_for_good_comes_back(stripe, lab):
    payment = paid(stripe, lab)
    refund = refunded(payment, sent=False)
    stripe.engine.create_refund({"payment_intent": payment.intent_id})

    found = payments.send_refund(refund_id=refund.id, now=timezone.now())

    assert found.state == RefundState.FAILED
    assert lots(lab) == [("paid", 25_000_000)]


def test_a_refund_made_at_stripe_is_taken_over_once_and_what_was_spent_is_owed_again(stripe, lab):
    payment = paid(stripe, lab)
    spend(lab, 20)
    made = stripe.engine.create_refund({"payment_intent": payment.intent_id, "amount": "1500"})

    for _time in range(2):
        payments.sync_refund(made["id"], now=timezone.now())

    assert books(lab) == {"clearing": -10_000_000, "receivable": -10_000_000, "revenue": 20_000_000}
    assert Refund.objects.get().state == RefundState.SUCCEEDED
    assert failing() == []


@pytest.mark.parametrize("refused", [False, True])
def test_what_a_credit_note_gave_back_goes_to_the_card_that_paid_the_invoice(stripe, db, refused):
    start = datetime(2026, 4, 10, tzinfo=UTC)
    lab = build.organization("lab", billing_email="money@lab.example", now=start)
    build.price_book({"unit_price": "2.50"})
    build.usage(lab, start, start + timedelta(hours=4))
    invoice = build.closed(lab, "2026-04").invoice
    card(stripe, lab, "4000000000005126" if refused else "4242424242424242")
    started = payments.start_invoice_payment(
        actor=build.actor(lab), organization=lab, invoice_id=invoice.id, by_card=True, now=timezone.now()
    )
    payment = payments.pay(payment_id=started.id, now=timezone.now())
    assert payments.refundable_minor(payment) == 0
    invoice.refresh_from_db()
    invoices.credit_invoice(
        actor=staff(), invoice=invoice, reason="It stood still", amount_minor=600, now=timezone.now()
    )
    assert payments.refundable_minor(payment) == 600

    refund = decide(ask(payment))
    assert (refund.amount_minor, refund.lot_micros) == (600, 0)
    assert books(lab) == {"clearing": -4_000_000, "revenue": 4_000_000}
    payments.send_refund(refund_id=refund.id, now=timezone.now())
    for event in stripe.events():
        if event["type"] == "refund.failed":
            payments.sync_refund(event["data"]["object"]["id"], now=timezone.now())

    refund.refresh_from_db()
    if refused:
        assert refund.state == RefundState.FAILED
        assert books(lab) == {"clearing": -10_000_000, "paid_lot": 6_000_000, "revenue": 4_000_000}
        assert CreditLot.objects.get(pk=refund.id).source == "refund_failed"
    else:
        assert refund.state == RefundState.SUCCEEDED
        assert payments.refundable_minor(payment) == 0
    assert failing() == []


def test_a_refund_out_of_several_lots_is_one_batch_and_one_change_of_the_billing_state(stripe, db):
    start = datetime(2026, 4, 10, tzinfo=UTC)
    lab = build.organization("lab", billing_email="money@lab.example", now=start)
    build.price_book({"unit_price": "2.50"})
    build.usage(lab, start, start + timedelta(hours=4))
    invoice = build.closed(lab, "2026-04").invoice
    payment = paid(stripe, lab)
    invoice.refresh_from_db()
    invoices.credit_invoice(
        actor=staff(), invoice=invoice, reason="It stood still", amount_minor=600, now=timezone.now()
    )
    before = BillingTransition.objects.count()

    refund = decide(ask(payment))

    assert (refund.amount_minor, refund.lot_micros) == (2_100, 15_000_000)
    taken = (
        Transfer.objects.filter(batch_id=refund.id).order_by("cause").values_list("amount_micros", flat=True)
    )
    assert list(taken) == [15_000_000, 6_000_000]
    assert lots(lab) == [("paid", 0), ("paid", 0)]
    assert BillingTransition.objects.count() == before + 1
    assert failing() == []


def test_another_organization_s_payment_cannot_be_refunded(stripe, lab):
    payment = paid(stripe, lab)

    with pytest.raises(NotFound):
        ask(payment, actor=build.actor(build.organization("other")))


# --- Disputes ---


def dispute_of(stripe, payment, **fields):
    intent = stripe.engine.get("payment_intent", payment.intent_id)
    made = stripe.act("dispute", charge=intent["latest_charge"], **fields)
    payments.sync_dispute(made["id"], now=timezone.now())
    return made["id"]


def test_disputed_funds_leave_the_lot_then_are_owed(stripe, lab):
    payment = paid(stripe, lab)
    spend(lab, 20)

    dispute_of(stripe, payment)

    assert books(lab) == {"receivable": -20_000_000, "revenue": 20_000_000}
    assert payments.refundable_minor(payment) == 0
    assert failing() == []


def test_a_dispute_that_is_won_restores_everything(stripe, lab):
    payment = paid(stripe, lab)
    spend(lab, 20)
    before = books(lab)
    identity = dispute_of(stripe, payment)
    stripe.act("end-dispute", dispute=identity, won=True)

    for _time in range(2):
        payments.sync_dispute(identity, now=timezone.now())

    assert books(lab) == before
    assert Dispute.objects.get().closed_at is not None
    assert failing() == []


def test_what_was_paid_in_the_meantime_is_credit_when_a_dispute_is_won(stripe, lab):
    payment = paid(stripe, lab)
    spend(lab, 20)
    identity = dispute_of(stripe, payment)
    paid(stripe, lab)
    assert books(lab) == {"clearing": -25_000_000, "paid_lot": 5_000_000, "revenue": 20_000_000}
    assert failing() == []

    stripe.act("end-dispute", dispute=identity, won=True)
    payments.sync_dispute(identity, now=timezone.now())

    assert books(lab) == {"clearing": -50_000_000, "paid_lot": 30_000_000, "revenue": 20_000_000}
    assert failing() == []


def test_the_billing_state_follows_each_move_of_money_at_once(stripe, lab):
    def state():
        lab.refresh_from_db()
        return lab.billing_state

    spend(lab, 1)
    assert state() == "depleted"
    payment = paid(stripe, lab)
    assert state() == "healthy"
    identity = dispute_of(stripe, payment)
    assert state() == "depleted"
    stripe.act("end-dispute", dispute=identity, won=True)
    payments.sync_dispute(identity, now=timezone.now())
    assert state() == "healthy"
    refund = ask(payment)
    decide(refund)
    assert state() == "depleted"
    changes = AuditEvent.objects.filter(action="billing_state.changed").order_by("pk")
    assert [row.diff["billing_state"][1] for row in changes] == [
        "depleted", "healthy", "depleted", "healthy", "depleted",
    ]  # fmt: skip


def test_a_dispute_that_is_lost_changes_nothing_more(stripe, lab):
    payment = paid(stripe, lab)
    browser = build.browser(build.member(lab, Role.BILLING))

    def page():
        return browser.get(f"/app/lab/payments/{payment.id}").content.decode()

    assert "The credit is there." in page()
    identity = dispute_of(stripe, payment)
    taken = books(lab)
    assert "The credit is there." not in page()
    assert "The bank took the money back until it decides" in page()
    stripe.act("end-dispute", dispute=identity, won=False)

    payments.sync_dispute(identity, now=timezone.now())

    assert "Decided for the holder of the card: the money is gone" in page()
    assert books(lab) == taken == {}
    assert Dispute.objects.get().status == "lost"


def test_a_payment_that_a_bank_asks_about_can_be_refunded_until_it_takes_the_money(stripe, lab):
    payment = paid(stripe, lab)
    identity = dispute_of(stripe, payment, inquiry=True)

    assert refunded(payment, "10.00").state == RefundState.SUCCEEDED
    waiting = ask(payment, "5.00")
    dispute = stripe.store.find("dispute", identity)
    stripe.store.save(dispute | {"status": "needs_response", "is_charge_refundable": False})
    payments.sync_dispute(identity, now=timezone.now())

    assert payments.refundable_minor(payment) == 0
    with pytest.raises(refunds.NothingToRefund):
        decide(waiting)
    assert books(lab) == {"clearing": -15_000_000, "paid_lot": 15_000_000}
    assert failing() == []


def test_what_a_bank_took_before_an_approved_refund_was_sent_comes_back(stripe, lab):
    payment = paid(stripe, lab)
    identity = dispute_of(stripe, payment, inquiry=True)
    refund = decide(ask(payment, "10.00"))
    dispute = stripe.store.find("dispute", identity)
    stripe.store.save(dispute | {"status": "needs_response", "is_charge_refundable": False})

    found = payments.send_refund(refund_id=refund.id, now=timezone.now())

    assert found.state == RefundState.FAILED
    assert books(lab) == {"clearing": -25_000_000, "paid_lot": 25_000_000}


@pytest.mark.parametrize("won", [True, False])
@pytest.mark.parametrize("paid_back", [0, 4, 12])
def test_what_comes_back_from_a_refund_pays_what_the_dispute_of_its_payment_left_owed(
    stripe, lab, won, paid_back
):
    payment = paid(stripe, lab)
    refund = decide(ask(payment, "10.00"))
    identity = dispute_of(stripe, payment)
    assert (books(lab)["receivable"], Dispute.objects.get().owed_minor) == (-10_000_000, 1000)
    if paid_back:
        build.credit(lab, str(paid_back), now=timezone.now())

    found = payments.send_refund(refund_id=refund.id, now=timezone.now())

    assert found.state == RefundState.FAILED
    # As if the refund had never been asked for: the bank has all of the payment.
    left = sum(micros for _pot, micros in lots(lab))
    assert (books(lab).get("receivable", 0), left) == (0, paid_back * 1_000_000)
    assert Dispute.objects.get().owed_minor == 0

    stripe.act("end-dispute", dispute=identity, won=won)
    payments.sync_dispute(identity, now=timezone.now())

    left = sum(micros for _pot, micros in lots(lab))
    assert (books(lab).get("receivable", 0), left) == (0, (paid_back + 25 * won) * 1_000_000)
    assert failing() == []


def test_an_inquiry_moves_nothing_and_says_so_once(stripe, lab):
    payment = paid(stripe, lab)

    identity = dispute_of(stripe, payment, inquiry=True)
    dispute = stripe.store.find("dispute", identity)
    stripe.store.save(dispute | {"status": "warning_under_review"})
    payments.sync_dispute(identity, now=timezone.now())
    stripe.act("end-dispute", dispute=identity, won=True)
    payments.sync_dispute(identity, now=timezone.now())

    assert books(lab) == {"clearing": -25_000_000, "paid_lot": 25_000_000}
    assert refunded(payment, "10.00").state == RefundState.SUCCEEDED
    mails = Mail.objects.filter(template="payments/mail/dispute").order_by("pk")
    asked, closed = [render(mail.template, mail.context) for mail in mails]
    assert asked.subject == "A bank asks about your payment of 25.00 USD"
    assert "Nothing was taken back, and the credit stays as it is." in asked.text
    assert closed.subject == "The question about your payment of 25.00 USD is closed"
    assert "write to support" not in closed.text


def test_who_lost_a_dispute_reads_what_is_owed_again(stripe, lab):
    """25.00 bought, 20.00 of it spent: 5.00 of credit leaves, 20.00 is owed."""
    payment = paid(stripe, lab)
    spend(lab, 20)
    identity = dispute_of(stripe, payment)
    stripe.act("end-dispute", dispute=identity, won=False)
    payments.sync_dispute(identity, now=timezone.now())

    sentence = "20.00 USD of it had paid for usage and is owed again. If you have not paid it since,"
    page = build.browser(build.member(lab, Role.BILLING)).get(f"/app/lab/payments/{payment.id}")
    assert sentence in page.text
    told = [
        render(mail.template, mail.context)
        for mail in Mail.objects.filter(template="payments/mail/dispute").order_by("pk")
    ]
    for mail in told:
        assert f"{sentence} a top-up does." in mail.text
        assert f"{sentence} a top-up does." in mail.html
    assert ["The credit that is left of it cannot be spent meanwhile." in mail.text for mail in told] == [
        True,
        False,
    ]


def test_a_lost_dispute_of_credit_that_was_left_leaves_nothing_owed(stripe, lab):
    payment = paid(stripe, lab)
    identity = dispute_of(stripe, payment)
    stripe.act("end-dispute", dispute=identity, won=False)
    payments.sync_dispute(identity, now=timezone.now())

    page = build.browser(build.member(lab, Role.BILLING)).get(f"/app/lab/payments/{payment.id}")
    assert "is owed again" not in page.text
    for mail in Mail.objects.filter(template="payments/mail/dispute"):
        assert "owed again" not in render(mail.template, mail.context).text


def test_the_page_of_a_payment_says_no_more_that_credit_is_there_that_went_back(stripe, lab):
    payment = paid(stripe, lab)
    browser = build.browser(build.member(lab, Role.BILLING))
    refunded(payment)

    page = browser.get(f"/app/lab/payments/{payment.id}").text

    assert "It became credit." in page
    assert "The credit is there." not in page
