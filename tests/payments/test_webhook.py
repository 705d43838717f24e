"""The webhook: what Stripe signed is stored once and processed once; anything else leaves no trace."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.payments import services as payments
from apps.payments import signatures
from apps.payments.models import EventState, PaymentState, StripeEvent
from apps.payments.services import inbox
from tests import build
from tests.money import books, failing
from tests.payments.conftest import WEBHOOK_SECRET, signed
from tests.payments.paid import paid, top_up

pytestmark = pytest.mark.django_db

EVENT = {
    "id": "evt_1",
    "object": "event",
    "type": "payment_intent.succeeded",
    "created": 1_700_000_000,
    "livemode": False,
    "data": {"object": {"id": "pi_1"}},
}


@pytest.fixture(autouse=True)
def secrets(settings):
    settings.STRIPE_SECRET_KEY = "sk_test_x"
    settings.STRIPE_WEBHOOK_SECRETS = [WEBHOOK_SECRET]


def post(client, body, signature):
    headers = {} if signature is None else {"Stripe-Signature": signature}
    return client.post("/payments/webhook", body, content_type="application/json", headers=headers)


def mac(body, secret=WEBHOOK_SECRET, at=None):
    at = at or int(timezone.now().timestamp())
    return at, hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()


def test_what_is_signed_is_stored_byte_for_byte_and_queued(client, captured_jobs):
    body, signature = signed(EVENT)

    answer = post(client, body, signature)

    assert (answer.status_code, answer.json()) == (200, {"received": True, "duplicate": False})
    event = StripeEvent.objects.get()
    assert (bytes(event.body), event.state, event.object_id) == (body, EventState.RECEIVED, "pi_1")
    assert captured_jobs.queued == [("payments.process_events", {})]


def test_a_duplicate_is_fine_and_changes_nothing(client):
    for _time in range(2):
        answer = post(client, *signed(EVENT))

    assert (answer.status_code, answer.json()["duplicate"]) == (200, True)
    assert StripeEvent.objects.count() == 1


def test_many_at_once_are_all_taken(client):
    statuses = {post(client, *signed(EVENT | {"id": f"evt_{number}"})).status_code for number in range(70)}

    assert statuses == {200}


@pytest.mark.parametrize("path", ["/payments/webhook", "/api/v1/payments/webhook", "/v1/payments/webhook"])
def test_it_answers_wherever_it_was_registered(client, path):
    body, signature = signed(EVENT)

    answer = client.post(path, body, content_type="application/json", headers={"Stripe-Signature": signature})

    assert answer.status_code == 200


def header(kind, body):
    """Return a header that must not pass."""
    at, good = mac(body)
    now = int(timezone.now().timestamp())
    return {
        "none": None,
        "empty": "",
        "forged": f"t={at},v1={'0' * 64}",
        "v0 only": f"t={at},v0={good}",
        "other secret": f"t={at},v1={mac(body, 'whsec_other')[1]}",
        "other body": f"t={at},v1={mac(body + b' ')[1]}",
        "old": f"t={now - 301},v1={mac(body, at=now - 301)[1]}",
        "future": f"t={now + 302},v1={mac(body, at=now + 302)[1]}",
        "no time": f"v1={good}",
        "two times": f"t={at},t={at},v1={good}",
        "time no number": f"t=x,v1={good}",
        "huge time": f"t={'9' * 400},v1={good}",
        "signature only": good,
        "not ASCII": f"t={at},v1=é",
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "none", "empty", "forged", "v0 only", "other secret", "other body", "old", "future", "no time", "two times",
        "time no number", "huge time", "signature only", "not ASCII",
    ],
)  # fmt: skip
def test_what_cannot_be_verified_is_refused_and_leaves_no_trace(client, kind):
    body, _signature = signed(EVENT)

    answer = post(client, body, header(kind, body))

    assert (answer.status_code, answer.json()["code"]) == (400, "webhook_unverifiable")
    assert not StripeEvent.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b'{"id": 1}',
        json.dumps(EVENT | {"object": "v2.core.event"}).encode(),
        json.dumps(EVENT | {"livemode": True}).encode(),
        json.dumps(EVENT | {"data": {}}).encode(),
        json.dumps(EVENT | {"data": {"object": {"id": None}}}).encode(),
        json.dumps(EVENT | {"created": 10**30}).encode(),
        json.dumps(EVENT | {"created": 10**17}).encode(),
        json.dumps(EVENT | {"id": "evt\x00"}).encode(),
        b"[" * 100_000,
    ],
    ids=lambda body: body[:24].decode(errors="replace"),
)
def test_what_is_signed_but_no_event_of_ours_is_refused(client, body):
    at, good = mac(body)

    assert post(client, body, f"t={at},v1={good}").status_code == 400
    assert not StripeEvent.objects.exists()


def test_another_account_is_refused_where_one_is_named(client, settings):
    settings.STRIPE_ACCOUNT = "acct_ours"

    assert post(client, *signed(EVENT | {"account": "acct_theirs"})).status_code == 400
    assert post(client, *signed(EVENT | {"account": "acct_ours"})).status_code == 200


def test_a_live_key_takes_live_events_only(client, settings):
    settings.STRIPE_SECRET_KEY = "sk_live_x"

    assert post(client, *signed(EVENT)).status_code == 400
    assert post(client, *signed(EVENT | {"livemode": True})).status_code == 200


def test_while_secrets_are_rotated_both_pass(client, settings):
    settings.STRIPE_WEBHOOK_SECRETS = ["whsec_new", "whsec_old"]

    for number, secret in enumerate(["whsec_new", "whsec_old"]):
        assert post(client, *signed(EVENT | {"id": f"evt_{number}"}, secret=secret)).status_code == 200
    settings.STRIPE_WEBHOOK_SECRETS = ["whsec_new"]
    assert post(client, *signed(EVENT | {"id": "evt_9"}, secret="whsec_old")).status_code == 400


def test_one_good_signature_among_several_passes(client):
    body, _signature = signed(EVENT)
    at, good = mac(body)

    assert post(client, body, f"t={at}, v1={'0' * 64} ,v1={good},v0=x").status_code == 200


def test_a_body_written_anew_is_another_body(client):
    body, signature = signed(EVENT)

    assert post(client, json.dumps(json.loads(body)).encode(), signature).status_code == 400


def test_a_body_too_large_is_refused_before_it_is_read(client):
    body, signature = signed(EVENT | {"padding": "x" * 256 * 1024})

    assert post(client, body, signature).status_code == 413


def test_a_database_that_is_down_asks_stripe_to_come_again(client, monkeypatch):
    def down(*_args, **_kwargs):
        raise OperationalError("connection refused")

    monkeypatch.setattr(StripeEvent, "save", down)

    assert post(client, *signed(EVENT)).status_code == 503


def test_an_example_that_stripe_published_verifies_byte_for_byte(settings):
    body = (settings.ROOT / "tests" / "data" / "stripe-signed-event.json").read_bytes()
    header = (
        "t=1533204620,v1=82216eca827bcb7b34b8055eb2d2d9e6bc13b9ac39ded14a61e69f70c565f53a,"
        "v0=63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef"
    )
    at = datetime.fromtimestamp(1533204620, UTC)

    assert signatures.is_signed(body, header, ["webhook_secret"], now=at + timedelta(seconds=100))
    assert not signatures.is_signed(body[:-1], header, ["webhook_secret"], now=at)


# --- Processing ---


def process(now=None):
    return payments.process_events(now=now or timezone.now())


def test_received_and_processed_are_different_facts(stripe, deliver):
    lab = build.organization("lab")
    payment = top_up(lab)
    stripe.pay(payment.checkout_url)
    for event in stripe.events():
        assert deliver(event) == 200
    assert books(lab) == {}

    assert process() == inbox.Drained(processed=6, failed=0)

    payment.refresh_from_db()
    assert payment.state == PaymentState.SUCCEEDED
    assert set(StripeEvent.objects.values_list("event_type", "state")) == {
        ("customer.created", EventState.IGNORED),
        ("payment_method.attached", EventState.PROCESSED),
        ("charge.succeeded", EventState.IGNORED),
        ("payment_intent.created", EventState.PROCESSED),
        ("payment_intent.succeeded", EventState.PROCESSED),
        ("checkout.session.completed", EventState.PROCESSED),
    }
    assert failing() == []


def test_news_that_is_known_asks_stripe_and_locks_nothing(stripe, deliver, lab):
    payment = paid(stripe, lab)
    event = next(event for event in stripe.events() if event["type"] == "payment_intent.succeeded")
    assert deliver(event) == 200

    with CaptureQueriesContext(connection) as queries:
        assert process().processed == 1

    assert ("GET", f"/v1/payment_intents/{payment.intent_id}", "") == stripe.api.requests[-1]
    assert [query["sql"] for query in queries if "ledger_wallet" in query["sql"]] == []
    assert StripeEvent.objects.get().state == EventState.PROCESSED


def test_ten_failures_are_a_dead_letter_that_can_be_replayed(stripe, deliver):
    lab = build.organization("lab")
    payment = top_up(lab)
    stripe.pay(payment.checkout_url)
    deliver(next(event for event in stripe.events() if event["type"] == "checkout.session.completed"))
    stripe.act("fault", match="GET .*", action="error", status=500, times=1000)

    now = timezone.now()
    for attempt in range(1, 11):
        assert process(now).failed == 1, attempt
        now += timedelta(hours=2)
    event = StripeEvent.objects.get()
    assert (event.state, event.attempts) == (EventState.DEAD, 10)
    assert event.last_error.startswith("GatewayError")
    assert process(now) == inbox.Drained(processed=0, failed=0)

    stripe.act("clear-faults")
    payments.replay(actor=build.actor(), event_id=event.pk, reason="Stripe is back", now=now)
    assert process(now).processed == 1
    assert books(lab) == {"clearing": -25_000_000, "paid_lot": 25_000_000}


def test_what_was_not_reached_while_stripe_does_not_answer_has_lost_no_attempt(stripe, deliver, lab):
    paid(stripe, lab)
    known = next(event for event in stripe.events() if event["type"] == "payment_intent.succeeded")
    for number in range(3):
        assert deliver(known | {"id": f"evt_{number}"}) == 200
    stripe.act("fault", match="GET .*", action="drop", times=3)
    now = timezone.now()

    assert process(now) == inbox.Drained(processed=0, failed=1)

    rows = StripeEvent.objects.order_by("attempts").values_list("attempts", "next_attempt_at")
    assert list(rows) == [(0, now), (0, now), (1, now + inbox.RETRY_FIRST)]
    assert process(now) == inbox.Drained(processed=2, failed=0)


def test_a_failure_waits_longer_each_time(stripe, deliver):
    deliver(EVENT | {"data": {"object": {"id": "pi_unknown"}}})
    now = timezone.now()

    assert process(now).failed == 1
    assert process(now + timedelta(seconds=4)) == inbox.Drained(processed=0, failed=0)
    assert process(now + timedelta(seconds=5)).failed == 1
    assert process(now + timedelta(seconds=14)) == inbox.Drained(processed=0, failed=0)


def test_events_of_others_objects_are_ignored(stripe, deliver):
    foreign = stripe.engine.create_intent({"amount": "500", "currency": "usd"})
    deliver(next(event for event in stripe.events() if event["data"]["object"]["id"] == foreign["id"]))

    process()

    assert StripeEvent.objects.get().state == EventState.IGNORED


@pytest.mark.parametrize(("within", "marks"), [(60.0, 2), (0.0, 4)])
def test_what_is_done_is_marked_together_unless_stripe_is_slow(
    stripe, deliver, lab, monkeypatch, within, marks
):
    monkeypatch.setattr(inbox, "MARKED_WITHIN_SECONDS", within)
    paid(stripe, lab)
    known = next(event for event in stripe.events() if event["type"] == "payment_intent.succeeded")
    for number in range(3):
        deliver(known | {"id": f"evt_known{number}"})
    deliver(known | {"id": "evt_other", "type": "customer.created"})
    deliver(EVENT | {"id": "evt_unknown", "data": {"object": {"id": "pi_unknown"}}})

    with CaptureQueriesContext(connection) as queries:
        assert process() == inbox.Drained(processed=4, failed=1)

    assert dict(StripeEvent.objects.values_list("id", "state")) == {
        **{f"evt_known{number}": EventState.PROCESSED for number in range(3)},
        "evt_other": EventState.IGNORED,
        "evt_unknown": EventState.RECEIVED,
    }
    assert set(StripeEvent.objects.values_list("attempts", flat=True)) == {1}
    written = [query for query in queries if query["sql"].startswith('UPDATE "payments_stripeevent"')]
    assert len(written) == marks + 2, "and one to claim them all, one for the failure"
