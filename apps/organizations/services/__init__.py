"""Every write to organizations, and which one a request is about."""

from apps.organizations.services.checks import NAME_LENGTH_MAX, SlugTaken, wrong_name, wrong_slug
from apps.organizations.services.lifecycle import create_organization
from apps.organizations.services.members import add_member
from apps.organizations.services.periods import (
    PeriodsFinal,
    change_timezone,
    ensure_periods,
    mark_period,
    period_containing,
)
from apps.organizations.services.projects import create_project
from apps.organizations.services.resolving import (
    OrganizationMismatch,
    OrganizationSuspended,
    resolve_for_actor,
    resolve_organization,
)

__all__ = [
    "NAME_LENGTH_MAX",
    "OrganizationMismatch",
    "OrganizationSuspended",
    "PeriodsFinal",
    "SlugTaken",
    "add_member",
    "change_timezone",
    "create_organization",
    "create_project",
    "ensure_periods",
    "mark_period",
    "period_containing",
    "resolve_for_actor",
    "resolve_organization",
    "wrong_name",
    "wrong_slug",
]
