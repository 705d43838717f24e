"""The tick: meter an organization's usage, charge it, follow its credit; the sweep that queues whatever needs one."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db.models import Exists, OuterRef

from apps.billing.models import BillingProgress, ChargeHour, ChargeKey, CreditLot, Hold
from apps.billing.services.budgeting import settle_budgets
from apps.billing.services.charge import ChargeStep, charge_organization
from apps.billing.services.guarding import settle_state
from apps.core import jobs
from apps.core.periods import floor_hour
from apps.metering import selectors as metering_state
from apps.metering import services as metering
from apps.organizations.models import BillingState, Organization


def queue_metering(*, now: datetime) -> int:
    """Queue one task for every organization whose usage needs counting or charging, and return how many.

    This is the sweep as well: it looks at the rows, so what a lost task left undone is queued again. Organizations that
    use nothing get no task but one an hour (ADR 157).
    """
    metering.advance_idle(until=now, watched=_watched(now))
    organizations = metering_state.organizations_with_work(now)
    for organization_id in organizations:
        jobs.enqueue("billing.meter_organization", organization_id=organization_id)
    return len(organizations)


def _watched(now: datetime) -> tuple[Exists, ...]:
    """Return the conditions of organizations that a tick looks at even while they use nothing.

    An hour has ended, and with it maybe credit; credit came for the first time; what they used waits for a price; a
    hold may lapse; or nothing is left, and the grace ends.
    """
    its = OuterRef("pk")
    progress = BillingProgress.objects.filter(organization=its)
    first_credit = CreditLot.objects.filter(
        ~Exists(BillingProgress.objects.filter(organization=OuterRef("organization"))), organization=its
    )
    used = ChargeHour.objects.filter(key=OuterRef("pk"), quantity__gt=0)
    return (
        Exists(progress.exclude(charged_until__gte=floor_hour(now))),
        Exists(first_credit),
        Exists(ChargeKey.objects.filter(Exists(used), organization=its).unpriced()),
        Exists(Hold.objects.filter(organization=its, released_at=None)),
        Exists(Organization.objects.filter(pk=its, billing_state=BillingState.DEPLETED)),
    )


def meter_and_charge(
    *, organization_id: UUID, until: datetime, now: datetime, wait: bool = True, again: bool = False
) -> ChargeStep:
    """Meter an organization's usage up to `until`, charge all hours that ended by then, and tell of what it means.

    wait: for whoever else works on the organization; otherwise it is left to them and to the next sweep.
    again: after the same, so that there is something to do only if usage came in since.
    Each step is a transaction of its own, so a crash loses at most one step, and running it again goes on. Returns
    what was charged in total.
    """
    if again and _is_charged(organization_id, until) and not metering_state.has_news(organization_id, until):
        return ChargeStep(hours=0, micros=0, more=False)
    hours = micros = counted = 0
    moved_on = False
    try:
        more = True
        while more:
            metered = metering.meter_organization(
                organization_id=organization_id, until=until, now=now, wait=wait
            )
            counted, more = counted + metered.resources, metered.more
        more = True
        while more:
            step = charge_organization(organization_id=organization_id, now=now, wait=wait)
            hours, micros, more = hours + step.hours, micros + step.micros, step.more
            moved_on = moved_on or step.moved_on
    except metering.MeteringBusy:
        pass  # Whoever holds the lock counts and charges the same rows.
    # Most organizations do nothing most of the time; each is looked at once an hour all the same.
    if counted or hours or moved_on or not _is_healthy(organization_id):
        settle_state(organization_id=organization_id, now=now)
        settle_budgets(organization_id=organization_id, now=now)
    return ChargeStep(hours=hours, micros=micros, more=False)


def _is_charged(organization_id: UUID, until: datetime) -> bool:
    return BillingProgress.objects.filter(pk=organization_id, charged_until__gte=until).exists()


def _is_healthy(organization_id: UUID) -> bool:
    return Organization.objects.filter(pk=organization_id, billing_state=BillingState.HEALTHY).exists()
