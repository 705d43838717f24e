"""Where buckets are: in Valkey for all processes, in this process while Valkey is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import redis
import structlog
from django.conf import settings
from prometheus_client import Counter
from redis.backoff import NoBackoff
from redis.retry import Retry

from apps.limits.policies import Bucket, Step, Verdict, step, verdict

logger = structlog.get_logger(__name__)

UNSHARED = Counter(
    "countinghouse_rate_limit_unshared_total",
    "Requests counted without Valkey: by this process alone, or guesses by PostgreSQL.",
    ["store"],
)

PREFIX = "countinghouse:limit:"
SECONDS_MAX = 0.1
# How long nobody asks a Valkey that did not answer: a dead one then costs one request in five seconds 0.1 s.
AWAY_SECONDS = 5.0
LOCAL_BUCKETS_MAX = 10_000

# KEYS: buckets. ARGV: interval and burst of each, in microseconds and requests. All are moved, or none is.
# Returns for each bucket its wait and the moment at which it would be whole.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = {}
local moved, allowed = {}, true
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local whole_at = math.max(tonumber(redis.call('GET', key) or '0'), now) + interval
  local wait = whole_at - interval * burst - now
  allowed = allowed and wait <= 0
  moved[i] = whole_at
  answer[#answer + 1] = string.format('%.0f', wait)
  answer[#answer + 1] = string.format('%.0f', whole_at)
end
if allowed then
  for i, key in ipairs(KEYS) do
    redis.call('SET', key, string.format('%.0f', moved[i]), 'PX', math.ceil((moved[i] - now) / 1000) + 1000)
  end
end
return answer
"""


class Away(Exception):
    """Valkey does not answer, or did not just now."""


class SharedStore:
    """Buckets in Valkey, asked in one round trip; away for a few seconds after each failure."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=SECONDS_MAX,
            socket_connect_timeout=SECONDS_MAX,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._script = self._client.register_script(_SCRIPT)
        self._away_until = 0.0

    def take(self, buckets: Sequence[Bucket]) -> Verdict:
        """Take one request from every bucket, or from none; raise Away."""
        arguments = [number for bucket in buckets for number in (bucket.policy.interval, bucket.policy.burst)]
        answer = self._ask(lambda: self._script(keys=_keys(buckets), args=arguments))
        numbers = [int(text) for text in answer]
        steps = [Step(wait=numbers[at], whole_at=numbers[at + 1]) for at in range(0, len(numbers), 2)]
        return verdict([bucket.policy for bucket in buckets], steps)

    def forget(self, buckets: Sequence[Bucket]) -> None:
        """Make buckets whole; raise Away."""
        self._ask(lambda: self._client.delete(*_keys(buckets)))

    def _ask(self, question: Any) -> Any:
        if time.monotonic() < self._away_until:
            raise Away
        try:
            return question()
        except (redis.RedisError, OSError) as error:
            self._away_until = time.monotonic() + AWAY_SECONDS
            logger.warning("rate_limits_unshared", reason=str(error))
            raise Away from error


class LocalStore:
    """Buckets in this process: each process then grants the whole rate."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._whole_at: dict[str, int] = {}

    def take(self, buckets: Sequence[Bucket]) -> Verdict:
        """Take one request from every bucket, or from none."""
        now = time.time_ns() // 1000
        with self._lock:
            if len(self._whole_at) > LOCAL_BUCKETS_MAX:
                self._whole_at = {key: at for key, at in self._whole_at.items() if at > now}
            steps = [step(bucket.policy, self._whole_at.get(bucket.digest, 0), now) for bucket in buckets]
            found = verdict([bucket.policy for bucket in buckets], steps)
            if found.allowed:
                self._whole_at |= {
                    bucket.digest: part.whole_at for bucket, part in zip(buckets, steps, strict=True)
                }
        return found

    def forget(self, buckets: Sequence[Bucket]) -> None:
        """Make buckets whole."""
        with self._lock:
            for bucket in buckets:
                self._whole_at.pop(bucket.digest, None)


@cache
def shared() -> SharedStore | None:
    """Return the store that all processes share; None where the operator has none."""
    return SharedStore(settings.REDIS_URL) if settings.REDIS_URL else None


@cache
def local() -> LocalStore:
    """Return the store of this process."""
    return LocalStore()


def take(buckets: Sequence[Bucket]) -> Verdict:
    """Take one request from every bucket, or from none, wherever they can be found."""
    store = shared()
    if store is not None:
        try:
            return store.take(buckets)
        except Away:
            UNSHARED.labels(store="local").inc()
    return local().take(buckets)


def _keys(buckets: Sequence[Bucket]) -> list[str]:
    return [PREFIX + bucket.digest for bucket in buckets]
