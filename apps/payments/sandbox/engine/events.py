"""The objects of an account, and the events about them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from apps.payments.sandbox import shapes
from apps.payments.sandbox.errors import missing
from apps.payments.sandbox.store import Body, Store


class Events:
    """What every part of the engine stands on: the store, and a word about each change."""

    def __init__(self, store: Store, *, base_url: str, api_version: str, webhooks: bool) -> None:
        self.store = store
        self.base_url = base_url
        self.api_version = api_version
        self.webhooks = webhooks
        self.idempotency_key: str | None = None

    def tell(self, kind: str, body: Body, previous: Body | None = None) -> None:
        """Store an event about an object as it is now, and queue its webhook."""
        data: Body = {"object": body, **({"previous_attributes": previous} if previous else {})}
        event = self.store.add(
            "event",
            "evt",
            {
                "api_version": self.api_version,
                "data": data,
                "livemode": False,
                "pending_webhooks": 1 if self.webhooks else 0,
                "request": {"id": f"req_{secrets.token_hex(7)}", "idempotency_key": self.idempotency_key},
                "type": kind,
            },
        )
        if self.webhooks:
            self.store.run("INSERT INTO delivery (event, due) VALUES (?, ?)", event["id"], time.time())

    def set_endpoint(self, url: str, event_types: Sequence[str] = ("*",)) -> None:
        """Note where webhooks go, which clients may ask; there is one such place."""
        body = shapes.webhook_endpoint(url, event_types, self.api_version)
        known = next(self.store.newest("webhook_endpoint"), None)
        if known is None:
            self.store.add("webhook_endpoint", "we", body)
        else:
            self.store.save(known | body)

    def get(self, kind: str, identity: str, *, param: str = "id") -> Body:
        """Return an object or refuse as Stripe does."""
        found = self.store.find(kind, identity)
        if found is None:
            raise missing(kind.rsplit(".", maxsplit=1)[-1], identity, param=param)
        return found
