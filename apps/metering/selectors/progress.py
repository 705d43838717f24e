"""How far counting and charging have come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from uuid import UUID

from django.db import connection
from django.db.models import Exists, Min, OuterRef

from apps.metering.models import DirtyBatch, MeteringState, UsageChange
from apps.organizations.models import Organization


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How well counting and charging keep up.

    lag_seconds: how far the organization counted least is behind; 0 when none is counted yet.
    backlog: changes of resources that wait for a tick. uncharged: changed sums. events_stored: an estimate.
    """

    lag_seconds: float
    backlog: int
    uncharged: int
    events_stored: int


def health(now: datetime) -> Health:
    """Return how well counting and charging keep up, without reading any large table."""
    slowest = slowest_metered_until()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'metering_usageevent'::regclass"
        )
        (events_stored,) = cursor.fetchone()
    return Health(
        lag_seconds=0 if slowest is None else max(0, (now - slowest).total_seconds()),
        backlog=backlog(),
        uncharged=UsageChange.objects.count(),
        events_stored=events_stored,
    )


def slowest_metered_until() -> datetime | None:
    """Return up to when the organization that is furthest behind is counted; None before any tick.

    Deleted organizations are counted no further and left out.
    """
    states = MeteringState.objects.filter(
        organization__in=Organization.objects.existing(), metered_until__isnull=False
    )
    slowest: datetime | None = states.aggregate(slowest=Min("metered_until"))["slowest"]
    return slowest


def metered_until(organization_id: UUID) -> datetime | None:
    """Return up to when an organization's usage is counted; None before its first tick."""
    return MeteringState.objects.filter(pk=organization_id).values_list("metered_until", flat=True).first()


def organizations_with_work(until: datetime) -> list[UUID]:
    """Return the organizations that are not counted up to `until`, or that have news; those with news first.

    A deleted organization has work only while events accepted before are not counted.
    """
    dirty = Exists(DirtyBatch.objects.filter(organization=OuterRef("pk")))
    counted = Exists(MeteringState.objects.filter(pk=OuterRef("pk"), metered_until__gte=until))
    behind = Organization.objects.existing().filter(~counted).values_list("pk", flat=True)
    with_news = Organization.objects.filter(dirty).order_by("pk").values_list("pk", flat=True)
    return list(dict.fromkeys(chain(with_news, behind.order_by("pk"))))


def has_changes(organization_id: UUID) -> bool:
    """Return whether sums of an organization wait to be charged."""
    return UsageChange.objects.filter(organization_id=organization_id).exists()


def has_uncounted(organization_id: UUID) -> bool:
    """Return whether events of an organization were accepted that no tick has counted yet."""
    return DirtyBatch.objects.filter(organization_id=organization_id).exists()


def has_news(organization_id: UUID, until: datetime) -> bool:
    """Return whether there is usage before a moment that is not counted, or that waits to be charged."""
    waiting = Exists(UsageChange.objects.filter(organization_id=OuterRef("pk"), hour__lt=until))
    dirty = Exists(DirtyBatch.objects.filter(organization_id=OuterRef("pk")))
    settled = MeteringState.objects.filter(~dirty, ~waiting, pk=organization_id, metered_until__gte=until)
    return not settled.exists()


def backlog() -> int:
    """Return how many changes of resources wait for a tick; one may wait several times."""
    return DirtyBatch.objects.resources()
