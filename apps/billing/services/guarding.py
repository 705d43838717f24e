"""The billing state: follow the credit, tell everybody once, and what staff decide about an organization's spending."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Least
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.billing import selectors
from apps.billing.models import AMOUNT_MICROS_MAX, BillingTransition, SpendGuard, StopRequest
from apps.billing.selectors import Assessment
from apps.billing.states import DATA_KEPT, POSTPAID_PLANS, Ladder, ladder_of, state_of
from apps.core.actor import Actor, ActorKind, system_actor
from apps.core.errors import Conflict, FieldError, ValidationFailed
from apps.core.money import from_minor, plain_micros, round_micros_to_minor
from apps.ledger import selectors as ledger_state
from apps.ledger import services as ledger
from apps.metering.selectors import ResourceUsage
from apps.notifications import services as notifications
from apps.organizations import selectors as organization_state
from apps.organizations import services as organizations
from apps.organizations.models import BillingState, Organization
from apps.outbox import services as outbox


class NotPostpaid(Conflict):
    """The organization's plan is paid in advance, so nothing may be owed."""

    code = "plan_not_postpaid"
    default_message = _("This plan is paid in advance. Change the plan first.")


@transaction.atomic
def settle_state(*, organization_id: UUID, now: datetime) -> BillingState:
    """Bring the billing state to what the credit says and return it.

    A change writes one transition, one audit row, one mail to each billing contact and one event; of two that see it at
    once, the second finds it done. Once the grace is over, one event for each running resource asks the provisioner to
    stop it, also if it starts or is heard of later; while staff block new usage what runs goes on, and is asked once
    they lift that. Nothing here starts anything again.
    """
    organization = Organization.objects.get(pk=organization_id)
    found = selectors.assess(organization, now=now)
    state = state_of(found.facts, now=now)
    if state == organization.billing_state and not _owes_a_step(found, state):
        _note_low(organization, found, state)
        return state
    _lock(organization, now=now)
    organization.refresh_from_db()
    found = selectors.assess(organization, now=now)
    state = state_of(found.facts, now=now)
    if state != organization.billing_state:
        _change(organization, found, state, now=now)
    elif _owes_a_step(found, state):
        _stay_suspended(organization, found, now=now)
    return state


@transaction.atomic
def set_credit_limit(
    *, actor: Actor, organization: Organization, credit_limit_micros: int, reason: str, now: datetime
) -> SpendGuard:
    """Let an organization owe up to a limit before new usage is blocked; zero ends that. Staff only.

    Raises NotPostpaid unless its plan may pay by invoice, ValidationFailed for an amount that cannot be.
    """
    _check_amount("credit_limit", credit_limit_micros)
    if credit_limit_micros and organization.plan not in POSTPAID_PLANS:
        raise NotPostpaid
    guard = _guard(actor, organization, now=now)
    before, guard.credit_limit_micros = guard.credit_limit_micros, credit_limit_micros
    diff = {
        "credit_limit": [plain_micros(before), plain_micros(credit_limit_micros)],
        "currency": organization.currency,
    }
    return _decided(actor, guard, "credit_limit.changed", diff, reason=reason, now=now)


@transaction.atomic
def set_warning(
    *, actor: Actor, organization: Organization, warn_below_micros: int, reason: str, now: datetime
) -> SpendGuard:
    """Call credit low at or below an amount, besides when it lasts no longer than a day."""
    _check_amount("warn_below", warn_below_micros)
    guard = _guard(actor, organization, now=now)
    before, guard.warn_below_micros = guard.warn_below_micros, warn_below_micros
    diff = {
        "warn_below": [plain_micros(before), plain_micros(warn_below_micros)],
        "currency": organization.currency,
    }
    return _decided(actor, guard, "credit_warning.changed", diff, reason=reason, now=now)


@transaction.atomic
def suspend_spending(
    *, actor: Actor, organization: Organization, suspended: bool, reason: str, now: datetime
) -> SpendGuard:
    """Block new usage of an organization whatever its credit, or lift that; staff only. What runs goes on."""
    guard = _guard(actor, organization, now=now)
    if suspended == (guard.suspended_at is not None):
        return guard
    guard.suspended_at = now if suspended else None
    action = "spending.suspended" if suspended else "spending.resumed"
    return _decided(actor, guard, action, {}, reason=reason, now=now)


