"""Deleting an organization and its payments: not while money may still move, and afterwards nothing is charged."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from threading import Thread

import pytest
from django.db import connections
from django.utils import timezone

from apps.core.errors import NotFound
from apps.organizations import services as organizations
from apps.organizations.models import Organization
from apps.payments import services as payments
from apps.payments.models import Payment
from tests import build
from tests.money import failing
from tests.payments.paid import card, paid, refunded, top_up
from tests.payments.test_cards import rule

pytestmark = pytest.mark.django_db
REFUND_TAKES_TIME = "4000000000007726"
# For what has to wait for a lock to show that it does.
A_MOMENT = 1.0


def open_codes(lab):
    return [blocker["code"] for blocker in organizations.open_business(organization=lab, now=timezone.now())]


def delete(lab):
    organizations.delete_organization(actor=build.actor(lab), organization=lab, now=timezone.now())


@pytest.fixture
def after_asking(settings, monkeypatch):
    """Do something in another connection while an organization is deleted, once this many blockers were asked."""

    def arrange(asked, work):
        def run():
            try:
                work()
            finally:
                connections.close_all()

        thread = Thread(target=run)

        def meanwhile(**_asked):
            if thread.ident is None:
                thread.start()
                thread.join(A_MOMENT)
            return ()

        monkeypatch.setitem(globals(), "meanwhile", meanwhile)
        blockers = list(settings.ORGANIZATION_DELETE_BLOCKERS)
        blockers.insert(asked, f"{__name__}.meanwhile")
        settings.ORGANIZATION_DELETE_BLOCKERS = blockers
        return thread.join

    return arrange


def test_a_page_that_may_still_be_paid_stands_against_it(stripe, lab):
    payment = top_up(lab)
    assert open_codes(lab) == ["payment_open"]

    session = stripe.engine.get("checkout.session", payment.session_id)
    stripe.engine.expire_session(session["id"])
    payments.sync_payment(payment.id, now=timezone.now())

    assert open_codes(lab) == []


def test_a_refund_stands_against_it_until_the_bank_has_it(stripe, lab):
    refund = refunded(paid(stripe, lab, number=REFUND_TAKES_TIME))
    assert open_codes(lab) == ["refund_open"]
    with pytest.raises(organizations.HasOpenBusiness):
        delete(lab)

    stripe.act("end-refund", refund=refund.refund_id, succeeds=False)
    payments.sync_refund(refund.refund_id, now=timezone.now())
    assert open_codes(lab) == ["credit_left"], "what came back"

    assert failing() == []


def test_a_dispute_stands_against_it_until_it_is_decided(stripe, lab):
    payment = paid(stripe, lab)
    charge = stripe.engine.get("payment_intent", payment.intent_id)["latest_charge"]
    dispute = stripe.act("dispute", charge=charge)
    payments.sync_dispute(dispute["id"], now=timezone.now())
    assert open_codes(lab) == ["dispute_open"]

    stripe.act("end-dispute", dispute=dispute["id"], won=False)
    payments.sync_dispute(dispute["id"], now=timezone.now())

    assert open_codes(lab) == []


def test_the_card_of_a_deleted_organization_is_not_charged_by_itself(stripe, lab):
    card(stripe, lab)
    rule(lab)
    delete(lab)

    assert payments.queue_auto_top_ups(now=timezone.now()) == 0
    assert payments.start_if_low(organization_id=lab.id, now=timezone.now()) is None
    assert not Payment.objects.exists()

    organizations.restore_organization(
        actor=build.actor(), organization=lab, reason="asked", now=timezone.now() + timedelta(days=1)
    )
    assert payments.queue_auto_top_ups(now=timezone.now()) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("asked", [1, 2])
def test_a_first_payment_that_comes_in_meanwhile_is_not_missed(stripe, lab, after_asking, asked):
    payment = top_up(lab)
    stripe.pay(payment.checkout_url)
    wait = after_asking(asked, lambda: payments.sync_payment(payment.id, now=timezone.now()))

    with pytest.raises(organizations.HasOpenBusiness):
        delete(lab)
    wait()

    payment.refresh_from_db()
    assert payment.state == "succeeded"
    assert open_codes(lab) == ["credit_left"]


@pytest.mark.django_db(transaction=True)
def test_a_card_that_is_to_be_charged_waits_for_the_deletion(stripe, lab, after_asking):
    card(stripe, lab)
    rule(lab)
    build.credit(lab, "1", pot="promo", now=timezone.now())
    wait = after_asking(3, lambda: payments.start_if_low(organization_id=lab.id, now=timezone.now()))

    delete(lab)
    wait()

    assert Organization.objects.get(pk=lab.pk).status == "deleted"
    assert not Payment.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_no_page_is_made_to_pay_for_what_is_deleted_meanwhile(stripe, lab, after_asking):
    def pay():
        with suppress(NotFound):
            top_up(lab)

    wait = after_asking(3, pay)

    delete(lab)
    wait()

    assert Organization.objects.get(pk=lab.pk).status == "deleted"
    assert not Payment.objects.exists()
