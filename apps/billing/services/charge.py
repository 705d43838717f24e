"""Post what usage costs: claim the changed hours, plan them, burn credit or reverse it, write it all at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction

from apps.billing import charging, selectors
from apps.billing.charging import Delta, Plan
from apps.billing.models import BillingProgress, ChargeKey
from apps.billing.services import copying, posting
from apps.billing.services.credit import expire_lots
from apps.billing.services.holding import settle_holds
from apps.core import failpoints
from apps.ledger import services as ledger
from apps.ledger.services import Book
from apps.metering import services as metering
from apps.organizations import services as organizations
from apps.organizations.models import Organization, PeriodState
from apps.pricing import selectors as pricing

CHANGES_PER_STEP = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeStep:
    """What one transaction of charging did.

    more: whether changes are left. moved_on: whether everything up to a later hour is charged now, and what expired by
    then is gone.
    """

    hours: int
    micros: int
    more: bool
    moved_on: bool = False


@transaction.atomic
def charge_organization(
    *, organization_id: UUID, now: datetime, limit: int = CHANGES_PER_STEP, wait: bool = True
) -> ChargeStep:
    """Charge an organization's usage of all ended hours that changed since it was charged last.

    Posts, for each hour, the difference between what it costs now and what was posted. Safe to repeat and to run
    twice at once: the organization's metering lock serialises with whoever counts or closes, and exactly the claimed
    changes are consumed. Usage beyond the credit goes to the receivable; charging never fails for lack of credit.
    Usage without a price is kept and asked for again at every step.
    wait: for whoever else works on the organization; MeteringBusy otherwise.
    """
    metering.lock_metering(organization_id=organization_id, wait=wait)
    organization = Organization.objects.get(pk=organization_id)
    boundary = selectors.charge_boundary(organization_id)
    if boundary is None:
        return ChargeStep(hours=0, micros=0, more=False)
    if not selectors.has_money_or_usage(organization_id):
        # A book would fix the organization's currency before its first transfer.
        return ChargeStep(hours=0, micros=0, more=False)
    book = ledger.open_book(organization_id=organization_id, currency=organization.currency, now=now)
    progress, _created = BillingProgress.objects.get_or_create(organization_id=organization_id)
    # Months without usage have a period too: what earlier ones left is invoiced with the next to become final.
    covering = max(boundary, organization.created_at)
    organizations.ensure_periods(organization_id=organization_id, covering=covering, now=now)

    # From here to the commit no price can be published, so what is posted is what the schedule says.
    pricing.hold_prices_still()
    claimed, changed = metering.claim_changes(organization_id=organization_id, before=boundary, limit=limit)
    failpoints.reach("billing.after_claim")
    slots = changed | selectors.slots_newly_priced(organization)
    plan = charging.plan_charges(organization, slots, now=now)
    _post(book, plan, now=now)

    more = claimed >= limit
    moved_on = not more and (progress.charged_until is None or progress.charged_until < boundary)
    if not more:
        expire_lots(book=book, until=boundary, now=now)
        settle_holds(book=book, now=now)
        if moved_on:
            progress.charged_until = boundary
            progress.save(update_fields=["charged_until"])
    failpoints.reach("billing.before_commit")
    return ChargeStep(hours=len(slots), micros=plan.total_micros, more=more, moved_on=moved_on)


def _post(book: Book, plan: Plan, *, now: datetime) -> None:
    """Write a plan: the keys, the transfers and burns of every difference, then the hours."""
    if not plan.keys:
        return
    _reopen(plan)
    ChargeKey.objects.bulk_create([key_plan.key for key_plan in plan.keys if key_plan.is_new])
    covered, later = _split_returns(plan)
    for delta in plan.deltas:
        row = delta.plan.hours[delta.hour]
        row.revision += 1
        row.amount_micros += delta.micros
    # What comes back is credit again before anything new is charged to it.
    posting.give_back(book, covered, now=now)
    posting.take(book, [delta for delta in plan.deltas if delta.micros > 0], now=now)
    posting.give_back(book, later, now=now)
    copying.write_hours(plan.keys, now=now)


def _reopen(plan: Plan) -> None:
    """Mark the keys of final periods, so that the next invoice looks at what it says of them."""
    final = {period.id for period in plan.periods if period.state == PeriodState.FINAL}
    reopened = [one for one in plan.keys if one.key.period_id in final and not one.key.is_reopened]
    for one in reopened:
        one.key.is_reopened = True
    ChargeKey.objects.bulk_update([one.key for one in reopened if not one.is_new], ["is_reopened"])


def _split_returns(plan: Plan) -> tuple[list[Delta], list[Delta]]:
    """Return the differences below zero: those that earlier burns of their key cover, and those that they do not.

    The latter come of a volume price that falls within this very step, so they come back after its rises are posted.
    Called before the plan's amounts move.
    """
    burnt = {
        key_plan.key.id: sum(row.amount_micros for row in key_plan.hours.values()) for key_plan in plan.keys
    }
    covered: list[Delta] = []
    later: list[Delta] = []
    for delta in plan.deltas:
        if delta.micros > 0:
            continue
        key_id = delta.plan.key.id
        if burnt[key_id] + delta.micros < 0:
            later.append(delta)
            continue
        burnt[key_id] += delta.micros
        covered.append(delta)
    return covered, later