@transaction.atomic
def decide_spending(
    *,
    actor: Actor,
    organization: Organization,
    credit_limit_micros: int,
    warn_below_micros: int,
    suspended: bool,
    reason: str,
    now: datetime,
) -> None:
    """Do what differs from how it is: the limit, the warning, and whether new usage is blocked. Staff only."""
    guard = _guard(actor, organization, now=now)
    if credit_limit_micros != guard.credit_limit_micros:
        set_credit_limit(
            actor=actor,
            organization=organization,
            credit_limit_micros=credit_limit_micros,
            reason=reason,
            now=now,
        )
    if warn_below_micros != guard.warn_below_micros:
        set_warning(
            actor=actor,
            organization=organization,
            warn_below_micros=warn_below_micros,
            reason=reason,
            now=now,
        )
    suspend_spending(actor=actor, organization=organization, suspended=suspended, reason=reason, now=now)


def _check_amount(path: str, micros: int) -> None:
    if not 0 <= micros <= AMOUNT_MICROS_MAX:
        message = str(_("Give an amount from zero up to a billion."))
        raise ValidationFailed(fields=[FieldError(path=path, code="range", message=message)])


def _guard(actor: Actor, organization: Organization, *, now: datetime) -> SpendGuard:
    assert actor.kind in {ActorKind.STAFF, ActorKind.SYSTEM}, "customers cannot decide it for themselves"
    _lock(organization, now=now)
    return selectors.guard_of(organization.id)


def _decided(
    actor: Actor, guard: SpendGuard, action: str, diff: Mapping[str, object], *, reason: str, now: datetime
) -> SpendGuard:
    guard.reason = reason
    guard.save()
    audit.record(
        actor=actor,
        action=action,
        target=guard,
        organization_id=guard.organization_id,
        diff=diff,
        reason=reason,
    )
    outbox.publish(
        f"billing.{action.replace('.', '_')}",
        {"organization_id": str(guard.organization_id), **diff},
        organization_id=guard.organization_id,
    )
    settle_state(organization_id=guard.organization_id, now=now)
    return selectors.guard_of(guard.organization_id)


def _lock(organization: Organization, *, now: datetime) -> None:
    """Take the wallet, where there is one, then the organization's row, as every writer of money does."""
    if currency := ledger_state.wallet_currency(organization.id):
        ledger.open_book(organization_id=organization.id, currency=currency, now=now)
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)


def _note_low(organization: Organization, found: Assessment, state: BillingState) -> None:
    """Keep what the banner and the next look need of credit that is low."""
    if state == BillingState.LOW:
        SpendGuard.objects.filter(pk=organization.pk).update(
            low_water_micros=Least(F("low_water_micros"), found.facts.credit_micros),
            runway_ends_at=found.balance.runway_ends_at,
        )


def _owes_a_step(found: Assessment, state: BillingState) -> bool:
    """Return whether a suspended organization has something to be noted or asked for, though its state stays."""
    if state != BillingState.SUSPENDED:
        return False
    guard = found.standing.guard
    has_nothing = found.facts.has_book and found.facts.credit_micros <= 0
    return has_nothing != (guard.depleted_at is not None) or _is_stop_due(guard, found)


def _is_stop_due(guard: SpendGuard, found: Assessment) -> bool:
    """Return whether anything is to be asked to stop, now that the organization is suspended."""
    if guard.suspended_at is not None:
        return False
    return guard.stop_requested_at is None or bool(_unasked(guard, found))


def _unasked(guard: SpendGuard, found: Assessment) -> list[ResourceUsage]:
    """Return what runs and was not asked to stop since it started and since the credit was used up."""
    if guard.stop_requested_at is None or not found.running:
        return list(found.running)
    rows = StopRequest.objects.filter(
        organization_id=guard.organization_id, requested_at__gte=guard.stop_requested_at
    )
    asked_at = {(row.source, row.subject): row.requested_at for row in rows.order_by("requested_at", "pk")}
    return [
        one
        for one in found.running
        if (asked := asked_at.get((one.resource.source, one.resource.subject))) is None
        or (one.since is not None and asked < one.since)
    ]


def _note_depletion(guard: SpendGuard, found: Assessment, *, now: datetime) -> None:
    if found.facts.credit_micros > 0:
        guard.depleted_at = guard.stop_requested_at = None
    elif found.facts.has_book:
        guard.depleted_at = guard.depleted_at or now


def _stay_suspended(organization: Organization, found: Assessment, *, now: datetime) -> None:
    """Note what became of the credit while staff block new usage; ask what is not asked yet to stop."""
    guard = found.standing.guard
    _note_depletion(guard, found, now=now)
    is_first = guard.stop_requested_at is None
    is_stop_due = _is_stop_due(guard, found)
    if is_stop_due:
        _request_stops(organization, guard, found, now=now)
    guard.save()
    if is_stop_due and is_first:
        cause = f"billing.stop:{organization.id}:{now.isoformat()}"
        before = BillingState.SUSPENDED
        _tell(organization, guard, found, before, BillingState.SUSPENDED, cause=cause, now=now)


