"""Top-ups by Checkout: credited once, for what Stripe says is paid, whoever brings the news."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from apps.core.errors import ValidationFailed
from apps.notifications.models import Mail
from apps.organizations import services as organizations
from apps.payments import gateway
from apps.payments import services as payments
from apps.payments.models import Payment, PaymentState, StripeCustomer
from apps.payments.services import applying, attempts
from tests import build
from tests.money import books, failing, lots
from tests.payments.paid import paid, top_up

pytestmark = pytest.mark.django_db


def test_a_paid_page_becomes_credit_once(stripe, lab):
    payment = paid(stripe, lab)
    payments.sync_payment(payment.id, now=timezone.now())
    payments.sync_session(payment.session_id, now=timezone.now())

    payment.refresh_from_db()
    assert (payment.state, payment.lot_id, payment.settled_minor) == (PaymentState.SUCCEEDED, payment.id, 0)
    assert payment.paid_with == "Visa •••• 4242"
    assert lots(lab) == [("paid", 25_000_000)]
    assert books(lab) == {"clearing": -25_000_000, "paid_lot": 25_000_000}
    assert failing() == []


def test_the_receipt_is_mailed_once(stripe, lab):
    payment = paid(stripe, lab)
    payments.sync_payment(payment.id, now=timezone.now())

    (mail,) = Mail.objects.filter(template="payments/mail/receipt")
    assert mail.recipient == "money@lab.example"
    assert mail.context["amount"] == "25.00 USD"


def test_an_unpaid_page_credits_nothing(stripe, lab):
    payment = top_up(lab)

    assert payments.sync_payment(payment.id, now=timezone.now()).state == PaymentState.OPEN
    assert books(lab) == {}


def test_a_declined_card_leaves_the_page_open_for_another(stripe, lab):
    payment = top_up(lab)
    stripe.pay(payment.checkout_url, "4000000000000002")

    assert payments.sync_payment(payment.id, now=timezone.now()).state == PaymentState.OPEN
    stripe.pay(payment.checkout_url)
    assert payments.sync_payment(payment.id, now=timezone.now()).state == PaymentState.SUCCEEDED


def test_a_bank_debit_is_on_its_way_before_it_is_credited(stripe, lab):
    payment = top_up(lab)
    stripe.pay(payment.checkout_url, method="bank")
    waiting = payments.sync_session(payment.session_id, now=timezone.now())
    assert (waiting.state, books(lab)) == (PaymentState.PROCESSING, {})

    stripe.act("settle-debit", intent=waiting.intent_id, succeeds=True)

    assert payments.sync_session(payment.session_id, now=timezone.now()).state == PaymentState.SUCCEEDED
    assert lots(lab) == [("paid", 25_000_000)]


def test_a_bank_debit_that_bounces_credits_nothing(stripe, lab):
    payment = top_up(lab)
    stripe.pay(payment.checkout_url, method="bank")
    payments.sync_session(payment.session_id, now=timezone.now())
    payment.refresh_from_db()

    stripe.act("settle-debit", intent=payment.intent_id, succeeds=False)

    found = payments.sync_session(payment.session_id, now=timezone.now())
    assert (found.state, found.failure_message) == (PaymentState.FAILED, "The bank refused the debit.")
    assert books(lab) == {}


def test_an_expired_page_ends_the_attempt(stripe, lab):
    payment = top_up(lab)
    stripe.engine.expire_session(payment.session_id)

    assert payments.sync_payment(payment.id, now=timezone.now()).state == PaymentState.EXPIRED


def test_old_news_never_takes_back_what_is_paid(stripe, lab):
    payment = top_up(lab)
    old = gateway.current().session(payment.session_id)
    stripe.pay(payment.checkout_url)
    payments.sync_payment(payment.id, now=timezone.now())

    applying.apply_session(payment, old, now=timezone.now())

    payment.refresh_from_db()
    assert payment.state == PaymentState.SUCCEEDED


def test_a_top_up_settles_what_is_owed_first(stripe, lab):
    start = build.NOW
    build.price_book({"unit_price": "2.50"})
    build.usage(lab, start - timedelta(hours=4), start)
    build.metered(lab, start)
    assert books(lab)["receivable"] == -10_000_000

    payment = paid(stripe, lab)

    assert payment.settled_minor == 1_000
    assert lots(lab) == [("paid", 15_000_000)]
    assert books(lab) == {"clearing": -25_000_000, "paid_lot": 15_000_000, "revenue": 10_000_000}
    assert failing() == []


@pytest.mark.parametrize("amount", ["4.99", "0", "-5", "5.001", "1000000.00"])
def test_an_amount_out_of_range_is_refused_and_nothing_written(lab, amount):
    with pytest.raises(ValidationFailed):
        payments.start_top_up(
            actor=build.actor(lab), organization=lab, amount=Decimal(amount), now=timezone.now()
        )

    assert not Payment.objects.exists()


@pytest.mark.parametrize(
    "url", ["https://evil.example/x", "javascript:alert(1)", "//evil.example", "http://"]
)
def test_nobody_is_sent_back_to_a_foreign_place(lab, url):
    with pytest.raises(ValidationFailed):
        top_up(lab, success_url=url)


def test_a_configured_origin_may_be_returned_to(stripe, lab, settings):
    settings.RETURN_ORIGINS = ["https://app.example"]
    payment = top_up(lab, success_url="https://app.example/done?s={CHECKOUT_SESSION_ID}")

    assert stripe.pay(payment.checkout_url) == f"https://app.example/done?s={payment.session_id}"


def test_another_amount_than_ours_is_looked_at_by_people(stripe, lab):
    payment = top_up(lab)
    stripe.pay(payment.checkout_url)
    intent_id = gateway.current().session(payment.session_id).intent_id
    body = stripe.engine.get("payment_intent", intent_id)
    stripe.store.save(body | {"amount": 1, "amount_received": 1})

    with pytest.raises(applying.DoesNotFit):
        payments.sync_payment(payment.id, now=timezone.now())
    assert books(lab) == {}


def test_an_organization_is_one_customer(stripe, lab):
    top_up(lab)
    top_up(lab)

    assert len(list(stripe.store.newest("customer"))) == 1
    assert StripeCustomer.objects.get().customer_id.startswith("cus_")


# --- When Stripe misbehaves ---


def test_an_answer_that_comes_too_late_is_asked_for_again_under_the_same_key(stripe, lab):
    payment = payments.start_top_up(
        actor=build.actor(lab), organization=lab, amount=Decimal(25), now=timezone.now()
    )
    stripe.act("fault", match="POST /v1/checkout/sessions", action="drop", times=3)

    with pytest.raises(gateway.GatewayTimeout):
        payments.open_checkout(payment_id=payment.id, now=timezone.now())
    with pytest.raises(attempts.AttemptInFlight):
        payments.open_checkout(payment_id=payment.id, now=timezone.now())
    found = payments.open_checkout(payment_id=payment.id, now=timezone.now() + attempts.LEASE)

    assert len(list(stripe.store.newest("checkout.session"))) == 1
    assert found.session_id == next(stripe.store.newest("checkout.session"))["id"]


def test_an_organization_renamed_between_two_tries_becomes_a_customer_by_its_new_name(stripe, lab):
    payment = payments.start_top_up(
        actor=build.actor(lab), organization=lab, amount=Decimal(25), now=timezone.now()
    )
    stripe.act("fault", match="POST /v1/customers", action="drop", times=3)
    with pytest.raises(gateway.GatewayTimeout):
        payments.open_checkout(payment_id=payment.id, now=timezone.now())
    organizations.change_organization(
        actor=build.actor(lab), organization=lab, name="Renamed", now=timezone.now()
    )
    payments.open_checkout(payment_id=payment.id, now=timezone.now() + attempts.LEASE)

    known = StripeCustomer.objects.get().customer_id
    assert stripe.store.find("customer", known)["name"] == "Renamed"


@pytest.mark.parametrize("status", [500, 429, 409])
def test_an_error_leaves_the_attempt_to_be_tried_again(stripe, lab, status):
    payment = payments.start_top_up(
        actor=build.actor(lab), organization=lab, amount=Decimal(25), now=timezone.now()
    )
    stripe.act(
        "fault", match="POST /v1/checkout/sessions", action="error", status=status, when="before", times=3
    )

    with pytest.raises(gateway.GatewayError):
        payments.open_checkout(payment_id=payment.id, now=timezone.now())
    stripe.act("clear-faults")

    assert payments.open_checkout(payment_id=payment.id, now=timezone.now() + attempts.LEASE).session_id


def test_after_23_hours_the_page_is_looked_up_and_not_made_again(stripe, lab):
    payment = top_up(lab)
    Payment.objects.update(session_id=None, called_at=timezone.now() - timedelta(hours=23))

    assert payments.open_checkout(payment_id=payment.id, now=timezone.now()).session_id == payment.session_id
    assert len(list(stripe.store.newest("checkout.session"))) == 1


def test_after_23_hours_what_never_reached_stripe_has_failed(stripe, lab):
    payment = payments.start_top_up(
        actor=build.actor(lab), organization=lab, amount=Decimal(25), now=timezone.now()
    )
    Payment.objects.update(called_at=timezone.now() - timedelta(hours=23))

    with pytest.raises(gateway.KeyTooOld):
        payments.open_checkout(payment_id=payment.id, now=timezone.now())
    payment.refresh_from_db()
    assert payment.state == PaymentState.FAILED


def test_without_a_key_payments_are_off_and_say_so(lab):
    with pytest.raises(gateway.PaymentsOff):
        top_up(lab)
