"""What must be set before customers can pay, and what Stripe says of the key: for `manage.py check_payments`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings

from apps.core.errors import DomainError
from apps.payments import gateway
from apps.payments.gateway import Endpoint
from apps.payments.services import EVENT_TYPES

_PATH = "/payments/webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One thing that payments need; `problem` says what to do about it, nothing where it is fine."""

    name: str
    problem: str = ""


def points() -> Iterator[Point]:
    """Yield what payments need, the settings first, then what only Stripe can tell."""
    key, secrets = settings.STRIPE_SECRET_KEY, settings.STRIPE_WEBHOOK_SECRETS
    is_live = gateway.is_live_key(key)
    yield Point(name="A key", problem="" if key else "set STRIPE_SECRET_KEY")
    yield Point(
        name="Signing secrets of the webhook",
        problem=""
        if secrets and all(secret.startswith("whsec_") for secret in secrets)
        else "set STRIPE_WEBHOOK_SECRETS to the endpoint's whsec_…",
    )
    is_safe = not is_live or settings.PUBLIC_URL.startswith("https://")
    yield Point(
        name="An address that Stripe may call",
        problem="" if is_safe else "with a live key PUBLIC_URL must begin with https://",
    )
    at_stripe = not is_live or not settings.STRIPE_API_BASE
    yield Point(
        name="Stripe itself behind a live key", problem="" if at_stripe else "unset the other API address"
    )
    yield Point(
        name="The account that webhooks must name",
        problem="" if settings.STRIPE_ACCOUNT or not is_live else "set STRIPE_ACCOUNT to your acct_…",
    )
    if key:
        account = _account()
        yield account
        if not account.problem:
            yield _endpoint()


def _account() -> Point:
    name = "An answer of Stripe to the key"
    try:
        account = gateway.current().account()
    except DomainError as error:
        return Point(name=name, problem=str(error))
    if settings.STRIPE_ACCOUNT not in ("", account):
        return Point(
            name=name, problem=f"the key is of {account}, STRIPE_ACCOUNT says {settings.STRIPE_ACCOUNT}"
        )
    return Point(name=f"{name}, of account {account}")


def _endpoint() -> Point:
    name = "Webhooks of everything that counts"
    try:
        found = next(filter(_is_ours, gateway.current().endpoints()), None)
    except DomainError as error:
        return Point(name=name, problem=f"{error} The key needs read access to webhook endpoints.")
    if found is None:
        return Point(name=name, problem=f"make an endpoint at {settings.PUBLIC_URL}{_PATH}")
    return Point(name=name, problem=_problem_of(found))


def _is_ours(endpoint: Endpoint) -> bool:
    # Other prefixes lead to the same place.
    return endpoint.url.startswith(f"{settings.PUBLIC_URL}/") and endpoint.url.endswith(_PATH)


def _problem_of(endpoint: Endpoint) -> str:
    if not endpoint.is_enabled:
        return "the endpoint is switched off at Stripe"
    missing = [] if "*" in endpoint.event_types else sorted(set(EVENT_TYPES) - endpoint.event_types)
    if missing:
        return f"subscribe the endpoint to {', '.join(missing)}"
    if endpoint.api_version != gateway.API_VERSION:
        version = endpoint.api_version or "the account's"
        return f"the endpoint's API version is {version}: make one of {gateway.API_VERSION}"
    return ""
