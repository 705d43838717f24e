"""Payments over REST: attempts are made once per key, whatever happens in between."""

from __future__ import annotations

import pytest
from django.utils import timezone

from apps.idempotency.models import StoredAnswer
from apps.payments import services as payments
from apps.payments.models import Payment, PaymentMethod
from tests import build
from tests.payments.paid import card, paid

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def lab(transactional_db):
    return build.organization("lab", billing_email="money@lab.example")


@pytest.fixture
def api(lab):
    return build.client(build.api_key(lab))


def key(text):
    return {"X-Idempotency-Key": text}


def test_a_checkout_is_made_once_per_key(stripe, api, lab):
    first = api.post("/api/v1/billing/checkout", {"amount": "25.00"}, headers=key("one"))
    second = api.post("/api/v1/billing/checkout", {"amount": "25.00"}, headers=key("one"))

    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert second["Idempotent-Replayed"] == "true"
    assert first.json()["checkout_url"].startswith(stripe.url)
    assert Payment.objects.count() == 1
    other = api.post("/api/v1/billing/checkout", {"amount": "26.00"}, headers=key("one"))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_a_checkout_needs_a_key_of_its_own(stripe, api):
    answer = api.post("/api/v1/billing/checkout", {"amount": "25.00"})

    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_required")
    assert not Payment.objects.exists()


def test_a_checkout_that_stripe_did_not_answer_goes_on_with_the_same_key(stripe, api):
    stripe.act("fault", match="POST /v1/checkout/sessions", action="drop", times=3)
    lost = api.post("/api/v1/billing/checkout", {"amount": "25.00"}, headers=key("one"))
    assert (lost.status_code, lost.json()["code"]) == (504, "upstream_timeout")
    again = api.post("/api/v1/billing/checkout", {"amount": "25.00"}, headers=key("one"))
    assert (again.status_code, again["Retry-After"]) == (409, "1")

    Payment.objects.update(leased_until=None)
    found = api.post("/api/v1/billing/checkout", {"amount": "25.00"}, headers=key("one"))

    assert found.status_code == 201
    assert Payment.objects.count() == 1
    assert len(list(stripe.store.newest("checkout.session"))) == 1


def test_a_wrong_amount_names_its_field_and_keeps_no_answer(stripe, api):
    answer = api.post("/api/v1/billing/checkout", {"amount": "1.00"}, headers=key("one"))

    assert answer.status_code == 422
    assert answer.json()["details"]["fields"][0]["path"] == "amount"
    assert not StoredAnswer.objects.exists()


def test_payments_are_listed_and_shown(stripe, api, lab):
    payment = paid(stripe, lab)

    (row,) = api.get("/api/v1/billing/payments?state=succeeded").json()["data"]
    assert row == api.get(f"/api/v1/billing/payments/{payment.id}").json()
    assert (row["amount"], row["currency"], row["paid_with"]) == ("25.00", "USD", "Visa •••• 4242")
    assert row["checkout_url"] is None
    stranger = build.client(build.api_key(build.organization("other")))
    assert stranger.get(f"/api/v1/billing/payments/{payment.id}").status_code == 404


def test_a_card_is_saved_made_default_and_removed(stripe, api, lab):
    answer = api.post("/api/v1/billing/payment-methods", {}, headers=key("one"))
    stripe.pay(answer.json()["checkout_url"])
    payments.sync_setup_session(answer.json()["session_id"], now=timezone.now())
    second = card(stripe, lab, "5555555555554444")

    rows = api.get("/api/v1/billing/payment-methods").json()["data"]
    assert [(row["brand"], row["last4"], row["is_default"]) for row in rows] == [
        ("mastercard", "4444", False),
        ("visa", "4242", True),
    ]
    path = f"/api/v1/billing/payment-methods/{second.id}"
    assert api.patch(path, {"is_default": True}).json()["is_default"] is True
    made = [api.patch(path, {"is_default": True}, headers=key("default")) for _time in range(2)]
    assert made[0].json() == made[1].json()
    gone = [api.delete(path, headers=key("gone")) for _time in range(2)]
    assert [answer.status_code for answer in gone] == [204, 204]
    assert [answer.headers.get("Idempotent-Replayed") for answer in [made[1], gone[1]]] == ["true", "true"]
    assert api.get(path).status_code == api.delete(path).status_code == 404
    other = api.delete(f"/api/v1/billing/payment-methods/{rows[1]['id']}", headers=key("gone"))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert [row.last4 for row in PaymentMethod.objects.filter(is_default=True)] == ["4242"]
    assert stripe.engine.get("payment_method", second.method_id)["customer"] is None


def test_automatic_top_up_is_set_shown_and_turned_off(stripe, api, lab):
    rule = {"threshold": "10", "amount": "50", "monthly_cap": "200"}
    refused = api.put("/api/v1/billing/auto-top-up", rule, headers=key("one"))
    assert (refused.status_code, refused.json()["code"]) == (409, "no_saved_card")
    card(stripe, lab)

    api.put("/api/v1/billing/auto-top-up", rule, headers=key("two"))
    assert api.get("/api/v1/billing/auto-top-up").json() == {
        "state": "active", "threshold": "10.00", "amount": "50.00", "monthly_cap": "200.00", "currency": "USD",
    }  # fmt: skip
    assert api.delete("/api/v1/billing/auto-top-up", headers=key("three")).status_code == 204
    assert api.get("/api/v1/billing/auto-top-up").json()["state"] == "off"


def test_a_refund_is_asked_for(stripe, api, lab):
    payment = paid(stripe, lab)

    answer = api.post(
        "/api/v1/billing/refunds",
        {"payment": str(payment.id), "amount": "10.00", "reason": "too much"},
        headers=key("one"),
    )

    assert (answer.status_code, answer.json()["state"], answer.json()["amount"]) == (
        201,
        "requested",
        "10.00",
    )
    assert api.get("/api/v1/billing/refunds").json()["data"] == [answer.json()]
