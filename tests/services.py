"""The pytest plugin that starts the embedded services before Django's settings are read.

pytest-django reads the settings earlier than any conftest, so this is named in `addopts`.
"""

from __future__ import annotations

import os

import pytest

from config import embedded
from config.embedded.folders import ROOT

_started = False

if "DATABASE_URL" not in os.environ:
    # Apart from the state of `make run`, so that tests never touch what somebody is looking at.
    os.environ.setdefault("COUNTINGHOUSE_VAR", str(ROOT / "var" / "test"))
    try:
        _started = embedded.endpoints() is None
        embedded.ensure_running()
    except embedded.StartError as error:
        raise SystemExit(str(error)) from None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the services at the end if this session started them; xdist's workers found them running."""
    if _started:
        embedded.stop()
