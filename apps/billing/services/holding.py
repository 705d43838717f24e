"""Holds: reserve available credit for an allocation; give it back when it stops, expires or is not needed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.billing import entitlements, selectors
from apps.billing.entitlements import Entitlement, Launch
from apps.billing.models import AMOUNT_MICROS_MAX, Hold, HoldRelease
from apps.core.actor import Actor
from apps.core.errors import DomainError, FieldError, PermissionDenied, ValidationFailed
from apps.core.money import plain_micros
from apps.ledger import selectors as ledger_state
from apps.ledger import services as ledger
from apps.ledger.services import Book
from apps.metering import selectors as metering
from apps.metering.models import SOURCE_LENGTH_MAX, SUBJECT_LENGTH_MAX
from apps.organizations import services as organizations
from apps.organizations.models import BillingState, Organization, OrganizationStatus
from apps.outbox import services as outbox

HOLD_DAYS_MAX = 31
# Of an organization: what says whether it may start anything, besides its credit.
_DECIDING = ("status", "billing_state", "plan")


class InsufficientCredit(DomainError):
    """What is available does not cover it."""

    code, http_status = "insufficient_credit", 402
    default_message = _("The available credit does not cover this. Top up, or ask for less.")


class SpendingSuspended(PermissionDenied):
    """Nothing new may be used: staff said so, or the credit was used up longer ago than the grace lasts."""

    code = "spending_suspended"
    default_message = _("New usage is blocked. Top up, or contact support if there is credit.")


@transaction.atomic
def place_hold(
    *,
    actor: Actor,
    organization: Organization,
    source: str,
    subject: str,
    amount_micros: int,
    expires_at: datetime,
    now: datetime,
) -> tuple[Hold, bool]:
    """Reserve credit for one allocation and return the hold, and whether it is new.

    An allocation that has a live hold keeps it as it is. Raises InsufficientCredit, naming what is missing,
    OrganizationSuspended, SpendingSuspended, or ValidationFailed for a name, an amount or an end that cannot be.
    """
    _check(source=source, subject=subject, amount_micros=amount_micros, expires_at=expires_at, now=now)
    if ledger_state.wallet_currency(organization.id) is None:
        _refuse_suspended(organization)
        available = selectors.standing(organization, now=now).available_micros
        if available < amount_micros:  # A refusal must not fix the organization's currency.
            raise _insufficient(organization, available, amount_micros)
    book = ledger.open_book(organization_id=organization.id, currency=organization.currency, now=now)
    _refuse_suspended(organization)
    held = _live_hold(organization, source, subject, now=now)
    if held is not None:
        return held, False
    available = selectors.standing(organization, now=now).available_micros
    if available < amount_micros:
        raise _insufficient(organization, available, amount_micros)
    hold = Hold(
        organization_id=organization.id,
        currency=book.wallet.currency,
        source=source,
        subject=subject,
        amount_micros=amount_micros,
        expires_at=expires_at,
        created_at=now,
    )
    _keep(actor, hold)
    return hold, True


@transaction.atomic
def check_and_hold(
    *,
    actor: Actor,
    organization: Organization,
    launch: Launch,
    source: str,
    subject: str,
    expires_at: datetime,
    now: datetime,
) -> tuple[Entitlement, Hold | None]:
    """Ask whether something may start and, if so, reserve what it needs under the same lock.

    source: empty for the allocation of that subject whatever its source. An allocation that has a live hold is asked
    for with it and keeps it. What costs nothing needs no hold.
    """
    _check(source=source or subject, subject=subject, amount_micros=1, expires_at=expires_at, now=now)
    if ledger_state.wallet_currency(organization.id) is None:
        found = entitlements.check(organization, launch, now=now)
        if not found.allowed or not found.needed_micros:
            return found, None  # A refusal must not fix the organization's currency.
    book = ledger.open_book(organization_id=organization.id, currency=organization.currency, now=now)
    organization.refresh_from_db(fields=_DECIDING)
    held = _live_hold(organization, source, subject, now=now)
    found = entitlements.check(organization, launch, own=held, now=now)
    if held is not None or not found.allowed or not found.needed_micros:
        return found, held if found.allowed else None
    hold = Hold(
        organization_id=organization.id,
        currency=book.wallet.currency,
        source=source,
        subject=subject,
        amount_micros=found.needed_micros,
        sku=launch.sku,
        region=launch.region,
        gpus=launch.gpus,
        expires_at=expires_at,
        created_at=now,
    )
    _keep(actor, hold)
    return found, hold


@transaction.atomic
def release_hold(*, actor: Actor, hold: Hold, reason: str = "", now: datetime) -> Hold:
    """Give back what a hold reserves; one that is over stays as it is."""
    ledger.open_book(organization_id=hold.organization_id, currency=hold.currency, now=now)
    hold = Hold.objects.get(pk=hold.pk)
    if hold.released_at is None:
        _release([(hold, HoldRelease.CANCELLED)], now=now)
        audit.record(
            actor=actor,
            action="hold.released",
            target=hold,
            diff={"amount": plain_micros(hold.amount_micros)},
            reason=reason,
        )
    return hold


@transaction.atomic
def settle_holds(*, book: Book, now: datetime) -> int:
    """Release the holds whose time is over or whose allocation stopped since, and return how many.

    Called by charging, under its locks, once the usage up to the stop is counted. Like charging it is not audited.
    """
    holds = list(
        Hold.objects.filter(organization_id=book.wallet.organization_id, released_at=None).order_by("pk")
    )
    over = _over(holds, now=now, counted=True)
    _release(over, now=now)
    return len(over)


def _live_hold(organization: Organization, source: str, subject: str, *, now: datetime) -> Hold | None:
    """Return the live hold of an allocation, after releasing one that is over; called under the wallet's lock."""
    held = Hold.objects.filter(
        organization_id=organization.id, source=source, subject=subject, released_at=None
    ).first()
    if held is None:
        return None
    over = _over([held], now=now, counted=False)
    _release(over, now=now)
    return None if over else held


