"""kill -9 between our row, the call and the result: one charge there, one credit here, whoever goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.utils import timezone

from apps.payments import services as payments
from apps.payments.models import PaymentState, RefundState
from apps.payments.services import attempts, inbox
from tests import build
from tests.money import books, failing
from tests.payments.conftest import SECRET_KEY, sandbox, stripe  # noqa: F401  Fixtures.
from tests.payments.paid import card, paid, refunded, top_up
from tests.threads import PATIENCE_SECONDS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.faults]

# One step of payments on the test's database and sandbox, in a development run, where failpoints act.
CHILD = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
settings.DEBUG = True
settings.STRIPE_SECRET_KEY, settings.STRIPE_API_BASE = sys.argv[2], sys.argv[3]
import django
django.setup()
from uuid import UUID
from django.utils import timezone
from apps.payments import services as payments
now = timezone.now()
match sys.argv[4:]:
    case ["charge", key]: payments.charge_card(payment_id=UUID(key), now=now)
    case ["open", key]: payments.open_checkout(payment_id=UUID(key), now=now)
    case ["refund", key]: payments.send_refund(refund_id=UUID(key), now=now)
    case ["events"]: payments.process_events(now=now)
"""


def die(stripe, point, *step):  # noqa: F811
    """Do a step in a process of its own that is killed at a point."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, connection.settings_dict["NAME"], SECRET_KEY, stripe.url, *step],
        cwd=django_settings.ROOT,
        env={**os.environ, "COUNTINGHOUSE_FAIL_AT": point},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def later():
    return timezone.now() + attempts.LEASE + timedelta(seconds=1)


CREDITED = {"clearing": -25_000_000, "paid_lot": 25_000_000}


@pytest.mark.parametrize(
    "point",
    ["payments.before_call", "payments.after_intent", "payments.after_call", "payments.before_commit"],
)
def test_a_killed_charge_is_one_charge_and_one_credit(stripe, transactional_db, point):  # noqa: F811
    lab = build.organization("lab")
    card(stripe, lab)
    amounts = {"threshold": Decimal(10), "amount": Decimal(25), "monthly_cap": Decimal(100)}
    payments.set_auto_top_up(actor=build.actor(lab), organization=lab, now=timezone.now(), **amounts)
    payment = payments.start_if_low(organization_id=lab.id, now=timezone.now())

    die(stripe, point, "charge", str(payment.id))
    assert books(lab) == {}

    for _time in range(2):
        assert payments.resume(payment_id=payment.id, now=later()).state == PaymentState.SUCCEEDED
    assert [charge["status"] for charge in stripe.store.newest("charge")] == ["succeeded"]
    assert books(lab) == CREDITED
    assert failing() == []


@pytest.mark.parametrize("point", ["payments.before_call", "payments.after_call"])
def test_a_killed_checkout_is_one_page(stripe, transactional_db, point):  # noqa: F811
    lab = build.organization("lab")
    payment = payments.start_top_up(
        actor=build.actor(lab), organization=lab, amount=Decimal(25), now=timezone.now()
    )

    die(stripe, point, "open", str(payment.id))

    found = payments.open_checkout(payment_id=payment.id, now=later())
    assert [session["id"] for session in stripe.store.newest("checkout.session")] == [found.session_id]


@pytest.mark.parametrize(
    "point", ["payments.before_refund", "payments.after_refund", "payments.before_commit"]
)
def test_a_killed_refund_is_one_refund(stripe, transactional_db, point):  # noqa: F811
    lab = build.organization("lab")
    refund = refunded(paid(stripe, lab), "10.00", sent=False)

    die(stripe, point, "refund", str(refund.id))

    for _time in range(2):
        assert payments.send_refund(refund_id=refund.id, now=later()).state == RefundState.SUCCEEDED
    assert len(list(stripe.store.newest("refund"))) == 1
    assert books(lab) == {"clearing": -15_000_000, "paid_lot": 15_000_000}
    assert failing() == []


@pytest.mark.parametrize("point", ["payments.before_commit", "payments.before_processed"])
def test_an_event_whose_worker_was_killed_is_processed_by_the_next(stripe, transactional_db, point):  # noqa: F811
    from apps.payments.sandbox.webhooks import body_of

    lab = build.organization("lab")
    stripe.pay(top_up(lab).checkout_url)
    paid_event = next(event for event in stripe.events() if event["type"] == "payment_intent.succeeded")
    inbox.take_note(inbox._read(body_of(paid_event)), now=timezone.now())

    die(stripe, point, "events")

    assert payments.process_events(now=timezone.now()) == inbox.Drained(processed=0, failed=0)
    assert payments.process_events(now=later()) == inbox.Drained(processed=1, failed=0)
    assert books(lab) == CREDITED
    assert failing() == []
