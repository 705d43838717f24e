"""How deep a run of the tests looks: everybody's in minutes, `make test-full` for as long as it takes."""

from __future__ import annotations

import os

FULL = bool(os.environ.get("COUNTINGHOUSE_TEST_FULL"))


def examples(usual: int) -> int:
    """Return how many examples to try a property with, each of which needs the database: in full twenty times."""
    return usual * 20 if FULL else usual
