"""The cache when its server is away: empty, instead of an error on every page that looks into it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis
import structlog
from django.core.cache.backends.redis import RedisCache

logger = structlog.get_logger(__name__)

# How long nobody asks a server that did not answer.
AWAY_SECONDS = 5.0


def _patient(name: str, empty: Callable[..., Any]) -> Callable[..., Any]:
    """Return the cache's method of that name; while the server is away it answers `empty` of its arguments."""
    inherited = getattr(RedisCache, name)

    def ask(self: PatientRedisCache, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() >= self.away_until:
            try:
                return inherited(self, *args, **kwargs)
            except (redis.RedisError, OSError) as error:
                self.away_until = time.monotonic() + AWAY_SECONDS
                logger.warning("cache_away", reason=str(error))
        return empty(*args, **kwargs)

    return ask


class PatientRedisCache(RedisCache):
    """Django's cache on Redis or Valkey; nothing that must be right is kept in it, so it may be empty at any time."""

    away_until = 0.0

    add = _patient("add", lambda *_key, **_how: True)
    get = _patient("get", lambda _key, default=None, **_how: default)
    set = _patient("set", lambda *_key, **_how: None)
    touch = _patient("touch", lambda *_key, **_how: False)
    delete = _patient("delete", lambda *_key, **_how: False)
    get_many = _patient("get_many", lambda *_keys, **_how: {})
    has_key = _patient("has_key", lambda *_key, **_how: False)
    set_many = _patient("set_many", lambda *_data, **_how: [])
    delete_many = _patient("delete_many", lambda *_keys, **_how: None)
