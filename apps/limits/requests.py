"""The limits of requests to the API: by address before authentication, by organization and plan after it."""

from __future__ import annotations

import threading
import time
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest
from django.utils.module_loading import import_string

from apps.core.actor import Actor, ActorKind
from apps.core.http.address import client_address, limiting_address
from apps.core.http.views import RateClass
from apps.limits import stores
from apps.limits.policies import Bucket, Policy, Rates, Verdict
from apps.limits.services import refuse_unless_allowed

ANONYMOUS = Policy(name="anonymous", per_minute=60, burst=10)
FAILED_CREDENTIALS = Policy(name="failed_credentials", per_minute=20, burst=20)
# What is of no organization: people about themselves, and the operator's own programs.
PERSON = Rates(per_minute=100, burst=50)
INTEGRATION = Rates(per_minute=10_000, burst=5_000)
# A plan that staff change takes effect within these seconds.
RATES_KEPT_SECONDS = 10.0
RATES_KEPT_MAX = 10_000

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_kept: dict[UUID, tuple[float, Rates]] = {}
_kept_lock = threading.Lock()


def limit_anonymous(request: HttpRequest) -> None:
    """Count a request without a credential, or raise RateLimited."""
    _take(request, [Bucket(policy=ANONYMOUS, key=_address(request))])


def limit_failed_credential(request: HttpRequest) -> None:
    """Count a credential that does not hold, or raise RateLimited; good ones of the same address go on."""
    _take(request, [Bucket(policy=FAILED_CREDENTIALS, key=_address(request))])


def limit_actor(request: HttpRequest, actor: Actor, rate_class: RateClass) -> None:
    """Count a request of whoever was authenticated, or raise RateLimited.

    An organization's people and keys share its buckets, whichever they use.
    """
    if not settings.RATE_LIMITS_ENABLED:
        return
    whose = str(actor.credential_id or actor.id)
    if rate_class is RateClass.INGESTION:
        usage = Policy(
            name="usage_events",
            per_minute=settings.USAGE_REQUESTS_PER_MINUTE,
            burst=max(1, settings.USAGE_REQUESTS_PER_MINUTE // 10),
        )
        _take(request, [Bucket(policy=usage, key=whose)])
        return
    if actor.organization_id is not None and actor.kind in {ActorKind.USER, ActorKind.API_KEY}:
        rates, whose = _rates_of(actor.organization_id), str(actor.organization_id)
    else:
        rates = INTEGRATION if actor.kind == ActorKind.INTEGRATION else PERSON
    buckets = [
        Bucket(policy=Policy(name="requests", per_minute=rates.per_minute, burst=rates.burst), key=whose)
    ]
    if rates.writes_per_minute is not None and request.method not in _SAFE:
        writes = Policy(name="writes", per_minute=rates.writes_per_minute, burst=rates.writes_per_minute)
        buckets.append(Bucket(policy=writes, key=whose))
    _take(request, buckets)


def verdict_of(request: HttpRequest) -> Verdict | None:
    """Return what was counted for a request, None if nothing was."""
    return getattr(request, "rate_limit", None)


def forget_rates() -> None:
    """Ask for every organization's rates again."""
    with _kept_lock:
        _kept.clear()


def _take(request: HttpRequest, buckets: list[Bucket]) -> None:
    if not settings.RATE_LIMITS_ENABLED:
        return
    found = stores.take(buckets)
    request.rate_limit = found  # type: ignore[attr-defined]  # `rate_of` reads it.
    refuse_unless_allowed(found)


def _address(request: HttpRequest) -> str:
    return limiting_address(client_address(request))


def _rates_of(organization_id: UUID) -> Rates:
    """Return an organization's rates, asked for at most once in ten seconds by each process."""
    moment = time.monotonic()
    kept = _kept.get(organization_id)
    if kept is not None and moment < kept[0]:
        return kept[1]
    rates = cast("Rates", _policy()(organization_id))
    with _kept_lock:
        if len(_kept) >= RATES_KEPT_MAX:
            _kept.clear()
        _kept[organization_id] = (moment + RATES_KEPT_SECONDS, rates)
    return rates


def _policy() -> Any:
    return import_string(settings.RATE_LIMIT_POLICY)
