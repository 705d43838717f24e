"""`python -m apps.payments.sandbox`: run the sandbox at the place that is reserved for it, until told to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading

from apps.payments.sandbox.server import Sandbox
from config import sandbox
from config.embedded.folders import make_var

_LIVE = ("sk_live_", "rk_live_")


def main() -> int:
    """Run until SIGTERM; refuse to start where a live key is in the environment."""
    if os.environ.get("STRIPE_SECRET_KEY", "").startswith(_LIVE):
        sys.stderr.write("The sandbox does not run beside a live key: STRIPE_SECRET_KEY is one.\n")
        return os.EX_CONFIG
    var = make_var()
    place = sandbox.reserve(var)
    port = os.environ.get("PORT") or "8000"
    running = Sandbox(
        port=place.port,
        secret_key=place.secret_key,
        webhook_secret=place.webhook_secret,
        webhook_url=f"http://127.0.0.1:{port}/payments/webhook",
        path=var / "sandbox.sqlite3",
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=running.stop).start())
    running.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
