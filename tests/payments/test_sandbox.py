"""The stand-in for Stripe behaves as Stripe says it does, to Stripe's own library."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
import stripe
from django.conf import settings

from apps.payments.sandbox import webhooks
from apps.payments.sandbox.api import parse_form
from apps.payments.sandbox.store import Store
from apps.payments.sandbox.webhooks import Deliverer
from tests.payments.conftest import SECRET_KEY
from tests.threads import PATIENCE_SECONDS


@pytest.fixture
def client(sandbox):
    return stripe.StripeClient(
        SECRET_KEY,
        base_addresses={"api": sandbox.url},
        http_client=stripe.RequestsClient(timeout=PATIENCE_SECONDS),
        max_network_retries=0,
    )


def session_of(client, customer=None, amount=2500, **more):
    return client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "customer": customer,
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {
                        "currency": "usd", "unit_amount": amount, "product_data": {"name": "Credit"},
                    },
                }
            ],
            "success_url": "http://127.0.0.1/done?session={CHECKOUT_SESSION_ID}",
            **more,
        }
    )  # fmt: skip


def saved_card(client, sandbox, token="pm_card_visa"):  # noqa: S107
    customer = client.v1.customers.create({"email": "a@example.com"}).id
    return customer, client.v1.payment_methods.attach(token, {"customer": customer}).id


def charge(client, customer, method, **more):
    params = {
        "amount": 1000,
        "currency": "usd",
        "customer": customer,
        "payment_method": method,
        "confirm": True,
    }
    return client.v1.payment_intents.create({**params, **more})


def test_a_checkout_is_paid_on_its_page_and_told_in_events(client, sandbox):
    session = session_of(
        client, metadata={"payment": "7"}, payment_intent_data={"metadata": {"payment": "7"}}
    )

    assert (session.status, session.payment_status, session.amount_total) == ("open", "unpaid", 2500)
    assert sandbox.pay(session.url) == f"http://127.0.0.1/done?session={session.id}"

    paid = client.v1.checkout.sessions.retrieve(session.id)
    intent = client.v1.payment_intents.retrieve(paid.payment_intent)
    assert (paid.status, paid.payment_status, paid.url) == ("complete", "paid", None)
    assert (intent.status, intent.amount_received, intent.metadata["payment"]) == ("succeeded", 2500, "7")
    assert sandbox.event_types() == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]


@pytest.mark.parametrize(
    ("number", "says"),
    [
        ("4000 0000 0000 0002", "Your card was declined."),
        ("4000 0000 0000 9995", "Your card has insufficient funds."),
        ("1234", "Your card number is incorrect."),
    ],
)
def test_a_declined_card_stays_on_the_page_with_the_reason(client, sandbox, number, says):
    session = session_of(client)

    page = sandbox.pages.checkout(session.id, {"number": number, "expiry": "12/34"})

    assert says in page
    assert client.v1.checkout.sessions.retrieve(session.id).status == "open"
    assert sandbox.pay(session.url) != "", "another card still pays"


def test_a_card_that_asks_its_bank_pays_only_after_the_answer(client, sandbox):
    session = session_of(client)

    question = sandbox.pay(session.url, "4000002500003155")

    assert question.startswith("/3ds/pi_")
    assert client.v1.checkout.sessions.retrieve(session.id).payment_status == "unpaid"
    assert sandbox.confirm(question, "refuse") == f"/c/pay/{session.id}"
    question = sandbox.pay(session.url, "4000002500003155")
    assert sandbox.confirm(question) == f"http://127.0.0.1/done?session={session.id}"
    assert client.v1.checkout.sessions.retrieve(session.id).payment_status == "paid"


def test_a_bank_debit_is_paid_days_after_its_page(client, sandbox):
    session = session_of(client)
    sandbox.pay(session.url, method="bank")
    waiting = client.v1.checkout.sessions.retrieve(session.id)
    assert (waiting.status, waiting.payment_status) == ("complete", "unpaid")

    sandbox.act("settle-debit", intent=waiting.payment_intent, succeeds=True)

    assert client.v1.checkout.sessions.retrieve(session.id).payment_status == "paid"
    assert sandbox.event_types()[-1] == "checkout.session.async_payment_succeeded"


def test_a_saved_card_is_charged_without_its_holder(client, sandbox):
    customer = client.v1.customers.create({}).id
    session = client.v1.checkout.sessions.create(
        {"mode": "setup", "customer": customer, "currency": "usd", "success_url": "http://127.0.0.1/"}
    )
    question = sandbox.pay(session.url, "4000002500003155")
    sandbox.confirm(question)

    setup = client.v1.setup_intents.retrieve(client.v1.checkout.sessions.retrieve(session.id).setup_intent)
    paid = charge(client, customer, setup.payment_method, off_session=True)

    assert (setup.status, paid.status) == ("succeeded", "succeeded")
    assert [method.id for method in client.v1.customers.payment_methods.list(customer).data] == [
        setup.payment_method
    ]


def test_a_card_that_always_asks_its_bank_is_refused_without_its_holder(client, sandbox):
    customer, method = saved_card(client, sandbox, "pm_card_authenticationRequired")

    with pytest.raises(stripe.CardError) as refused:
        charge(client, customer, method, off_session=True)

    assert (refused.value.http_status, refused.value.code) == (402, "authentication_required")
    intent = refused.value.error.payment_intent
    assert (intent.status, intent.last_payment_error.code) == (
        "requires_payment_method",
        "authentication_required",
    )
    assert charge(client, customer, method).status == "requires_action", "with its holder there is a question"


def test_a_declined_charge_leaves_its_intent_and_its_events(client, sandbox):
    customer, method = saved_card(client, sandbox, "pm_card_chargeCustomerFail")

    with pytest.raises(stripe.CardError):
        charge(client, customer, method, off_session=True)

    assert sandbox.event_types()[-3:] == [
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
    ]
    (intent,) = client.v1.payment_intents.list({"customer": customer}).data
    assert client.v1.charges.retrieve(intent.latest_charge).failure_code == "card_declined"


def test_refunds_never_exceed_what_was_paid(client, sandbox):
    customer, method = saved_card(client, sandbox)
    intent = charge(client, customer, method)

    client.v1.refunds.create({"payment_intent": intent.id, "amount": 400})
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        client.v1.refunds.create({"payment_intent": intent.id, "amount": 601})
    client.v1.refunds.create({"payment_intent": intent.id})

    paid = client.v1.charges.retrieve(intent.latest_charge)
    assert (paid.amount_refunded, paid.refunded) == (1000, True)


@pytest.mark.parametrize(
    ("token", "at_once", "at_last"),
    [
        ("pm_card_visa", "succeeded", "succeeded"),
        ("pm_card_pendingRefund", "pending", "failed"),
        ("pm_card_refundFail", "succeeded", "failed"),
    ],
)
def test_refunds_end_as_their_card_says(client, sandbox, token, at_once, at_last):
    customer, method = saved_card(client, sandbox, token)
    intent = charge(client, customer, method)

    refund = client.v1.refunds.create({"payment_intent": intent.id})
    assert refund.status == at_once
    if at_once == "pending":
        sandbox.act("end-refund", refund=refund.id, succeeds=False)

    assert client.v1.refunds.retrieve(refund.id).status == at_last
    left = client.v1.charges.retrieve(intent.latest_charge).amount_refunded
    assert left == (0 if at_last == "failed" else 1000)


def test_a_dispute_takes_the_money_and_gives_it_back_when_it_is_won(client, sandbox):
    customer, method = saved_card(client, sandbox)
    intent = charge(client, customer, method)

    dispute = sandbox.act("dispute", charge=intent.latest_charge)
    sandbox.act("end-dispute", dispute=dispute["id"], won=True)

    found = client.v1.disputes.retrieve(dispute["id"])
    assert (found.status, [row.amount for row in found.balance_transactions]) == ("won", [-1000, 1000])
    assert sandbox.event_types()[-4:] == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.funds_reinstated",
        "charge.dispute.closed",
    ]


def test_an_inquiry_takes_no_money(client, sandbox):
    customer, method = saved_card(client, sandbox)
    intent = charge(client, customer, method)

    dispute = sandbox.act("dispute", charge=intent.latest_charge, inquiry=True)

    assert (dispute["status"], dispute["balance_transactions"]) == ("warning_needs_response", [])


def test_a_charge_with_an_inquiry_can_be_refunded_and_one_that_was_charged_back_cannot(client, sandbox):
    customer, method = saved_card(client, sandbox)
    asked, disputed = charge(client, customer, method), charge(client, customer, method)
    inquiry = sandbox.act("dispute", charge=asked.latest_charge, inquiry=True)
    sandbox.act("dispute", charge=disputed.latest_charge)

    client.v1.refunds.create({"payment_intent": asked.id, "amount": 100})
    sandbox.act("end-dispute", dispute=inquiry["id"], won=False)
    client.v1.refunds.create({"payment_intent": asked.id, "amount": 200})
    assert client.v1.charges.retrieve(asked.latest_charge).amount_refunded == 300

    with pytest.raises(stripe.InvalidRequestError, match="has been charged back"):
        client.v1.refunds.create({"payment_intent": disputed.id})


def test_a_session_expires(client, sandbox):
    session = session_of(client)
    client.v1.checkout.sessions.expire(session.id)

    assert "has expired" in sandbox.pages.checkout(session.id, None)
    assert sandbox.pay(session.url) == ""
    assert sandbox.event_types() == ["checkout.session.expired"]


# --- Idempotency keys ---


def test_the_same_key_answers_the_same_and_acts_once(client):
    first = client.v1.customers.create({"email": "a@example.com"}, {"idempotency_key": "one"})
    second = client.v1.customers.create({"email": "a@example.com"}, {"idempotency_key": "one"})

    assert first.id == second.id
    assert second.last_response.headers["Idempotent-Replayed"] == "true"
    assert len(client.v1.customers.list().data) == 1


def test_the_same_key_for_another_request_is_refused(client):
    client.v1.customers.create({"email": "a@example.com"}, {"idempotency_key": "one"})

    with pytest.raises(stripe.IdempotencyError) as refused:
        client.v1.customers.create({"email": "b@example.com"}, {"idempotency_key": "one"})

    assert refused.value.http_status == 400


def test_a_key_in_flight_is_a_conflict_and_its_answer_comes_later(client, sandbox, monkeypatch):
    in_flight, may_land = threading.Event(), threading.Event()
    monkeypatch.setattr(
        sandbox.api, "_sleep", lambda _seconds: in_flight.set() or may_land.wait(PATIENCE_SECONDS)
    )
    sandbox.act("fault", match="POST /v1/customers", action="delay", seconds=1)
    slow = threading.Thread(target=lambda: client.v1.customers.create({}, {"idempotency_key": "one"}))
    slow.start()
    assert in_flight.wait(PATIENCE_SECONDS)

    with pytest.raises(stripe.StripeError) as refused:
        client.v1.customers.create({}, {"idempotency_key": "one"})
    may_land.set()
    slow.join()

    assert refused.value.http_status == 409
    client.v1.customers.create({}, {"idempotency_key": "one"})
    assert len(client.v1.customers.list().data) == 1


def test_what_was_refused_as_wrong_may_be_asked_again_under_its_key(client):
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.payment_intents.create({"amount": 0, "currency": "usd"}, {"idempotency_key": "one"})

    assert client.v1.payment_intents.create({"amount": 5, "currency": "usd"}, {"idempotency_key": "one"}).id


# --- Faults ---


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("status", [500, 409, 429])
def test_an_error_is_scripted_before_or_after_the_effect(client, sandbox, status, when, made):
    sandbox.act("fault", match="POST /v1/customers", action="error", status=status, when=when)

    with pytest.raises(stripe.StripeError) as refused:
        client.v1.customers.create({}, {"idempotency_key": "one"})

    assert refused.value.http_status == status
    assert len(client.v1.customers.list().data) == made


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
def test_a_connection_breaks_before_or_after_the_effect(client, sandbox, when, made):
    sandbox.act("fault", match="POST /v1/customers", action="drop", when=when)

    with pytest.raises(stripe.APIConnectionError):
        client.v1.customers.create({}, {"idempotency_key": "one"})

    assert len(client.v1.customers.list().data) == made


def test_a_fault_that_cannot_be_is_refused_and_the_page_says_why(client, sandbox):
    for wrong, why in (({"match": "("}, "regular expression"), ({"times": "many"}, "whole number of times")):
        form = urllib.parse.urlencode({"action": "error", **wrong}).encode()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(  # noqa: S310  Our own sandbox.
                f"{sandbox.url}/control/fault", data=form, timeout=PATIENCE_SECONDS
            )
        page = refused.value.read().decode()
        assert refused.value.code == 400
        assert why in page
        assert "Script a fault" in page

    client.v1.customers.create({})


def test_faults_end_after_their_number_and_can_be_forgotten(client, sandbox):
    sandbox.act("fault", action="error", times=1)
    with pytest.raises(stripe.APIError):
        client.v1.customers.create({})
    client.v1.customers.create({})
    sandbox.act("fault", action="error", times=9)
    sandbox.act("clear-faults")

    client.v1.customers.create({})


# --- Webhooks ---


def told(store, count=2):
    """Store events that wait for delivery."""
    for number in range(count):
        event = store.add(
            "event",
            "evt",
            {"type": f"test.{number}", "data": {"object": {"id": str(number)}}, "livemode": False},
        )
        store.run("INSERT INTO delivery (event, due) VALUES (?, ?)", event["id"], 0)


def deliver(mode="now", answers=(200,)):
    """Deliver two events in a mode and return the numbers of what was sent, with the deliveries' states."""
    store, sent, left = Store(), [], list(answers)

    def send(body, signature):
        stripe.WebhookSignature.verify_header(body, signature, "whsec_a", 300)
        sent.append(json.loads(body)["data"]["object"]["id"])
        return left.pop(0) if len(left) > 1 else left[0]

    deliverer = Deliverer(store, url="", secret="whsec_a", send=send)
    told(store)
    deliverer.mode = mode
    deliverer.deliver_due()
    return sent, [row["state"] for row in webhooks.deliveries(store)]


