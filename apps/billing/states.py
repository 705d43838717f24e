"""The billing state, from credit, thresholds, grace and the staff's flag; the ladder with its dates. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from apps.organizations.models import BillingState

# Credit that lasts no longer than this is low.
WARN_AHEAD = timedelta(hours=24)
# After the stop is requested.
DATA_KEPT = timedelta(days=30)
# How long what runs may go on once nothing is left, by plan.
GRACE = {
    "free": timedelta(hours=1),
    "professional": timedelta(hours=24),
    "enterprise": timedelta(hours=72),
    "sovereign": timedelta(days=7),
    "classified": timedelta(days=7),
}
# Plans that may pay by invoice.
POSTPAID_PLANS = frozenset({"enterprise", "sovereign", "classified"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a state follows from.

    credit_micros: what usage can still take, credit limit included; holds count as credit, for they are its use.
    has_book: whether the organization ever had credit or usage; before, it has nothing to lose.
    low_water_micros: the least credit while it was low; None if it was not.
    """

    credit_micros: int
    has_book: bool
    runway_ends_at: datetime | None
    warn_below_micros: int
    low_water_micros: int | None
    depleted_at: datetime | None
    is_suspended_by_staff: bool
    grace: timedelta


def grace_of(plan: str) -> timedelta:
    """Return how long what runs may go on without credit; a plan that nobody named has the shortest."""
    return GRACE.get(plan, min(GRACE.values()))


def state_of(facts: Facts, *, now: datetime) -> BillingState:
    """Return the state that facts lead to."""
    if facts.is_suspended_by_staff:
        return BillingState.SUSPENDED
    if facts.has_book and facts.credit_micros <= 0:
        since = facts.depleted_at or now
        return BillingState.SUSPENDED if now - since >= facts.grace else BillingState.DEPLETED
    if facts.has_book and (_is_low(facts, now=now) or _stays_low(facts)):
        return BillingState.LOW
    return BillingState.HEALTHY


def _is_low(facts: Facts, *, now: datetime) -> bool:
    if facts.credit_micros <= facts.warn_below_micros:
        return True
    return facts.runway_ends_at is not None and facts.runway_ends_at - now <= WARN_AHEAD


def _stays_low(facts: Facts) -> bool:
    # Stopping something makes credit last longer, but one notice is enough until credit comes in.
    return facts.low_water_micros is not None and facts.credit_micros <= facts.low_water_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """What happens without credit, and when: new usage is blocked, the stop is requested, the data kept until then.

    Dates ahead assume that everything runs on as it does.
    """

    block_at: datetime
    stop_at: datetime
    data_kept_until: datetime


def ladder_of(
    *,
    grace: timedelta,
    runway_ends_at: datetime | None,
    depleted_at: datetime | None,
    stop_requested_at: datetime | None = None,
) -> Ladder | None:
    """Return the dates from where nothing is left, or where it will be; None while no end is in sight.

    stop_requested_at: when that has happened already, which may be later than the end of the grace.
    """
    block_at = depleted_at or runway_ends_at
    if block_at is None:
        return None
    stop_at = stop_requested_at or block_at + grace
    return Ladder(block_at=block_at, stop_at=stop_at, data_kept_until=stop_at + DATA_KEPT)
