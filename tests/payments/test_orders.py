"""Every order of the news, with repetitions, ends in the same books; and nothing posts one object of Stripe's twice."""

from __future__ import annotations

from itertools import count, permutations

import pytest
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from apps.ledger.models import Transfer
from apps.payments import gateway
from apps.payments import services as payments
from apps.payments.models import Dispute, EventState, Payment, PaymentState, Refund, RefundState, StripeEvent
from apps.payments.services import inbox
from tests import build
from tests.money import books, failing
from tests.payments.paid import paid, refunded, top_up
from tests.threads import at_once


class Remembering:
    """A gateway whose answers are remembered: here Stripe's state no longer changes."""

    def __init__(self, real):
        self._real, self._known = real, {}

    def __getattr__(self, name):
        def ask(*args, **kwargs):
            key = (name, args, tuple(sorted(kwargs.items())))
            if key not in self._known:
                self._known[key] = getattr(self._real, name)(*args, **kwargs)
            return self._known[key]

        return ask


class Undone(Exception):
    pass


def outcome(lab):
    """Return all that the next piece of news could be judged by."""
    payments_ = Payment.objects.values_list(
        "state", "session_id", "intent_id", "settled_minor", "paid_with", "receipt_url"
    )
    disputes = Dispute.objects.annotate(
        is_out=Q(withdrawn_at__isnull=False),
        is_back=Q(reinstated_at__isnull=False),
        is_over=Q(closed_at__isnull=False),
    )
    return (
        tuple(books(lab).items()),
        tuple(payments_),
        tuple(Refund.objects.values_list("state", "amount_minor", "refund_id", "lot_micros")),
        tuple(disputes.values_list("status", "amount_minor", "lot_micros", "is_out", "is_back", "is_over")),
        tuple(sorted(Transfer.objects.values_list("kind", "amount_micros", "debit__kind", "credit__kind"))),
    )


def news(stripe, *types):
    """Return one event of each type."""
    events = {event["type"]: event for event in stripe.events()}
    return [inbox._read(bytes_of(events[kind])) for kind in types]


def bytes_of(event):
    from apps.payments.sandbox.webhooks import body_of

    return body_of(event)


@pytest.mark.django_db
@pytest.mark.parametrize("won", [True, False])
def test_every_order_of_a_top_up_a_partial_refund_and_a_dispute_ends_the_same(stripe, lab, monkeypatch, won):
    payment = top_up(lab)
    stripe.pay(payment.checkout_url)
    intent = next(stripe.store.newest("payment_intent"))
    stripe.engine.create_refund({"payment_intent": intent["id"], "amount": "1000"})
    dispute = stripe.act("dispute", charge=intent["latest_charge"], amount=1500)
    stripe.act("end-dispute", dispute=dispute["id"], won=won)
    told = news(
        stripe,
        "checkout.session.completed",
        "payment_intent.succeeded",
        "refund.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
    )
    remembering = Remembering(gateway.current())
    monkeypatch.setattr(gateway, "current", lambda: remembering)
    now = timezone.now()
    number = count()
    leads_to = {}

    def explore():
        """Tell everything in every state that can be reached, and note to which state each piece of news leads."""
        here = outcome(lab)
        if here in leads_to:
            return here
        leads_to[here] = {}
        assert failing() == []
        for note in told:
            with pytest.raises(Undone), transaction.atomic():  # noqa: PT012  The raise is what undoes it.
                fields = {name: getattr(note, name) for name in note.__slots__}
                inbox.take_note(gateway.EventNote(**fields | {"id": f"{note.id}_{next(number)}"}), now=now)
                assert payments.process_events(now=now).failed == 0
                leads_to[here][note.event_type] = explore()
                raise Undone
        return here

    def walk(order):
        here = first
        for note in order:
            here = leads_to[here][note.event_type]
        return here

    first = explore()
    last = {walk(order) for order in permutations(told)}
    money = (("clearing", -15_000_000), ("paid_lot", 15_000_000)) if won else ()
    assert len(last) == 1
    (end,) = last
    assert set(leads_to[end].values()) == {end}
    assert {walk([*order, *order[::-1]]) for order in permutations(told)} == last
    # Whatever else is told twice, and when: there is no state that news does not lead on or leave alone.
    assert all(walk([*order[:cut], *order]) == end for order in permutations(told) for cut in range(6))
    assert end[0] == money
    assert [payment[0] for payment in end[1]] == ["succeeded"]
    assert [refund[:2] for refund in end[2]] == [("succeeded", 1000)]
    posted = [("dispute", 15_000_000), ("refund", 10_000_000), ("top_up", 25_000_000)]
    assert [row[:2] for row in end[4]] == ([posted[0]] if won else []) + posted


@pytest.mark.django_db(transaction=True)
def test_the_webhook_and_the_success_page_at_once_credit_once(stripe, transactional_db):
    lab = build.organization("lab")
    payment = top_up(lab)
    stripe.pay(payment.checkout_url)
    now = timezone.now()

    results = at_once(
        lambda: payments.sync_payment(payment.id, now=now),
        lambda: payments.sync_session(payment.session_id, now=now),
        lambda: payments.sync_payment(payment.id, now=now),
    )

    assert [result.state for result in results] == [PaymentState.SUCCEEDED] * 3
    assert books(lab) == {"clearing": -25_000_000, "paid_lot": 25_000_000}
    assert Transfer.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_workers_share_the_inbox_and_do_nothing_twice(stripe, transactional_db):
    lab = build.organization("lab")
    for _number in range(3):
        stripe.pay(top_up(lab).checkout_url)
    now = timezone.now()
    for event in stripe.events():
        inbox.take_note(inbox._read(bytes_of(event)), now=now)

    done = at_once(*[lambda: payments.process_events(now=now)] * 3)

    assert sum(one.processed for one in done) == len(stripe.events())
    assert not StripeEvent.objects.filter(state=EventState.RECEIVED).exists()
    assert books(lab) == {"clearing": -75_000_000, "paid_lot": 75_000_000}
    assert failing() == []


@pytest.mark.django_db(transaction=True)
def test_a_refund_sent_twice_at_once_is_one_refund(stripe, transactional_db):
    lab = build.organization("lab")
    refund = refunded(paid(stripe, lab), "10.00", sent=False)
    now = timezone.now()

    at_once(*[lambda: payments.send_refund(refund_id=refund.id, now=now)] * 2)

    refund.refresh_from_db()
    assert refund.state == RefundState.SUCCEEDED
    assert len(list(stripe.store.newest("refund"))) == 1
    assert books(lab) == {"clearing": -15_000_000, "paid_lot": 15_000_000}
