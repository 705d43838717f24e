"""Every write to organizations, and which one a request is about."""

from apps.organizations.services.checks import NAME_LENGTH_MAX, SlugTaken, wrong_name, wrong_slug
from apps.organizations.services.lifecycle import (
    HasOpenBusiness,
    NotRestorable,
    change_organization,
    create_organization,
    delete_organization,
    restore_organization,
    suspend_organization,
)
from apps.organizations.services.members import (
    AboveYou,
    LastOwner,
    accept_ownership,
    add_member,
    change_member,
    check_within_own,
    choose_default,
    offer_ownership,
    remove_member,
    withdraw_offer,
)
from apps.organizations.services.periods import (
    PeriodsFinal,
    change_timezone,
    ensure_periods,
    mark_period,
    period_containing,
)
from apps.organizations.services.projects import change_project, create_project
from apps.organizations.services.resolving import (
    MfaEnrollmentRequired,
    OrganizationMismatch,
    OrganizationSuspended,
    resolve_for_actor,
    resolve_organization,
)

__all__ = [
    "NAME_LENGTH_MAX",
    "AboveYou",
    "HasOpenBusiness",
    "LastOwner",
    "MfaEnrollmentRequired",
    "NotRestorable",
    "OrganizationMismatch",
    "OrganizationSuspended",
    "PeriodsFinal",
    "SlugTaken",
    "accept_ownership",
    "add_member",
    "change_member",
    "change_organization",
    "change_project",
    "change_timezone",
    "check_within_own",
    "choose_default",
    "create_organization",
    "create_project",
    "delete_organization",
    "ensure_periods",
    "mark_period",
    "offer_ownership",
    "period_containing",
    "remove_member",
    "resolve_for_actor",
    "resolve_organization",
    "restore_organization",
    "suspend_organization",
    "withdraw_offer",
    "wrong_name",
    "wrong_slug",
]