@pytest.mark.parametrize(
    ("mode", "sent", "state"),
    [
        ("now", ["0", "1"], "delivered"),
        ("hold", [], "waiting"),
        ("lose", [], "delivered"),
        ("twice", ["0", "0", "1", "1"], "delivered"),
        ("backwards", ["1", "0"], "delivered"),
    ],
)
def test_webhooks_go_out_signed_as_they_are_told_to(mode, sent, state):
    assert deliver(mode) == (sent, [state, state])


def test_a_webhook_that_was_not_taken_waits_for_its_next_time():
    assert deliver(answers=(503, 200)) == (["0", "1"], ["delivered", "waiting"])


# --- HTTP ---


def test_parameters_are_read_as_stripe_reads_them():
    text = "a=1&b[c]=2&b[d][e]=3&f[0][g]=4&f[1][g]=5&h[]=6&h[]=7"

    assert parse_form(text) == {
        "a": "1", "b": {"c": "2", "d": {"e": "3"}}, "f": [{"g": "4"}, {"g": "5"}], "h": ["6", "7"],
    }  # fmt: skip


def test_a_misspelt_parameter_is_refused(client):
    with pytest.raises(stripe.InvalidRequestError, match="unknown parameter: amuont"):
        client.v1.payment_intents.create({"amuont": 1, "amount": 1, "currency": "usd"})


