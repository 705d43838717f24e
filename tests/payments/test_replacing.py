"""One invoice, several wishes to pay it: the newest counts, and a page that was paid meanwhile counts before all."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from apps.core.ids import uuid7
from apps.core.permissions import Role
from apps.invoices.models import InvoiceState
from apps.notifications.models import Mail
from apps.payments import gateway
from apps.payments import services as payments
from apps.payments.gateway.client import StripeGateway
from apps.payments.models import Payment, PaymentState
from apps.payments.services import attempts, collecting, top_up
from tests import build
from tests.money import books, failing
from tests.payments.paid import card, pay

pytestmark = pytest.mark.django_db


def sessions(stripe):
    return [(one["amount_total"], one["status"]) for one in stripe.store.newest("checkout.session")][::-1]


def states():
    return list(Payment.objects.order_by("pk").values_list("state", flat=True))


def test_another_amount_is_another_page_and_the_first_can_no_longer_be_paid(stripe, old_lab, invoice):
    first = pay(old_lab, invoice)
    second = pay(old_lab, invoice, amount=Decimal("4.00"))
    again = pay(old_lab, invoice, amount=Decimal("4.00"))

    assert again.id == second.id != first.id
    assert sessions(stripe) == [(1_000, "expired"), (400, "open")]
    assert states() == [PaymentState.EXPIRED, PaymentState.OPEN]
    assert Mail.objects.filter(template__startswith="payments/").count() == 0


def test_the_card_takes_the_place_of_the_page_and_the_page_of_nothing(stripe, old_lab, invoice):
    pay(old_lab, invoice)
    card(stripe, old_lab)

    assert pay(old_lab, invoice).state == PaymentState.SUCCEEDED

    assert sessions(stripe)[0] == (1_000, "expired")
    assert len(list(stripe.store.newest("charge"))) == 1
    assert failing() == []


def test_a_page_that_was_paid_before_it_could_be_closed_counts(stripe, old_lab, invoice, monkeypatch):
    page = pay(old_lab, invoice, amount=Decimal("4.00"))
    card(stripe, old_lab)
    expire = StripeGateway.expire_session

    def paid_at_the_last_moment(self, session_id):
        stripe.pay(page.checkout_url)
        expire(self, session_id)

    monkeypatch.setattr(StripeGateway, "expire_session", paid_at_the_last_moment)

    assert pay(old_lab, invoice).amount_minor == 600

    invoice.refresh_from_db()
    assert (invoice.state, states()) == (InvoiceState.PAID, [PaymentState.SUCCEEDED] * 2)
    assert books(old_lab) == {"clearing": -10_000_000, "revenue": 10_000_000}
    with pytest.raises(collecting.InvoiceNotOpen):
        pay(old_lab, invoice)


def test_a_page_whose_debit_is_on_its_way_stays(stripe, old_lab, invoice):
    page = pay(old_lab, invoice)
    card(stripe, old_lab)
    stripe.pay(page.checkout_url, method="bank")

    with pytest.raises(collecting.PaymentUnderWay):
        pay(old_lab, invoice)

    assert states() == [PaymentState.PROCESSING]
    assert len(list(stripe.store.newest("payment_intent"))) == 1


def test_while_stripe_does_not_answer_the_page_stays(stripe, old_lab, invoice):
    pay(old_lab, invoice)
    stripe.act("fault", match=".*/expire", action="error", status=500, when="before", times=3)

    with pytest.raises(gateway.GatewayError):
        pay(old_lab, invoice, amount=Decimal(4))
    assert states() == [PaymentState.OPEN]
    assert pay(old_lab, invoice, amount=Decimal(4)).amount_minor == 400


@pytest.mark.parametrize("is_made", [True, False])
def test_an_attempt_that_can_no_longer_become_a_page_is_replaced(stripe, old_lab, invoice, is_made):
    """is_made: whether Stripe made the page and only its answer was lost."""
    fault = {"action": "drop"} if is_made else {"action": "error", "status": 500, "when": "before"}
    stripe.act("fault", match="POST /v1/checkout/sessions", times=3, **fault)
    with pytest.raises(gateway.GatewayError):
        pay(old_lab, invoice)
    with pytest.raises(attempts.AttemptInFlight):
        pay(old_lab, invoice)
    stripe.act("clear-faults")
    Payment.objects.update(called_at=timezone.now() - timedelta(minutes=30), leased_until=None)
    lost = Payment.objects.get()

    assert pay(old_lab, invoice).checkout_url

    assert sessions(stripe) == [*[(1_000, "expired")] * is_made, (1_000, "open")]
    with pytest.raises(top_up.AttemptOver):
        payments.open_checkout(payment_id=lost.id, now=timezone.now())
    assert Mail.objects.filter(template__startswith="payments/").count() == 0


def test_an_attempt_of_half_an_hour_is_not_sent_to_stripe_again(stripe, lab):
    payment = payments.start_top_up(
        actor=build.actor(lab), organization=lab, amount=Decimal(25), now=timezone.now()
    )
    Payment.objects.update(called_at=timezone.now() - timedelta(minutes=31))

    with pytest.raises(gateway.KeyTooOld):
        payments.open_checkout(payment_id=payment.id, now=timezone.now())

    assert (sessions(stripe), states()) == ([], [PaymentState.FAILED])


def test_credit_takes_the_place_of_an_open_page_in_the_portal_and_the_api(stripe, old_lab, credit_and_debt):
    pay(old_lab, credit_and_debt)
    owner = build.member(old_lab, Role.OWNER)
    path = f"/app/lab/invoices/{credit_and_debt.id}/pay"

    assert (
        build.browser(owner).post(path, {"amount": "4", "by": "credit", "attempt": uuid7()}).status_code
        == 302
    )
    pay(old_lab, credit_and_debt)
    answer = build.client(build.api_key(old_lab)).post(
        f"/api/v1/billing/invoices/{credit_and_debt.id}/pay",
        {"by": "credit"},
        format="json",
        headers={"X-Idempotency-Key": "pay-the-rest-1"},
    )

    assert (answer.status_code, answer.json()["amount"]) == (201, "6.00")
    assert sessions(stripe)[1:] == [(1_000, "expired"), (600, "expired")]
    assert failing() == []
