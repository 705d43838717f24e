"""The gateway beside processes and beside the life of an idempotency key."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from django.utils import timezone

from apps.payments import gateway
from apps.payments.gateway import Key, KeyTooOld
from tests.build import NOW


# The child does nothing that a thread of its parent could have locked.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_makes_connections_of_its_own(settings):
    settings.STRIPE_SECRET_KEY = "sk_test_forked"
    parents = gateway.current()
    assert gateway.current() is parents

    child = os.fork()
    if not child:
        os._exit(gateway.current() is parents)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gateway.current() is parents


MONEY = {"reference": "x", "amount_minor": 1, "currency": "USD"}
WRITES = {
    "customer": lambda api, key: api.create_customer(name="Lab", email="", reference="x", key=key),
    "intent": lambda api, key: api.create_intent(
        customer_id="cus_1", method_id="pm_1", description="", key=key, **MONEY
    ),
    "confirmation": lambda api, key: api.confirm_intent("pi_1", off_session=True, return_url="", key=key),
    "cancellation": lambda api, key: api.cancel_intent("pi_1", key=key),
    "refund": lambda api, key: api.create_refund(intent_id="pi_1", key=key, **MONEY),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_nothing_is_sent_with_a_key_that_stripe_may_have_forgotten(write, monkeypatch, settings):
    settings.STRIPE_SECRET_KEY = "sk_test_old"
    monkeypatch.setattr(timezone, "now", lambda: NOW)

    with pytest.raises(KeyTooOld):
        write(gateway.current(), Key(text="old", since=NOW - timedelta(hours=23)))

    assert Key(text="young", since=NOW - timedelta(hours=23) + timedelta(seconds=1)).checked(NOW) == "young"
