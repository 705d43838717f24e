"""Top up by itself when what is available falls below a threshold: once at a time, within a cap, never in a loop."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import Q, Sum
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.billing import selectors as billing
from apps.core import jobs, money
from apps.core.actor import Actor, system_actor
from apps.core.errors import Conflict, FieldError, ValidationFailed
from apps.ledger import selectors as ledger
from apps.ledger import services as ledger_services
from apps.organizations.models import Organization, OrganizationStatus
from apps.outbox import services as outbox
from apps.payments.models import (
    LIVE_STATES,
    AutoTopUp,
    AutoTopUpState,
    Payment,
    PaymentKind,
    PaymentMethod,
    PaymentState,
)
from apps.payments.services import mails
from apps.payments.services.attempts import checked_minor
from apps.payments.services.top_up import LEAST_MAJOR, record_start


class NoCard(Conflict):
    """There is no saved card to charge."""

    code = "no_saved_card"
    default_message = _("Save a card first; it is what automatic top-up charges.")


@transaction.atomic
def set_auto_top_up(
    *,
    actor: Actor,
    organization: Organization,
    threshold: Decimal | None = None,
    amount: Decimal | None = None,
    monthly_cap: Decimal | None = None,
    turn_on: bool = True,
    now: datetime,
) -> AutoTopUp:
    """Change the amounts that are given, in major units; what is not given stays.

    turn_on: also on, or on again after a pause or failures; otherwise it stays as it is, at first off.
    Raises NoCard, ValidationFailed for amounts out of range or missing at first, or a cap below the amount.
    """
    # Whoever removes the last card waits, and turns this off again.
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    if PaymentMethod.objects.default_of(organization.id) is None:
        raise NoCard
    given = {"threshold": threshold, "amount": amount, "monthly_cap": monthly_cap}
    facts = {name: str(value) for name, value in given.items() if value is not None}
    before = AutoTopUp.objects.select_for_update(no_key=True).filter(organization=organization).first()
    if before is None and (missing := given.keys() - facts.keys()):
        message = str(_("Give all three amounts at first."))
        raise ValidationFailed(
            fields=[FieldError(path=name, code="required", message=message) for name in sorted(missing)]
        )
    currency = ledger.wallet_currency(organization.id) or organization.currency
    least = int(LEAST_MAJOR.scaleb(money.exponent(currency)))
    minimum = {"threshold": 0, "amount": least, "monthly_cap": least}
    minor: dict[str, int] = {
        f"{name}_minor": getattr(before, f"{name}_minor")
        if value is None
        else checked_minor(value, currency, minimum=minimum[name], path=name)
        for name, value in given.items()
    }
    if minor["monthly_cap_minor"] < minor["amount_minor"]:
        message = str(_("The monthly cap must allow at least one top-up."))
        raise ValidationFailed(fields=[FieldError(path="monthly_cap", code="range", message=message)])
    state = AutoTopUpState.ACTIVE if turn_on else before.state if before else AutoTopUpState.OFF
    # Whoever sets what charges the card wants it tried now; what is off keeps why.
    fresh = {"failures_in_a_row": 0, "next_attempt_at": None} if state == AutoTopUpState.ACTIVE else {}
    rule, _created = AutoTopUp.objects.update_or_create(
        organization=organization, defaults={"state": state, "updated_at": now, **minor, **fresh}
    )
    _tell_change(actor, rule, facts)
    return rule


@transaction.atomic
def turn_off_auto_top_up(*, actor: Actor, organization: Organization, now: datetime) -> bool:
    """Turn automatic top-up off and return whether it was not; a charge on its way still counts."""
    rule = AutoTopUp.objects.select_for_update(no_key=True).filter(organization=organization).first()
    if rule is None or rule.state == AutoTopUpState.OFF:
        return False
    rule.state, rule.updated_at = AutoTopUpState.OFF, now
    rule.save(update_fields=["state", "updated_at"])
    _tell_change(actor, rule, {})
    return True


def turn_off_without_card(*, actor: Actor, method: PaymentMethod, now: datetime) -> bool:
    """Turn automatic top-up off because its last card is gone, in the transaction that removes that; say so by mail.

    Returns whether it was on until now.
    """
    rule = (
        AutoTopUp.objects.select_for_update(no_key=True)
        .filter(organization_id=method.organization_id)
        .exclude(state=AutoTopUpState.OFF)
        .first()
    )
    if rule is None:
        return False
    before, rule.state, rule.updated_at = rule.state, AutoTopUpState.OFF, now
    rule.save(update_fields=["state", "updated_at"])
    _tell_change(actor, rule, {"card": str(method)})
    if before != AutoTopUpState.DISABLED:  # That it is off was said when it failed the third time.
        mails.tell(
            "auto_top_up_off",
            organization_id=method.organization_id,
            cause=str(method.id),
            now=now,
            card=str(method),
        )
    return before == AutoTopUpState.ACTIVE


def _tell_change(actor: Actor, rule: AutoTopUp, facts: dict[str, str]) -> None:
    organization = rule.organization
    diff = {"state": str(rule.state), **facts}
    audit.record(
        actor=actor,
        action="auto_top_up.changed",
        target=organization,
        organization_id=organization.id,
        diff=diff,
    )
    outbox.publish("payments.auto_top_up_changed", diff, organization_id=organization.id)


def queue_auto_top_ups(*, now: datetime) -> int:
    """Queue a look at every organization whose card may be charged by itself now, and return how many."""
    ready = Q(next_attempt_at=None) | Q(next_attempt_at__lte=now)
    rules = AutoTopUp.objects.filter(
        ready, state=AutoTopUpState.ACTIVE, organization__status=OrganizationStatus.ACTIVE
    )
    found = list(rules.order_by("pk").values_list("pk", flat=True))
    for organization_id in found:
        jobs.enqueue("payments.auto_top_up", organization_id=organization_id)
    return len(found)


@transaction.atomic
def start_if_low(*, organization_id: UUID, now: datetime) -> Payment | None:
    """Write an attempt and queue its charge if what is available is below the threshold; else None.

    None too while an earlier one is on its way (the database allows one), beyond the month's cap (mailed once a
    month), without a card, or for a suspended or deleted organization.
    """
    organization = Organization.objects.get(pk=organization_id)
    currency = ledger.wallet_currency(organization_id) or organization.currency
    ledger_services.open_book(organization_id=organization_id, currency=currency, now=now)
    # It may have been deleted while the lock was waited for.
    organization.refresh_from_db(fields=["status"])
    rule = AutoTopUp.objects.select_for_update(no_key=True).get(pk=organization_id)
    if not _is_ready(rule, organization, now=now):
        return None
    available = billing.balance(organization, now=now).available_micros
    if available >= money.minor_to_micros(rule.threshold_minor, currency):
        return None
    method = PaymentMethod.objects.default_of(organization_id)
    if method is None:
        return None
    if spent_this_month_minor(organization, now=now) + rule.amount_minor > rule.monthly_cap_minor:
        mails.tell(
            "auto_top_up_cap",
            organization_id=organization_id,
            cause=f"{organization_id}:{_month_start(organization, now=now):%Y-%m}",
            now=now,
            cap=mails.amount(rule.monthly_cap_minor, currency),
        )
        return None
    payment = Payment.objects.create(
        organization=organization,
        kind=PaymentKind.AUTO_TOP_UP,
        method=method,
        is_off_session=True,
        amount_minor=rule.amount_minor,
        currency=currency,
        started_by="auto-top-up",
        created_at=now,
    )
    record_start(system_actor("payments", organization_id), payment)
    jobs.enqueue("payments.charge", payment_id=payment.id)
    return payment


def _is_ready(rule: AutoTopUp, organization: Organization, *, now: datetime) -> bool:
    if rule.state != AutoTopUpState.ACTIVE or organization.status != OrganizationStatus.ACTIVE:
        return False
    if rule.next_attempt_at is not None and rule.next_attempt_at > now:
        return False
    return not Payment.objects.live().filter(organization=organization, kind=PaymentKind.AUTO_TOP_UP).exists()


def spent_this_month_minor(organization: Organization, *, now: datetime) -> int:
    """Return what automatic top-ups have charged, or are charging, since the month began in the organization's zone."""
    counted = [*LIVE_STATES, PaymentState.SUCCEEDED]
    rows = Payment.objects.filter(
        organization=organization,
        kind=PaymentKind.AUTO_TOP_UP,
        state__in=counted,
        created_at__gte=_month_start(organization, now=now),
    )
    return int(rows.aggregate(sum=Sum("amount_minor", default=0))["sum"])


def _month_start(organization: Organization, *, now: datetime) -> datetime:
    local = now.astimezone(ZoneInfo(organization.timezone))
    return local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
