"""Every write to plans and quotas, and the check that lower apps ask for."""

from apps.quotas.services.check import QuotaExceeded, check
from apps.quotas.services.overrides import end_limit_override, override_limit
from apps.quotas.services.plans import UnknownPlan, assign_plan, save_plan, set_plan_limits
from apps.quotas.services.requests import (
    AlreadyDecided,
    AlreadyRequested,
    NotNeeded,
    approve_request,
    deny_request,
    request_quota,
    withdraw_request,
)
from apps.quotas.services.targets import target_of

__all__ = [
    "AlreadyDecided",
    "AlreadyRequested",
    "NotNeeded",
    "QuotaExceeded",
    "UnknownPlan",
    "approve_request",
    "assign_plan",
    "check",
    "deny_request",
    "end_limit_override",
    "override_limit",
    "request_quota",
    "save_plan",
    "set_plan_limits",
    "target_of",
    "withdraw_request",
]
