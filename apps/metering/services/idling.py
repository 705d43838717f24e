"""Organizations that use nothing are counted on together, in a few statements however many they are."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from apps.metering.models import DirtyBatch, MeteringState, Resource, UsageChange
from apps.organizations.models import Organization

# Rows locked at once: a worker that comes for one of them leaves it, as it does when another worker is at it.
IDLE_PER_STEP = 2_000


def advance_idle(*, until: datetime, watched: tuple[Exists, ...] = ()) -> int:
    """Note that organizations in which nothing runs and of which nothing is new are counted up to `until`.

    watched: conditions, with `OuterRef("pk")` for an organization, of those that want a tick of their own all the same.
    Returns how many moved on. Those that somebody counts at the moment are left to them, and so are those that no tick
    has counted before. Each step is a transaction of its own.
    """
    advanced = 0
    while (step := _advance(until, watched)) is not None:
        advanced += step
    return advanced


@transaction.atomic
def _advance(until: datetime, watched: tuple[Exists, ...]) -> int | None:
    """Move some on and return how many; None when none is left."""
    idle = _idle(until, watched).values_list("pk", flat=True)
    locked = list(idle.select_for_update(no_key=True, skip_locked=True)[:IDLE_PER_STEP])
    if not locked:
        return None
    # A new statement sees what a worker committed before its row was locked here.
    return _idle(until, watched).filter(pk__in=locked).update(metered_until=until)


def _idle(until: datetime, watched: tuple[Exists, ...]) -> QuerySet[MeteringState]:
    its = OuterRef("pk")
    return MeteringState.objects.filter(
        Exists(Organization.objects.existing().filter(pk=its)),
        ~Exists(DirtyBatch.objects.filter(organization=its)),
        ~Exists(UsageChange.objects.filter(organization=its)),
        ~Exists(Resource.objects.filter(organization=its).unfinished(until)),
        *(~condition for condition in watched),
        metered_until__lt=until,
    )
