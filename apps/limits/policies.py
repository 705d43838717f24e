"""Rates, and what is left of them: the generic cell rate algorithm (GCRA), without any store.

A bucket is one number: the moment at which it is whole again, in microseconds. Each request moves it on by the time
that one request takes to grow back; a request that would move it further ahead of now than the burst lasts is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`per_minute` requests in the long run, `burst` of them at once."""

    name: str
    per_minute: int
    burst: int

    @property
    def interval(self) -> int:
        """Microseconds until one request has grown back."""
        return 60 * MICROSECONDS // self.per_minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a plan grants an organization a minute; `writes` are counted beside all requests, None without their own."""

    per_minute: int
    burst: int
    writes_per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One policy applied to one somebody."""

    policy: Policy
    key: str

    @property
    def digest(self) -> str:
        """Return the name in a store: addresses of people are in none."""
        return hashlib.sha256(f"{self.policy.name}\0{self.key}".encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of asking: the policy with the least left, or the one that refused and for how long.

    whole_at: Unix seconds at which the bucket is whole again. retry_after: seconds, 0 when allowed.
    """

    allowed: bool
    policy: Policy
    remaining: int
    whole_at: int
    retry_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One bucket's part: microseconds to wait (≤ 0: allowed) and the moment at which it would be whole again."""

    wait: int
    whole_at: int


def step(policy: Policy, whole_at: int, now: int) -> Step:
    """Return what one more request does to a bucket; moments and waits in microseconds."""
    moved = max(whole_at, now) + policy.interval
    return Step(wait=moved - policy.interval * policy.burst - now, whole_at=moved)


def verdict(policies: list[Policy], steps: list[Step]) -> Verdict:
    """Return the answer of several buckets asked together: all allow, or none has moved."""
    allowed = all(part.wait <= 0 for part in steps)
    pairs = zip(policies, steps, strict=True)
    if not allowed:
        policy, part = max(pairs, key=lambda pair: pair[1].wait)
        return Verdict(
            allowed=False,
            policy=policy,
            remaining=0,
            whole_at=-(-(part.whole_at - policy.interval) // MICROSECONDS),
            retry_after=-(-part.wait // MICROSECONDS),
        )
    policy, part = min(pairs, key=lambda pair: _left(*pair))
    return Verdict(
        allowed=True,
        policy=policy,
        remaining=_left(policy, part),
        whole_at=-(-part.whole_at // MICROSECONDS),
        retry_after=0,
    )


def _left(policy: Policy, part: Step) -> int:
    return -part.wait // policy.interval
