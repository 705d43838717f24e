"""The months of an organization, and the time zone in which they end."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core import periods
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.organizations.models import BillingPeriod, Organization, PeriodState
from apps.organizations.services.checks import check, wrong_timezone
from apps.outbox import services as outbox


class PeriodsFinal(Conflict):
    """The moment lies before an organization's first period, and a final period cannot get a predecessor."""

    code = "periods_final"
    default_message = _("The billing periods of this time are closed.")


@transaction.atomic
def change_timezone(
    *, actor: Actor, organization: Organization, timezone: str, reason: str = "", now: datetime
) -> Organization:
    """Change the zone in which an organization's months end; staff say why.

    Only ends that are not past yet move. A period whose new end would be past already keeps its old one, so
    that the change begins with the next period.
    """
    check(timezone=wrong_timezone(timezone))
    organization = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    before = organization.timezone
    if before == timezone:
        return organization
    # Months that are over ended in the old zone, also where no row says so yet.
    ensure_periods(organization_id=organization.id, covering=now)
    organization.timezone = timezone
    organization.save(update_fields=["timezone"])
    start: datetime | None = None
    for period in BillingPeriod.objects.of(organization.id).filter(ends_at__gt=now):
        period.starts_at = start or period.starts_at
        end = periods.month_start(periods.next_label(period.label), timezone)
        period.ends_at = end if end > now else period.ends_at
        period.save(update_fields=["starts_at", "ends_at"])
        start = period.ends_at
    audit.record(
        actor=actor,
        action="organization.timezone_changed",
        target=organization,
        organization_id=organization.id,
        diff={"timezone": [before, timezone]},
        reason=reason,
    )
    outbox.publish(
        "organizations.organization_updated",
        {"id": organization.id, "timezone": timezone},
        organization_id=organization.id,
    )
    return organization


def ensure_periods(
    *,
    organization_id: UUID,
    covering: datetime,
    now: datetime | None = None,  # noqa: ARG001  Given by every caller; rows depend on `covering` alone.
) -> BillingPeriod:
    """Return the period that contains a moment, after making every row up to it that is missing, either way.

    Raises PeriodsFinal for a moment before the first period once that is final. Safe when two do it at once.
    """
    return period_containing(organization_id, covering) or _make_periods(organization_id, covering)


@transaction.atomic
def mark_period(*, period: BillingPeriod, state: PeriodState, now: datetime) -> None:
    """Record that a period has a draft invoice or is final; called by closing under its lock.

    A final period stays final, which the assertion states and the order of closing guarantees.
    """
    assert period.state != PeriodState.FINAL, "a final period never changes"
    period.state = state
    period.drafted_at = now
    period.finalized_at = now if state == PeriodState.FINAL else None
    period.save(update_fields=["state", "drafted_at", "finalized_at"])


@transaction.atomic
def end_period(*, period: BillingPeriod, at: datetime) -> None:
    """End the running period at a moment inside it; for a look that is taken back.

    The rows of later periods, if there are any, begin where they did.
    """
    assert period.starts_at < at <= period.ends_at, "a moment of the period"
    period.ends_at = at
    period.save(update_fields=["ends_at"])


def period_containing(organization_id: UUID, moment: datetime) -> BillingPeriod | None:
    """Return the period that contains a moment, if its row exists already."""
    return BillingPeriod.objects.of(organization_id).containing(moment).first()


@transaction.atomic
def _make_periods(organization_id: UUID, covering: datetime) -> BillingPeriod:
    organization = Organization.objects.select_for_update(no_key=True).get(pk=organization_id)
    zone = organization.timezone
    rows = list(BillingPeriod.objects.of(organization_id))
    made: list[BillingPeriod] = []

    def add(
        label: str, *, starts_at: datetime | None = None, ends_at: datetime | None = None
    ) -> BillingPeriod:
        period = BillingPeriod(
            organization=organization,
            label=label,
            starts_at=starts_at or periods.month_start(label, zone),
            ends_at=ends_at or periods.month_start(periods.next_label(label), zone),
        )
        made.append(period)
        return period

    first = rows[0] if rows else add(periods.label_of(organization.created_at, zone))
    last = rows[-1] if rows else first
    if covering < first.starts_at and first.state == PeriodState.FINAL:
        raise PeriodsFinal(label=periods.label_of(covering, zone), first=first.label)
    while covering < first.starts_at:
        first = add(periods.previous_label(first.label), ends_at=first.starts_at)
    while covering >= last.ends_at:
        last = add(periods.next_label(last.label), starts_at=last.ends_at)
    BillingPeriod.objects.bulk_create(made)
    return next(period for period in [*rows, *made] if period.starts_at <= covering < period.ends_at)
