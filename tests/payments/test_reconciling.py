"""Reconciliation: what never came is fetched, what differs is listed until it agrees or staff say why."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.payments import services as payments
from apps.payments.models import Difference, PaymentState, StripeEvent
from apps.payments.services import reconciling
from tests import build
from tests.money import books
from tests.payments.paid import paid, top_up

pytestmark = pytest.mark.django_db


def reconcile(minutes=30):
    now = timezone.now() + timedelta(minutes=minutes)
    return payments.reconcile(since=now - timedelta(hours=2), now=now)


def found():
    return list(Difference.objects.filter(resolved_at=None).values_list("kind", "object_id"))


def test_a_lost_webhook_is_fetched_and_credited(stripe, lab):
    payment = top_up(lab)
    stripe.pay(payment.checkout_url)

    run = reconcile()

    payment.refresh_from_db()
    assert payment.state == PaymentState.SUCCEEDED
    assert (run.events_fetched, run.differences) == (3, 0)
    assert set(StripeEvent.objects.values_list("source", flat=True)) == {"list"}
    assert reconcile().events_fetched == 0
    assert books(lab) == {"clearing": -25_000_000, "paid_lot": 25_000_000}


def test_an_event_that_stripe_never_made_is_no_difference_for_long(stripe, lab):
    payment = top_up(lab)
    stripe.pay(payment.checkout_url)
    stripe.store.run("DELETE FROM object WHERE kind = 'event'")

    assert reconcile().differences == 0
    payment.refresh_from_db()
    assert payment.state == PaymentState.SUCCEEDED


def test_money_at_stripe_that_is_not_ours_is_listed_until_it_is_explained(stripe, lab):
    method = stripe.engine.add_method("4242424242424242", month=12, year=2034)
    foreign = stripe.engine.create_intent(
        {"amount": "700", "currency": "usd", "payment_method": method["id"], "confirm": "true"}
    )

    reconcile()
    reconcile(31)
    assert found() == [("not_here", foreign["id"])]
    payments.resolve_difference(
        actor=build.actor(),
        difference_id=Difference.objects.get().id,
        reason="sold a mug",
        now=timezone.now(),
    )
    reconcile(32)

    assert found() == []
    with pytest.raises(reconciling.DifferenceResolved):
        payments.resolve_difference(
            actor=build.actor(), difference_id=Difference.objects.get().id, reason="again", now=timezone.now()
        )


def test_a_credit_that_stripe_does_not_know_is_listed(stripe, lab):
    payment = paid(stripe, lab)
    stripe.store.run("DELETE FROM object WHERE id = ?", payment.intent_id)

    reconcile()

    assert found() == [("not_there", payment.intent_id)]
    assert payments.report().open_differences == 1


def test_another_amount_is_listed(stripe, lab):
    payment = paid(stripe, lab)
    body = stripe.engine.get("payment_intent", payment.intent_id)
    stripe.store.save(body | {"amount_received": 1})

    reconcile()

    assert found() == [("amount", payment.intent_id)]
    stripe.store.save(body)
    reconcile(31)
    assert found() == []


def test_what_is_younger_than_five_minutes_is_on_its_way(stripe, lab):
    stripe.engine.create_intent({"amount": "700", "currency": "usd"})

    assert reconcile(0).compared == 0
