"""Reads of usage: what metering counts from, what charging adds up, what pages and explanations show."""

from apps.metering.selectors.evidence import Evidence, events_behind, hours_in_slot
from apps.metering.selectors.progress import (
    Health,
    backlog,
    has_changes,
    has_news,
    has_uncounted,
    health,
    metered_until,
    organizations_with_work,
    slowest_metered_until,
)
from apps.metering.selectors.quantities import (
    GroupBy,
    Interval,
    UsageRow,
    UsageSlot,
    pending_quantities,
    recount,
    slot_quantities,
    usage_rows,
)
from apps.metering.selectors.resources import (
    ResourceUsage,
    describe_resources,
    latest_usage,
    running_resources,
    stopped_since,
)

__all__ = [
    "Evidence",
    "GroupBy",
    "Health",
    "Interval",
    "ResourceUsage",
    "UsageRow",
    "UsageSlot",
    "backlog",
    "describe_resources",
    "events_behind",
    "has_changes",
    "has_news",
    "has_uncounted",
    "health",
    "hours_in_slot",
    "latest_usage",
    "metered_until",
    "organizations_with_work",
    "pending_quantities",
    "recount",
    "running_resources",
    "slot_quantities",
    "slowest_metered_until",
    "stopped_since",
    "usage_rows",
]
