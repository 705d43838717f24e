"""How often an organization may ask, by its plan."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from uuid import UUID

from apps.limits.policies import Rates
from apps.organizations.models import Organization

_HIGHEST = Rates(per_minute=10_000, burst=5_000)
_RATES: Mapping[str, Rates] = MappingProxyType(
    {
        "free": Rates(per_minute=100, burst=50, writes_per_minute=30),
        "professional": Rates(per_minute=1_000, burst=500),
        "enterprise": _HIGHEST,
    }
)


def rates_of(organization_id: UUID) -> Rates:
    """Return the rates that an organization's people and keys share."""
    plan = Organization.objects.values_list("plan", flat=True).get(pk=organization_id)
    return _RATES.get(plan, _HIGHEST)
