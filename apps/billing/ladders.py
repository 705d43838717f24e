"""What happens when credit ends, step by step with its dates, as pages show it in advance. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext as _

from apps.billing.selectors import Balance
from apps.billing.states import WARN_AHEAD
from apps.organizations.models import BillingState

# Credit that lasts longer is nothing to think of yet.
SHOWN_AHEAD = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the ladder. is_past: it has happened; otherwise it will, if all that runs now runs on."""

    label: str
    at: datetime
    is_past: bool


def steps_of(balance: Balance, *, now: datetime) -> Sequence[Step]:
    """Return the steps of an organization whose credit ends within a week or is used up; none for any other."""
    ladder = balance.ladder
    if ladder is None or ladder.block_at - now > SHOWN_AHEAD:
        return []
    steps = [
        (_("Nothing new can start"), ladder.block_at),
        (_("What runs is asked to stop"), ladder.stop_at),
        (_("Its data is no longer kept"), ladder.data_kept_until),
    ]
    if balance.billing_state == BillingState.HEALTHY:
        steps.insert(0, (_("We tell your billing contacts"), ladder.block_at - WARN_AHEAD))
    return [Step(label=label, at=at, is_past=at <= now) for label, at in steps]
