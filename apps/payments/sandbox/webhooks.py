"""Webhooks on their way out: signed, in their own time, again until they are taken; lost or shuffled when told."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from apps.payments.sandbox import shapes
from apps.payments.sandbox.store import Body, Store, now

# Stripe goes on for three days; a demonstration should not.
PAUSES_SECONDS = (1, 3, 10, 30, 120, 600)
_TIMEOUT_SECONDS = 10

Send = Callable[[bytes, str], int]


def sign(body: bytes, secret: str, *, at: int | None = None) -> str:
    """Return the Stripe-Signature header of a body."""
    moment = at if at is not None else now()
    mac = hmac.new(secret.encode(), str(moment).encode() + b"." + body, hashlib.sha256)
    return f"t={moment},v1={mac.hexdigest()}"


def body_of(event: Body) -> bytes:
    """Return the bytes of an event as they are sent and signed: indented, as Stripe's are."""
    shown = {**event, "data": {**event["data"], "object": shapes.public(event["data"]["object"])}}
    return json.dumps(shown, indent=2).encode()


class Deliverer(threading.Thread):
    """Sends what is due until it is stopped.

    mode: `now`; `hold` keeps everything back; `lose` counts it as sent; `twice` sends each again; `backwards` sends
    what waited for a second in the opposite order.
    """

    MODES = ("now", "hold", "lose", "twice", "backwards")

    def __init__(self, store: Store, *, url: str, secret: str, send: Send | None = None) -> None:
        super().__init__(name="webhooks", daemon=True)
        self.store = store
        self.url = url
        self.secret = secret
        self.mode = "now"
        self._send = send or self._post
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(0.05 if self.mode != "backwards" else 1):
            self.deliver_due()

    def stop(self) -> None:
        self._stopping.set()

    def deliver_due(self) -> int:
        """Send everything that is due once, and return how many there were."""
        if self.mode == "hold":
            return 0
        order = "DESC" if self.mode == "backwards" else "ASC"
        rows = self.store.run(
            f"SELECT seq, event, attempts FROM delivery WHERE state = 'waiting' AND due <= ? ORDER BY seq {order} "  # noqa: S608  Two words of ours.
            "LIMIT 100",
            time.time(),
        )
        for seq, event_id, attempts in rows:
            self._deliver(seq, event_id, attempts)
        return len(rows)

    def _deliver(self, seq: int, event_id: str, attempts: int) -> None:
        event = self.store.find("event", event_id)
        assert event is not None, "an event is never deleted"
        body = body_of(event)
        status, answer = 200, "lost"
        if self.mode != "lose":
            for _copy in range(2 if self.mode == "twice" else 1):
                status = self._send(body, sign(body, self.secret))
            answer = str(status)
        if 200 <= status < 300:
            self.store.run(
                "UPDATE delivery SET state = 'delivered', attempts = ?, answer = ? WHERE seq = ?",
                attempts + 1, answer, seq,
            )  # fmt: skip
            return
        state = "failed" if attempts >= len(PAUSES_SECONDS) else "waiting"
        due = time.time() + PAUSES_SECONDS[min(attempts, len(PAUSES_SECONDS) - 1)]
        self.store.run(
            "UPDATE delivery SET state = ?, attempts = ?, due = ?, answer = ? WHERE seq = ?",
            state, attempts + 1, due, answer, seq,
        )  # fmt: skip

    def send_again(self, event_id: str) -> None:
        """Queue an event once more, whatever became of it."""
        self.store.run("INSERT INTO delivery (event, due) VALUES (?, ?)", event_id, time.time())

    def _post(self, body: bytes, signature: str) -> int:
        request = urllib.request.Request(  # noqa: S310  Plain http, on this machine.
            self.url,
            data=body,
            headers={
                "Content-Type": "application/json; charset=utf-8",
                "Stripe-Signature": signature,
                "User-Agent": "Stripe/1.0 (sandbox)",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310  As above.
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


def deliveries(store: Store, limit: int = 30) -> list[dict[str, Any]]:
    """Return the newest deliveries with their events, for the control page."""
    rows = store.run(
        "SELECT delivery.event, delivery.state, delivery.attempts, delivery.answer, object.body FROM delivery "
        "JOIN object ON object.id = delivery.event ORDER BY delivery.seq DESC LIMIT ?",
        limit,
    )
    return [
        {
            "event": event,
            "state": state,
            "attempts": attempts,
            "answer": answer,
            "type": json.loads(body)["type"],
            "about": json.loads(body)["data"]["object"]["id"],
        }
        for event, state, attempts, answer, body in rows
    ]