def test_a_list_of_events_of_more_types_than_stripe_takes_is_refused(client):
    types = [f"test.{number}" for number in range(21)]

    assert client.v1.events.list({"types": types[:20]}).data == []
    with pytest.raises(stripe.InvalidRequestError, match="types"):
        client.v1.events.list({"types": types})


def test_another_key_is_refused(sandbox):
    with pytest.raises(stripe.AuthenticationError):
        stripe.StripeClient("sk_test_other", base_addresses={"api": sandbox.url}).v1.customers.list()


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/", "127.0.0.1", 200),
        ("/", "evil.example", 421),
        ("/static/css/tokens.css", "localhost", 200),
        ("/static/../pyproject.toml", "localhost", 404),
        ("/nothing", "localhost", 404),
    ],
)
def test_pages_are_served_to_this_machine_only(sandbox, path, host, status):
    request = urllib.request.Request(sandbox.url + path, headers={"Host": host})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            found = answer.status
    except urllib.error.HTTPError as error:
        found = error.code

    assert found == status


def test_lists_have_pages_and_bounds(client):
    ids = [client.v1.customers.create({}).id for _number in range(5)]

    first = client.v1.customers.list({"limit": 2})
    rest = client.v1.customers.list({"limit": 100, "starting_after": first.data[-1].id})

    assert first.has_more
    assert [row.id for row in [*first.data, *rest.data]] == ids[::-1]
    assert client.v1.customers.list({"created": {"gt": int(time.time()) + 5}}).data == []


def test_what_was_stored_survives_a_restart(tmp_path):
    first = Store(tmp_path / "sandbox.sqlite3")
    made = first.add("customer", "cus", {"email": "a@example.com"})
    first.close()

    assert Store(tmp_path / "sandbox.sqlite3").find("customer", made["id"]) == made


def test_it_does_not_run_beside_a_live_key(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "apps.payments.sandbox"],
        cwd=settings.ROOT,
        env={"STRIPE_SECRET_KEY": "sk_live_x", "COUNTINGHOUSE_VAR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )

    assert done.returncode == 78
    assert "live key" in done.stderr