def _keep(actor: Actor, hold: Hold) -> None:
    hold.save(force_insert=True)
    audit.record(
        actor=actor,
        action="hold.placed",
        target=hold,
        diff={
            "amount": plain_micros(hold.amount_micros),
            "currency": hold.currency,
            "expires_at": hold.expires_at,
        },
    )
    outbox.publish("billing.hold_placed", _as_event(hold), organization_id=hold.organization_id)


def _over(holds: list[Hold], *, now: datetime, counted: bool) -> list[tuple[Hold, HoldRelease]]:
    """Return the holds that reserve nothing any more, and why. A stop before the hold was made means nothing."""
    live = {(hold.source, hold.subject): hold.created_at for hold in holds if hold.expires_at > now}
    stopped = metering.stopped_since(holds[0].organization_id, live, counted=counted) if live else frozenset()
    found = []
    for hold in holds:
        if hold.expires_at <= now:
            found.append((hold, HoldRelease.EXPIRED))
        elif (hold.source, hold.subject) in stopped:
            found.append((hold, HoldRelease.STOPPED))
    return found


def _release(over: Iterable[tuple[Hold, HoldRelease]], *, now: datetime) -> None:
    for hold, reason in over:
        hold.released_at, hold.release = now, reason
        hold.save(update_fields=["released_at", "release"])
        outbox.publish("billing.hold_released", _as_event(hold), organization_id=hold.organization_id)


def _refuse_suspended(organization: Organization) -> None:
    """Decide by what stands now: the billing state changes under the wallet's lock only, if there is a wallet."""
    organization.refresh_from_db(fields=_DECIDING)
    if organization.status == OrganizationStatus.SUSPENDED:
        raise organizations.OrganizationSuspended
    if organization.billing_state == BillingState.SUSPENDED:
        raise SpendingSuspended


def _insufficient(organization: Organization, available: int, wanted: int) -> InsufficientCredit:
    return InsufficientCredit(
        available=plain_micros(available),
        missing=plain_micros(wanted - available),
        currency=organization.currency,
    )


def _check(*, source: str, subject: str, amount_micros: int, expires_at: datetime, now: datetime) -> None:
    problems = {
        "source": None
        if 0 < len(source) <= SOURCE_LENGTH_MAX
        else _("Name where the allocation comes from, as its usage events do."),
        "subject": None
        if 0 < len(subject) <= SUBJECT_LENGTH_MAX
        else _("Name the allocation, as its usage events do."),
        "amount": None
        if 0 < amount_micros <= AMOUNT_MICROS_MAX
        else _("Give an amount above zero, up to a billion."),
        "expires_at": None
        if now < expires_at <= now + timedelta(days=HOLD_DAYS_MAX)
        else _("A hold ends within the next 31 days."),
    }
    if fields := [
        FieldError(path=name, code="invalid", message=str(problem))
        for name, problem in problems.items()
        if problem
    ]:
        raise ValidationFailed(fields=fields)


def _as_event(hold: Hold) -> dict[str, str | None]:
    return {
        "id": str(hold.id),
        "source": hold.source,
        "subject": hold.subject,
        "amount": plain_micros(hold.amount_micros),
        "currency": hold.currency,
        "expires_at": hold.expires_at.isoformat(),
        "release": hold.release or None,
    }
