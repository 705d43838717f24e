"""Things that happen at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connections

# Before something is taken to hang. A busy machine starts a thread whenever it likes.
PATIENCE_SECONDS = 120


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Do everything at once, each in its own thread and connection; return results, or what was raised, in order."""
    barrier = threading.Barrier(len(works), timeout=PATIENCE_SECONDS)
    results: list[Any] = [None] * len(works)

    def run(place: int) -> None:
        try:
            barrier.wait()
            results[place] = works[place]()
        except Exception as error:  # noqa: BLE001  Told by the test, not lost in a thread.
            results[place] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[place]) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    return results
