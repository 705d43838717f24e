"""How often an organization may ask, as the counting of requests takes it."""

from __future__ import annotations

from uuid import UUID

from django.utils import timezone

from apps.limits.policies import Rates
from apps.quotas import selectors

# Stands for "no limit": more than any process can answer.
UNLIMITED = 600_000


def rates_of(organization_id: UUID) -> Rates:
    """Return the rates that an organization's people and keys share: its own where it has some, else its plan's."""
    found = selectors.rates(organization_id=organization_id, now=timezone.now())
    per_minute = found.requests_per_minute or UNLIMITED
    return Rates(
        per_minute=per_minute,
        burst=found.request_burst or per_minute,
        writes_per_minute=found.writes_per_minute,
    )
