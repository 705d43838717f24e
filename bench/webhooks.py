"""Webhooks: how fast they are acknowledged and processed while thousands wait, against the sandbox."""

from __future__ import annotations

import argparse
import http.client
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from apps.payments import gateway
from apps.payments import services as payments
from apps.payments.models import StripeEvent
from apps.payments.sandbox import webhooks
from apps.payments.sandbox.server import Sandbox
from bench import load, processes, stack, world
from config import sandbox

PAYMENTS = 20
ACKNOWLEDGED = 2_000  # Over HTTP, while all the others wait.
WARM = 50
STORED = 500
PROCESSED = 1_000
ASKED = 400


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Let events about a few paid payments wait, acknowledge more over HTTP, process some of those that wait.

    Beside the acknowledgements: one row a commit over one connection, which is the least that they have to do. Beside
    the processing: the question to the sandbox alone, in as many processes.
    """
    count = options.webhooks
    place = sandbox.find(settings.VAR)
    assert place is not None, "reserved before the settings were read"
    running = Sandbox(port=place.port, secret_key=place.secret_key, webhook_secret=place.webhook_secret)
    thread = threading.Thread(target=running.serve, daemon=True)
    thread.start()
    more = min(ACKNOWLEDGED, count)
    warm = min(WARM, more // 2)
    limit = min(PROCESSED, count)
    try:
        intents = _paid_intents(running)
        bodies = [_event(number, intents[number % len(intents)]) for number in range(count + more + STORED)]
        _let_wait(bodies[:count])

        def post(connection: http.client.HTTPConnection, body: bytes) -> float:
            signature = webhooks.sign(body, place.webhook_secret)
            headers = {"Content-Type": "application/json", "Stripe-Signature": signature}
            began = time.perf_counter()
            connection.request("POST", "/payments/webhook", body, headers)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise RuntimeError(f"webhook: {response.status}")
            return time.perf_counter() - began

        with stack.web("config.wsgi", "/healthz") as (port, _master):
            _send(port, bodies[count : count + warm], post)
            seconds, latencies = _send(port, bodies[count + warm : count + more], post)
        stored = _stored_per_s(bodies[count + more :])
        processing, _processing_mb = processes.run(_process, [limit // 2, limit // 2])
        asking, _asking_mb = processes.run(_ask, [intents * (ASKED // 2 // len(intents))] * 2)
    finally:
        running.stop()
    ordered = sorted(latencies)
    acknowledged, processed = len(ordered) / seconds, limit // 2 * 2 / processing
    asked = ASKED // 2 // len(intents) * len(intents) * 2 / asking
    return {
        "webhooks_acknowledged_per_s": round(acknowledged),
        "webhook_rows_per_s": round(stored),
        "webhook_ack_ratio": round(acknowledged / stored, 3),
        "webhook_ack_p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 1),
        "webhooks_processed_per_s": round(processed, 1),
        "webhooks_asked_per_s": round(asked, 1),
        "webhook_process_ratio": round(processed / asked, 3),
        "webhooks_waiting": count,
    }


def _let_wait(bodies: list[bytes]) -> None:
    """Store events as the webhook does, many in one transaction."""
    with transaction.atomic():
        for body in bodies:
            _take(body)


def _stored_per_s(bodies: list[bytes]) -> float:
    """Return how many events one connection stores a second, each committed by itself."""
    began = time.perf_counter()
    for body in bodies:
        _take(body)
    return len(bodies) / (time.perf_counter() - began)


def _take(body: bytes) -> None:
    event = json.loads(body)
    now = datetime.now(UTC)
    StripeEvent(
        id=event["id"],
        event_type=event["type"],
        object_id=event["data"]["object"]["id"],
        is_live=False,
        body=body,
        next_attempt_at=now,
        happened_at=now,
        received_at=now,
    ).save(force_insert=True)


def _send(
    port: int, bodies: list[bytes], post: Callable[[http.client.HTTPConnection, bytes], float]
) -> tuple[float, list[float]]:
    """Send each body over one of a few connections; return the seconds of all and of each."""

    def client(share: list[bytes]) -> list[float]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            return [post(connection, body) for body in share]
        finally:
            connection.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(load.CONNECTIONS) as pool:
        shares = [bodies[place :: load.CONNECTIONS] for place in range(load.CONNECTIONS)]
        latencies = [latency for part in pool.map(client, shares) for latency in part]
    return time.perf_counter() - began, latencies


def _paid_intents(running: Sandbox) -> list[str]:
    found = []
    for organization in world.make_organizations(PAYMENTS, "webhooks"):
        now = timezone.now()
        payment = payments.start_top_up(
            actor=world.ACTOR, organization=organization, amount=Decimal(25), now=now
        )
        session_id = payments.open_checkout(payment_id=payment.id, now=now).session_id
        assert session_id is not None, "the sandbox has opened it"
        with running.store.transaction():
            method = running.engine.add_method("4242424242424242", month=12, year=2034)
            session = running.engine.pay_session(session_id, method)
        found.append(session["payment_intent"])
    return found


def _event(number: int, intent_id: str) -> bytes:
    data = {"object": {"id": intent_id, "object": "payment_intent"}}
    event = {
        "id": f"evt_bench{number}",
        "object": "event",
        "type": "payment_intent.succeeded",
        "created": int(time.time()),
        "livemode": False,
        "data": data,
        "padding": "x" * 2_500,  # About what Stripe sends for an intent.
    }
    return json.dumps(event).encode()


def _process(limit: int) -> None:
    done = payments.process_events(now=timezone.now(), limit=limit)
    assert done.processed == limit, done


def _ask(intents: list[str]) -> None:
    for intent in intents:
        assert gateway.current().intent(intent).status == "succeeded"
