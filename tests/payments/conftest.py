"""A sandbox for each test, whose every answer and request is held against Stripe's own description."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from stripe import HTTPClient

from apps.organizations.models import Organization
from apps.payments import services as payments
from apps.payments.sandbox import webhooks
from apps.payments.sandbox.api import Answer
from apps.payments.sandbox.server import Sandbox
from tests import build
from tests.payments import stripe_schema
from tests.payments.paid import paid

SECRET_KEY = "sk_test_of_the_tests"
WEBHOOK_SECRET = "whsec_of_the_tests"
APRIL = datetime(2026, 4, 10, tzinfo=UTC)


class TestedSandbox(Sandbox):
    """A sandbox that keeps its webhooks until a test takes them, and every breach of Stripe's shapes."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__(port=0, secret_key=SECRET_KEY, webhook_secret=WEBHOOK_SECRET, send=self._keep)
        self.sent: list[tuple[bytes, str]] = []
        self.problems: list[str] = []
        honest = self.api.answer

        def answer(method: str, path: str, query: str, headers: Any, body: bytes) -> Answer:
            found = honest(method, path, query, headers, body)
            text = body.decode() if method == "POST" else query
            if found.status == 200:
                self.problems += stripe_schema.problems_of_request(method, path, text)
                self.problems += stripe_schema.problems_of_object(found.body)
            return found

        self.api.answer = answer  # type: ignore[method-assign]

    def _keep(self, body: bytes, signature: str) -> int:
        self.sent.append((body, signature))
        return 200

    def events(self) -> list[dict[str, Any]]:
        """Return every event so far, oldest first."""
        return list(self.store.newest("event"))[::-1]

    def event_types(self) -> list[str]:
        return [event["type"] for event in self.events()]

    def act(self, verb: str, **fields: Any) -> dict[str, Any]:
        """Do what the control page does."""
        return self.pages.act(verb, fields)

    def pay(self, session_url: str, number: str = "4242424242424242", **form: str) -> str:
        """Fill in a hosted page and return where the browser goes next, or "" where it stays."""
        from apps.payments.sandbox.pages import Redirect

        session_id = session_url.rpartition("/")[2]
        fields = {"method": "card", "number": number, "expiry": "12 / 34", "cvc": "123", **form}
        try:
            self.pages.checkout(session_id, fields)
        except Redirect as redirect:
            return redirect.url
        return ""

    def confirm(self, path: str, answer: str = "confirm") -> str:
        """Answer the bank's question and return where the browser goes next."""
        from apps.payments.sandbox.pages import Redirect

        with pytest.raises(Redirect) as gone:
            self.pages.bank(path.rpartition("/")[2], {"answer": answer})
        return gone.value.url


def signed(
    event: dict[str, Any], *, secret: str = WEBHOOK_SECRET, at: int | None = None
) -> tuple[bytes, str]:
    """Return the bytes and the signature of an event as the sandbox would send it."""
    body = webhooks.body_of(event)
    return body, webhooks.sign(body, secret, at=at)


@pytest.fixture
def sandbox() -> Iterator[TestedSandbox]:
    running = TestedSandbox()
    thread = threading.Thread(target=running.serve, daemon=True)
    thread.start()
    yield running
    events = [json.loads(webhooks.body_of(event)) for event in running.events()]
    running.stop()
    thread.join(10)
    wrong = [problem for event in events for problem in stripe_schema.problems_of_object(event)]
    assert running.problems + wrong == []


# --- Our side of it ---


@pytest.fixture
def stripe(sandbox: TestedSandbox, settings: Any, monkeypatch: pytest.MonkeyPatch) -> TestedSandbox:
    """Point the application at this test's sandbox and return it; what is tried again is tried at once."""
    monkeypatch.setattr(HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(HTTPClient, "MAX_DELAY", 0.001)
    settings.STRIPE_SECRET_KEY = SECRET_KEY
    settings.STRIPE_API_BASE = sandbox.url
    settings.STRIPE_WEBHOOK_SECRETS = [WEBHOOK_SECRET]
    return sandbox


@pytest.fixture
def lab(db: None) -> Organization:
    return build.organization("lab", billing_email="money@lab.example")


@pytest.fixture
def old_lab(db: None) -> Organization:
    return build.organization("lab", billing_email="money@lab.example", now=APRIL)


@pytest.fixture
def invoice(old_lab: Organization) -> Any:
    """An open invoice of 10.00."""
    build.price_book({"unit_price": "2.50"})
    build.usage(old_lab, APRIL, APRIL + timedelta(hours=4))
    return build.closed(old_lab, "2026-04").invoice


@pytest.fixture
def credit_and_debt(stripe: TestedSandbox, old_lab: Organization) -> Any:
    """An open invoice of 10.00, and 25.00 of paid credit that a bank gave back after it."""
    paid(stripe, old_lab)
    charge = next(stripe.store.newest("charge"))
    dispute = stripe.act("dispute", charge=charge["id"])
    payments.sync_dispute(dispute["id"], now=timezone.now())
    build.price_book({"unit_price": "2.50"})
    build.usage(old_lab, APRIL, APRIL + timedelta(hours=4))
    invoice = build.closed(old_lab, "2026-04").invoice
    stripe.act("end-dispute", dispute=dispute["id"], won=True)
    payments.sync_dispute(dispute["id"], now=timezone.now())
    return invoice


@pytest.fixture
def deliver(client: Any) -> Any:
    """Return the function that sends an event to the webhook as Stripe would, and returns the status."""

    def send(event: dict[str, Any], **how: Any) -> int:
        body, signature = signed(event, **how)
        return client.post(
            "/payments/webhook",
            body,
            content_type="application/json",
            headers={"Stripe-Signature": signature},
        ).status_code

    return send