def _change(organization: Organization, found: Assessment, state: BillingState, *, now: datetime) -> None:
    guard = found.standing.guard
    _note_depletion(guard, found, now=now)
    guard.low_water_micros = found.facts.credit_micros if state == BillingState.LOW else None
    guard.runway_ends_at = found.balance.runway_ends_at if state == BillingState.LOW else None
    before = organizations.set_billing_state(organization_id=organization.id, state=state)
    transition = BillingTransition.objects.create(
        organization_id=organization.id,
        number=BillingTransition.objects.filter(organization_id=organization.id).count() + 1,
        before=before,
        after=state,
        available_micros=found.balance.available_micros,
        currency=found.balance.currency,
        occurred_at=now,
    )
    available = plain_micros(found.balance.available_micros)
    ladder = _ladder(guard, found)
    audit.record(
        actor=system_actor("billing", organization.id),
        action="billing_state.changed",
        target=organization,
        organization_id=organization.id,
        diff={
            "billing_state": [str(before), str(state)],
            "available": available,
            "currency": found.balance.currency,
        },
    )
    outbox.publish(
        "billing.state_changed",
        {
            "organization_id": str(organization.id),
            "number": transition.number,
            "before": before,
            "after": state,
            "available": available,
            "currency": found.balance.currency,
            "runway_ends_at": _iso(found.balance.runway_ends_at),
            "stop_at": _iso(ladder.stop_at) if ladder else None,
        },
        organization_id=organization.id,
    )
    if state == BillingState.SUSPENDED and _is_stop_due(guard, found):
        _request_stops(organization, guard, found, now=now)
    guard.save()
    _tell(organization, guard, found, before, state, cause=f"billing.transition:{transition.id}", now=now)


def _request_stops(
    organization: Organization, guard: SpendGuard, found: Assessment, *, now: datetime
) -> None:
    unasked = _unasked(guard, found)
    guard.stop_requested_at = guard.stop_requested_at or now
    StopRequest.objects.bulk_create(
        StopRequest(
            organization=organization,
            source=one.resource.source,
            subject=one.resource.subject,
            requested_at=now,
        )
        for one in unasked
    )
    for one in unasked:
        outbox.publish(
            "billing.stop_requested",
            {
                "organization_id": str(organization.id),
                "source": one.resource.source,
                "subject": one.resource.subject,
                "sku": one.sku,
                "region": one.region,
                "reason": "credit_depleted",
                "data_kept_until": (now + DATA_KEPT).isoformat(),
            },
            organization_id=organization.id,
        )
    audit.record(
        actor=system_actor("billing", organization.id),
        action="billing.stop_requested",
        target=organization,
        organization_id=organization.id,
        diff={"resources": [one.resource.subject for one in unasked]},
    )


def _ladder(guard: SpendGuard, found: Assessment) -> Ladder | None:
    return ladder_of(
        grace=found.facts.grace,
        runway_ends_at=found.balance.runway_ends_at,
        depleted_at=guard.depleted_at,
        stop_requested_at=guard.stop_requested_at,
    )


def _tell(
    organization: Organization,
    guard: SpendGuard,
    found: Assessment,
    before: BillingState,
    state: BillingState,
    *,
    cause: str,
    now: datetime,
) -> None:
    ladder = _ladder(guard, found)
    notifications.queue_mail(
        template="billing/mail/state",
        to=organization_state.billing_recipients(organization, now=now),
        context={
            "organization": organization.name,
            "state": str(state),
            "is_by_staff": guard.suspended_at is not None,
            "was_blocked": before in {BillingState.DEPLETED, BillingState.SUSPENDED},
            "available": _coins(found.balance.available_micros, found.balance.currency),
            "owed": _coins(max(-found.facts.credit_micros, 0), found.balance.currency),
            "currency": found.balance.currency,
            "burn_rate": _coins(found.balance.burn_rate_micros, found.balance.currency),
            "running": len(found.running),
            "runway_ends_at": _iso(found.balance.runway_ends_at) or "",
            "stop_at": _iso(ladder.stop_at) if ladder else "",
            "data_kept_until": _iso(ladder.data_kept_until) if ladder else "",
            "link": f"{settings.PUBLIC_URL}/app/{organization.slug}",
        },
        organization_id=organization.id,
        cause=cause,
        now=now,
    )


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _coins(micros: int, currency: str) -> str:
    """Return an amount as people read it, in whole minor units."""
    return f"{from_minor(round_micros_to_minor(micros, currency), currency):,f}"
