"""Guarding what can be guessed: passwords, codes, vouchers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import connection, transaction
from django.utils.translation import gettext_lazy as _
from prometheus_client import Counter

from apps.core.errors import DomainError
from apps.limits import stores
from apps.limits.models import GuessBucket
from apps.limits.policies import Bucket, Policy, Step, Verdict, step, verdict

__all__ = [
    "LEAK_REPORT",
    "LOGIN",
    "MAILS",
    "OTP",
    "RESET",
    "SIGN_UP",
    "VOUCHER",
    "Policy",
    "RateLimited",
    "TooManyGuesses",
    "forgive",
    "guard",
    "guess",
    "purge_guesses",
    "refuse_unless_allowed",
]

REFUSED = Counter("countinghouse_rate_limited_total", "Requests and guesses refused, by policy.", ["policy"])

LOGIN = Policy(name="login", per_minute=5, burst=5)
OTP = Policy(name="otp", per_minute=5, burst=5)
# Nothing can be guessed there, but each costs a password hash or a mail to somebody.
SIGN_UP = Policy(name="sign_up", per_minute=5, burst=5)
RESET = Policy(name="password_reset", per_minute=5, burst=5)
MAILS = Policy(name="mails_to_strangers", per_minute=20, burst=20)
VOUCHER = Policy(name="voucher", per_minute=5, burst=5)
LEAK_REPORT = Policy(name="leak_report", per_minute=10, burst=10)

# Inserts the bucket or moves it on, unless that would be further ahead than the burst lasts. The clock is the
# database's and is read while the row is locked: clocks of several processes would give waits longer than the interval.
_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_MOVE = f"""
INSERT INTO limits_guessbucket AS bucket (digest, whole_at) VALUES (%(digest)s, {_CLOCK} + %(interval)s)
ON CONFLICT (digest) DO UPDATE SET whole_at = greatest(bucket.whole_at, {_CLOCK}) + %(interval)s
WHERE greatest(bucket.whole_at, {_CLOCK}) + %(interval)s - %(interval)s * %(burst)s <= {_CLOCK}
"""  # noqa: S608  Only constants are put in.
_LOOK = f"SELECT whole_at, {_CLOCK} FROM limits_guessbucket WHERE digest = %(digest)s"  # noqa: S608  Only constants are put in.


class RateLimited(DomainError):
    """Too many requests or guesses; `retry_after` says after how many seconds the next will be taken."""

    code, http_status = "rate_limited", 429
    default_message = _("Too many requests. Wait a little before the next one.")


class TooManyGuesses(RateLimited):
    """Too many attempts with one account from one address."""

    default_message = _("Too many attempts. Wait a little before the next one.")


def guard(policy: Policy, *keys: str) -> None:
    """Count one guess by whoever the keys name together, or raise TooManyGuesses without counting it.

    keys: such as the account and the client's address, `limiting_address` of it. Call it before looking at the guess,
    outside of any transaction that the guess rolls back. Without Valkey, PostgreSQL counts: guesses are never free.
    """
    if not settings.RATE_LIMITS_ENABLED:
        return
    bucket = _bucket(policy, keys)
    store = stores.shared()
    try:
        found = store.take([bucket]) if store is not None else _take_from_database(bucket)
    except stores.Away:
        stores.UNSHARED.labels(store="database").inc()
        found = _take_from_database(bucket)
    refuse_unless_allowed(found, TooManyGuesses)


def forgive(policy: Policy, *keys: str) -> None:
    """Forget the guesses of whoever has just shown the right password or code.

    Not for vouchers: whoever holds one good code would guess on for ever.
    """
    if not settings.RATE_LIMITS_ENABLED:
        return
    bucket = _bucket(policy, keys)
    store = stores.shared()
    try:
        if store is not None:
            store.forget([bucket])
    except stores.Away:
        GuessBucket.objects.filter(pk=bucket.digest).delete()


@contextmanager
def guess(policy: Policy, *keys: str) -> Iterator[None]:
    """Count one guess before the body looks at it, and forget them all unless the body raises; see `guard`."""
    guard(policy, *keys)
    yield
    forgive(policy, *keys)


def purge_guesses() -> None:
    """Delete the buckets that are whole again."""
    GuessBucket.objects.filter(whole_at__lt=_now()).delete()


def refuse_unless_allowed(found: Verdict, refusal: type[RateLimited] = RateLimited) -> None:
    """Raise a refusal, counted by policy, if a verdict is one."""
    if not found.allowed:
        REFUSED.labels(policy=found.policy.name).inc()
        raise refusal(retry_after=found.retry_after)


@transaction.atomic
def _take_from_database(bucket: Bucket) -> Verdict:
    policy = bucket.policy
    values: dict[str, str | int] = {
        "digest": bucket.digest,
        "interval": policy.interval,
        "burst": policy.burst,
    }
    with connection.cursor() as cursor:
        cursor.execute(_MOVE, values)
        moved = cursor.rowcount == 1
        cursor.execute(_LOOK, values)
        whole_at, now = cursor.fetchone()
    # One that was moved says what came of it; one that was not, what would have.
    moved_on = Step(wait=whole_at - policy.interval * policy.burst - now, whole_at=whole_at)
    return verdict([policy], [moved_on if moved else step(policy, whole_at, now)])


def _bucket(policy: Policy, keys: tuple[str, ...]) -> Bucket:
    return Bucket(policy=policy, key="\0".join(keys))


def _now() -> int:
    return time.time_ns() // 1000
