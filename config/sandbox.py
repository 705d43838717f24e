"""Where the local stand-in for Stripe is: one address and two secrets of test mode, kept in the state folder."""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from config.embedded.folders import locked, write_private

_FILE = "sandbox.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a client of the sandbox needs to know."""

    port: int
    secret_key: str
    webhook_secret: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def find(var: Path) -> Place | None:
    """Return the place that was reserved in a state folder, or None."""
    try:
        return Place(**json.loads((var / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def reserve(var: Path) -> Place:
    """Return the place of a state folder, making it once; the port stays, so that links in mails keep working."""
    with locked(var, "sandbox"):
        place = find(var)
        if place is None:
            place = Place(
                port=_free_port(),
                secret_key=f"sk_test_sandbox{secrets.token_hex(16)}",
                webhook_secret=f"whsec_{secrets.token_hex(24)}",
            )
            write_private(var / _FILE, json.dumps(asdict(place)))
        return place


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
