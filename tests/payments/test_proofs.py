"""`verify_ledger` on what moved through Stripe: whatever is not posted exactly once is named."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.utils import timezone

from apps.billing import services as billing
from apps.core.actor import system_actor
from apps.core.ids import uuid7
from apps.ledger.services import AccountKind
from apps.payments import services as payments
from tests.money import failing
from tests.payments.paid import paid, refunded

pytestmark = pytest.mark.django_db


BROKEN = {
    "a payment that is not posted": (
        """
        INSERT INTO payments_payment SELECT (jsonb_populate_record(p, jsonb_build_object(
            'id', gen_random_uuid(), 'intent_id', 'pi_lost', 'session_id', 'cs_lost', 'lot_id', null))).*
        FROM payments_payment p WHERE id = %(payment)s
        """,
        "pi_lost in: moved 25000000, posted 0 in 0",
    ),
    "a payment of another amount": (
        "UPDATE payments_payment SET amount_minor = 2600 WHERE id = %(payment)s",
        " in: moved 26000000, posted 25000000 in 1",
    ),
    "a refund that never failed": (
        "UPDATE payments_refund SET state = 'succeeded' WHERE state = 'failed'",
        " in: moved 0, posted 10000000 in 1",
    ),
    "a dispute whose funds never left": (
        "UPDATE payments_dispute SET withdrawn_at = null, reinstated_at = null",
        " out: moved 0, posted 25000000 in 1",
    ),
}


def test_what_is_not_posted_exactly_once_is_named(stripe, lab):
    payment = paid(stripe, lab, number="4000000000005126")
    refunded(payment, "10.00")
    payments.sync_refund(next(stripe.store.newest("refund"))["id"], now=timezone.now())
    other = paid(stripe, lab)
    made = stripe.engine.create_refund({"payment_intent": other.intent_id, "amount": "300"})
    payments.sync_refund(made["id"], now=timezone.now())
    dispute = stripe.act(
        "dispute", charge=stripe.engine.get("payment_intent", payment.intent_id)["latest_charge"]
    )
    stripe.act("end-dispute", dispute=dispute["id"], won=True)
    payments.sync_dispute(dispute["id"], now=timezone.now())
    assert failing() == []

    for broken, (change, says) in BROKEN.items():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute(change, {"payment": payment.id})
            found = failing()
            transaction.set_rollback(True)
        failures = [failure for check in found for failure in check.failures]
        assert any(says in failure for failure in failures), (broken, failures)


def test_money_on_clearing_that_no_payment_explains_fails(stripe, lab):
    paid(stripe, lab)
    billing.receive_payment(
        actor=system_actor("payments", lab.id),
        organization_id=lab.id,
        currency="USD",
        payment_id=(unknown := uuid7()),
        amount_micros=1_000_000,
        funded_by=AccountKind.CLEARING,
        source="top_up",
        reason="nobody's",
        reference="pi_unknown",
        now=timezone.now(),
    )

    (check,) = failing()

    assert check.failures == (f"lot:{unknown}:1 in: moved 0, posted 1000000 in 1",)
