"""Limits that count, from nothing, in a Valkey of their own numbers."""

from __future__ import annotations

from uuid import uuid4

import pytest

from apps.limits import requests, stores


def forget_stores():
    stores.shared.cache_clear()
    stores.local.cache_clear()
    requests.forget_rates()


@pytest.fixture
def limited(settings, monkeypatch):
    """Count requests and guesses, as in production."""
    settings.RATE_LIMITS_ENABLED = True
    # Other tests use the same server at the same time.
    monkeypatch.setattr(stores, "PREFIX", f"test:{uuid4()}:")
    forget_stores()
    yield
    forget_stores()


@pytest.fixture
def valkey_stopped(limited, settings):
    """Point the limits at a port where nothing listens."""
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    forget_stores()
