"""Reconciliation: what never came is fetched, what differs is listed until it agrees or staff say why."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.notifications.models import Mail
from apps.payments import services as payments
from apps.payments import tasks
from apps.payments.gateway import GatewayError
from apps.payments.models import Difference, Dispute, PaymentState, RefundState, StripeEvent
from apps.payments.services import inbox, reconciling
from tests import build
from tests.money import books
from tests.payments.paid import paid, refunded, top_up

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


def test_every_type_of_event_that_is_acted_on_is_fetched(stripe, db):
    about = stripe.engine.create_customer({})
    for kind in inbox.EVENT_TYPES:
        stripe.engine.tell(kind, about)

    assert reconciling.fetch_missing_events(now=timezone.now()) == len(inbox.EVENT_TYPES)

    fetched = StripeEvent.objects.filter(source="list").values_list("event_type", flat=True)
    assert sorted(fetched) == sorted(inbox.EVENT_TYPES)


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


def test_a_difference_stays_open_until_its_own_object_is_looked_at_again(stripe, lab):
    payment = paid(stripe, lab)
    body = stripe.engine.get("payment_intent", payment.intent_id)
    stripe.store.save(body | {"amount_received": 1})
    now = timezone.now() + timedelta(days=3)
    week, hours = timedelta(days=7), timedelta(hours=2)

    payments.reconcile(since=now - week, now=now)
    payments.reconcile(since=now + timedelta(minutes=10) - hours, now=now + timedelta(minutes=10))

    assert found() == [("amount", payment.intent_id)]
    stripe.store.save(body)
    payments.reconcile(since=now + timedelta(days=1) - week, now=now + timedelta(days=1))
    assert found() == []


def test_news_of_refunds_and_disputes_that_stripe_never_made_is_taken_over(stripe, lab):
    slow = refunded(paid(stripe, lab, number="4000000000007726"))
    charge = stripe.engine.get("payment_intent", paid(stripe, lab).intent_id)["latest_charge"]
    dispute = stripe.act("dispute", charge=charge)["id"]
    payments.sync_dispute(dispute, now=timezone.now())
    stripe.act("end-refund", refund=slow.refund_id, succeeds=True)
    stripe.act("end-dispute", dispute=dispute, won=False)
    stripe.store.run("DELETE FROM object WHERE kind = 'event'")

    assert reconcile().differences == 0

    slow.refresh_from_db()
    assert slow.state == RefundState.SUCCEEDED
    assert Dispute.objects.get().closed_at is not None


def test_another_amount_of_a_refund_is_listed(stripe, lab):
    refund = refunded(paid(stripe, lab), "5.00")
    body = stripe.engine.get("refund", refund.refund_id)
    stripe.store.save(body | {"amount": 700})

    reconcile()

    assert found() == [("amount", refund.refund_id)]


def test_the_week_is_compared_day_by_day_and_the_report_waits_for_none_of_it(
    stripe, lab, captured_jobs, settings
):
    settings.OPERATOR_EMAILS = ["ops@cloud.example"]
    payment = paid(stripe, lab)
    stripe.store.save(stripe.engine.get("payment_intent", payment.intent_id) | {"amount_received": 1})
    captured_jobs.queued.clear()
    with time_machine.travel(timezone.now() + timedelta(minutes=30)):
        tasks.reconcile_day()
        spans = [fields for name, fields in captured_jobs.queued if name == "payments.reconcile_span"]
        tasks.reconcile_span(**spans[0])
    stripe.act("fault", match="GET .*", action="error", status=500, when="before", times=100)
    with pytest.raises(GatewayError):
        tasks.reconcile_span(**spans[1])
    tasks.report_day()

    assert [one["since"] for one in spans[:-1]] == [one["until"] for one in spans[1:]]
    assert len(spans) == 7
    assert found() == [("amount", payment.intent_id)]
    assert Mail.objects.filter(template="payments/mail/reconciliation").exists()


def test_a_page_of_objects_is_one_query_and_old_events_are_not_asked_for_again(stripe, lab):
    for _number in range(3):
        paid(stripe, lab)
    with CaptureQueriesContext(connection) as queries:
        first = reconcile()
    reconcile(60 * 24)
    stripe.pay(top_up(lab).checkout_url)

    looked_up = [query for query in queries if '"payments_payment"."intent_id" IN' in query["sql"]]
    assert (first.compared, first.differences) == (3, 0)
    assert len([query for query in looked_up if "NOT" not in query["sql"]]) == 1
    assert reconcile(60 * 24 + 10).events_fetched == 0
