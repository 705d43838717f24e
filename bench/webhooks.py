"""Webhooks: how fast they are acknowledged and processed while thousands wait, against the sandbox."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

from bench import load, stack

PAYMENTS = 20
MORE = 500  # Acknowledged while all the others wait.
PROCESSED = 1_000


def measure(count: int, in_processes: Callable[[Callable[[Any], int], list[Any]], int]) -> dict[str, float]:
    """Send `count` signed events about a few paid payments, then some more, then process some of those that wait."""
    from django.conf import settings

    from apps.payments.sandbox import webhooks
    from apps.payments.sandbox.server import Sandbox
    from config import sandbox

    place = sandbox.find(settings.VAR)
    assert place is not None, "reserved before the settings were read"
    running = Sandbox(port=place.port, secret_key=place.secret_key, webhook_secret=place.webhook_secret)
    thread = threading.Thread(target=running.serve, daemon=True)
    thread.start()
    try:
        intents = _paid_intents(running)
        bodies = [_event(number, intents[number % len(intents)]) for number in range(count + MORE)]

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
            seconds, _latencies = _send(port, bodies[:count], post)
            _seconds, latencies = _send(port, bodies[count:], post)
        limit = min(PROCESSED, count)
        began = time.perf_counter()
        in_processes(_process, [limit // 2, limit // 2])
        processing = time.perf_counter() - began
    finally:
        running.stop()
    ordered = sorted(latencies)
    return {
        "webhooks_acknowledged_per_s": round(count / seconds),
        "webhook_ack_p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 1),
        "webhooks_processed_per_s": round(limit // 2 * 2 / processing, 1),
        "webhooks_waiting": count,
    }


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


def _paid_intents(running: Any) -> list[str]:
    from django.utils import timezone

    from apps.payments import services as payments
    from bench import world

    found = []
    for organization in world.make_organizations(PAYMENTS, "webhooks"):
        now = timezone.now()
        payment = payments.start_top_up(
            actor=world.ACTOR, organization=organization, amount=Decimal(25), now=now
        )
        session_id = payments.open_checkout(payment_id=payment.id, now=now).session_id
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


def _process(limit: int) -> int:
    import os

    from django.utils import timezone

    from apps.payments import services as payments

    done = payments.process_events(now=timezone.now(), limit=limit)
    assert done.processed == limit, done
    return stack.peak_rss_mb(os.getpid())
