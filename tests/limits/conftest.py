"""Limits without Valkey."""

from __future__ import annotations

import pytest

from tests.conftest import forget_stores


@pytest.fixture
def valkey_stopped(limited, settings):
    """Point the limits at a port where nothing listens."""
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    forget_stores()
