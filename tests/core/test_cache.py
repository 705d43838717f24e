"""The cache without its server: empty, and not asked again for a while."""

from __future__ import annotations

import time

import pytest

from apps.core.cache import PatientRedisCache


@pytest.fixture
def away():
    """Return the cache of a server that does not listen."""
    return PatientRedisCache("redis://127.0.0.1:1/0", {"OPTIONS": {"socket_connect_timeout": 0.2}})


def test_everything_is_missing_and_nothing_is_refused(away):
    assert away.get("a") is None
    assert away.get("a", "other") == "other"
    assert away.add("a", 1) is True
    assert away.set("a", 1, timeout=5) is None
    assert away.touch("a") is False
    assert away.delete("a") is False
    assert away.get_many(["a", "b"]) == {}
    assert away.has_key("a") is False
    assert away.set_many({"a": 1}) == []
    assert away.delete_many(["a"]) is None
    assert away.get_or_set("a", lambda: 7) == 7


def test_it_is_asked_again_only_after_a_while(away, monkeypatch):
    away.get("a")
    asked = []
    monkeypatch.setattr(type(away._cache), "get", lambda _client, *key: asked.append(key))

    away.get("b")
    assert asked == []
    away.away_until = time.monotonic()
    away.get("c")
    assert len(asked) == 1


def test_a_login_page_works_without_it(client, db, settings):
    settings.CACHES = {
        "default": {
            "BACKEND": "apps.core.cache.PatientRedisCache",
            "LOCATION": "redis://127.0.0.1:1/0",
            "OPTIONS": {"socket_connect_timeout": 0.2},
        }
    }

    answer = client.post("/accounts/login/", {"login": "ada@example.com", "password": "wrong"})

    assert answer.status_code == 200
    assert "not correct" in answer.content.decode()
