"""Balances, the accrual and usage with amounts: what billing answers without writing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.db.models import Case, DecimalField, Max, OuterRef, Subquery, Sum, When
from django.db.models.functions import Coalesce

from apps.billing import charging, holds
from apps.billing.burning import LotState, burn
from apps.billing.charging import Plan
from apps.billing.models import ChargeHour, ChargeKey, CreditLot, Hold, Pot, SpendGuard
from apps.billing.runway import HORIZON, Forecast, Month, Use
from apps.billing.states import POSTPAID_PLANS, Facts, Ladder, grace_of, ladder_of
from apps.core.compiled import CompiledQuery
from apps.core.periods import HOUR, floor_hour, label_of, month_start, next_label
from apps.ledger import selectors as ledger
from apps.metering import selectors as metering
from apps.metering.selectors import ResourceUsage, UsageSlot
from apps.organizations import services as organizations
from apps.organizations.models import BillingPeriod, Organization
from apps.pricing import selectors as pricing
from apps.pricing.models import ANY, Price, PriceModel
from apps.pricing.selectors import PriceSchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Where an organization's money stands, in micros, net of tax.

    available: credit in force and the credit limit, less what is accrued, owed and held, after netting each unposted
    hour against the lots that may pay it. accrued: unposted usage. held: what live holds still reserve. receivable:
    what is owed, positive. burn_rate: what the next hour of all that runs costs. runway_ends_at: when the credit is
    used up if it all runs on, whether held or not; None if it never is or not within ten years. ladder: what follows
    from that; None as well while staff block new usage whatever the credit.
    """

    currency: str
    available_micros: int
    paid_micros: int
    promo_micros: int
    accrued_micros: int
    held_micros: int
    receivable_micros: int
    credit_limit_micros: int
    burn_rate_micros: int
    runway_ends_at: datetime | None
    ladder: Ladder | None
    billing_state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """A balance with what the billing state follows from, what runs, and the credit behind it."""

    balance: Balance
    facts: Facts
    running: Sequence[ResourceUsage]
    standing: Standing


def charge_boundary(organization_id: UUID) -> datetime | None:
    """Return the moment before which every piece of usage has ended and is counted, or None before any metering.

    It is the whole UTC hour that metering has passed, or a period's end if that is later: an hour that a period splits
    ends there for the earlier piece.
    """
    metered_until = metering.metered_until(organization_id)
    if metered_until is None:
        return None
    periods = BillingPeriod.objects.filter(organization_id=organization_id, ends_at__lte=metered_until)
    last_end = periods.aggregate(last=Max("ends_at"))["last"]
    return max(floor_hour(metered_until), last_end or floor_hour(metered_until))


def has_money_or_usage(organization_id: UUID) -> bool:
    """Return whether an organization has a book, or usage that will need one."""
    return ledger.wallet_currency(organization_id) is not None or metering.has_changes(organization_id)


def slots_newly_priced(organization: Organization) -> set[UsageSlot]:
    """Return the slots with usage that had no price when it was charged and has one now.

    Every step of charging asks, so hours are read only where some price names what was used.
    """
    keys = ChargeKey.objects.filter(organization_id=organization.id).unpriced()
    places = {
        pk: (meter, sku, region)
        for pk, meter, sku, region in keys.values_list("pk", "meter", "sku", "region")
    }
    named = pricing.ever_priced(organization.id, places.values()) if places else set()
    if not named:
        return set()
    waiting = ChargeHour.objects.filter(
        key__in=[pk for pk, place in places.items() if place in named], quantity__gt=0
    ).values_list("key__meter", "key__sku", "key__region", "hour", "quantity", "key__period__starts_at")
    rows = [(UsageSlot(*row[:4]), *row[4:]) for row in waiting]
    if not rows:
        return set()
    hours = [slot.hour for slot, _quantity, _start in rows]
    schedule = pricing.schedule(
        organization_id=organization.id,
        currency=organization.currency,
        start=min(*hours, *(start for _slot, _quantity, start in rows)),
        end=max(hours) + HOUR,
    )
    return {
        slot
        for slot, quantity, start in rows
        if charging.terms_of_hour(schedule, slot, quantity, period_start=start)
    }


def charged_micros(organization_id: UUID, *, now: datetime) -> dict[str, int]:
    """Return every SKU that an organization was ever charged for, with what of the running period is posted for it."""
    posted = ChargeHour.objects.filter(key=OuterRef("pk")).order_by().values("key")
    running = When(
        period__starts_at__lte=now,
        period__ends_at__gt=now,
        then=Subquery(posted.annotate(total=Sum("amount_micros")).values("total")),
    )
    keys = ChargeKey.objects.filter(organization_id=organization_id).order_by()
    rows = keys.values("sku").annotate(total=Sum(Case(running, default=0)))
    return {row["sku"]: int(row["total"] or 0) for row in rows}


def lot_states(organization_id: UUID) -> list[LotState]:
    """Return the lots that have a balance, in burn order."""
    return [
        LotState(
            id=lot.id,
            account_id=lot.account_id,
            is_promo=lot.pot == Pot.PROMO,
            effective_at=lot.effective_at,
            expires_at=lot.expires_at,
            balance_micros=lot.account.balance_micros,
        )
        for lot in _LOTS.all(organization_id=organization_id)
    ]


_LOTS = CompiledQuery(
    lambda organization_id: (
        CreditLot.objects.filter(organization_id=organization_id).with_balance().in_burn_order()
    ),
    organization_id=UUID(int=1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An organization's credit once everything that is not posted yet is netted: what decisions are made by.

    lots: in burn order, with what netting leaves of each. in_force: those that count at the moment.
    owed_micros: the receivable, and what netting adds to it; below zero where corrections are pending.
    credit_limit_micros: what may be owed, which is nothing on a plan that is paid in advance.
    currency: of the book, None before its first transfer.
    """

    plan: Plan
    lots: list[LotState]
    in_force: list[LotState]
    paid_micros: int
    promo_micros: int
    receivable_micros: int
    owed_micros: int
    held_micros: int
    guard: SpendGuard
    credit_limit_micros: int
    currency: str | None
    counted_until: datetime

    @property
    def credit_micros(self) -> int:
        """What usage can still take, the credit limit included; holds reserve part of it."""
        left = sum(lot.balance_micros for lot in self.in_force)
        return left + self.credit_limit_micros - self.owed_micros

    @property
    def available_micros(self) -> int:
        return self.credit_micros - self.held_micros


def standing(
    organization: Organization,
    *,
    now: datetime,
    uses: Sequence[Use] = (),
    counted_until: datetime | None = None,
) -> Standing:
    """Return where an organization's credit stands at `now`, each unposted hour netted against the lots that pay it.

    uses, counted_until: whose charge keys and prices the plan is to hold as well, and from when on, for a forecast.
    """
    start = counted_until or now
    also = {UsageSlot(use.meter, use.sku, use.region, floor_hour(start)) for use in uses}
    prices_until = start + HORIZON if uses else None
    plan = charging.plan_unposted(organization, now=now, also=also, prices_until=prices_until)
    guard, limit, currency, receivable = _book_of(organization.id)

    # A lot whose end is not posted yet still pays the hours before it, but counts no longer.
    lots = lot_states(organization.id)
    in_force = [lot for lot in lots if lot.in_force(now)]
    paid = sum(lot.balance_micros for lot in in_force if not lot.is_promo)
    promo = sum(lot.balance_micros for lot in in_force if lot.is_promo)
    owed = receivable
    for delta in plan.deltas:
        if delta.micros < 0:
            owed += delta.micros
            continue
        for lot, micros in burn(lots, hour=delta.hour, amount_micros=delta.micros):
            owed += 0 if lot else micros
    return Standing(
        plan=plan,
        lots=lots,
        in_force=in_force,
        paid_micros=paid,
        promo_micros=promo,
        receivable_micros=receivable,
        owed_micros=owed,
        held_micros=sum(holds.remaining_micros(organization.id, plan, now=now).values()),
        guard=guard,
        credit_limit_micros=limit,
        currency=currency,
        counted_until=start,
    )


def _book_of(organization_id: UUID) -> tuple[SpendGuard, int, str | None, int]:
    """Return an organization's guard, what it may owe, its book's currency and what it owes in micros, in one query."""
    row: Any = _BOOK.find(organization_id=organization_id)
    assert row is not None, "callers hold the organization"
    guard = getattr(row, "spend_guard", None) or SpendGuard(organization_id=organization_id)
    limit = guard.credit_limit_micros if row.plan in POSTPAID_PLANS else 0
    return guard, limit, row.book_currency, -int(row.receivable_micros)


_BOOK = CompiledQuery(
    lambda organization_id: (
        Organization.objects.filter(pk=organization_id)
        .select_related("spend_guard")
        .annotate(
            book_currency=Subquery(ledger.currency_of(OuterRef("pk"))),
            receivable_micros=Coalesce(
                Subquery(ledger.balance_of(OuterRef("pk"), "receivable"), output_field=DecimalField()),
                Decimal(0),
            ),
        )
    ),
    organization_id=UUID(int=1),
)


def guard_of(organization_id: UUID) -> SpendGuard:
    """Return what staff allow an organization and what its state remembers; the defaults before anything did."""
    found = SpendGuard.objects.filter(pk=organization_id).first()
    return found or SpendGuard(organization_id=organization_id)


def hold_rows(organization: Organization, rows: Sequence[Hold], *, now: datetime) -> list[dict[str, Any]]:
    """Return holds as programs read them, with what each still reserves."""
    remaining = holds.remaining_micros(
        organization.id,
        charging.plan_unposted(organization, now=now),
        now=now,
        ids=[hold.id for hold in rows],
    )
    return [holds.hold_row(hold, remaining.get(hold.id, 0), now=now) for hold in rows]


def balance(organization: Organization, *, now: datetime) -> Balance:
    """Return where an organization's money stands at `now`."""
    return assess(organization, now=now).balance


def _runway(forecast: Forecast, stands: Standing, *, rate: int, now: datetime) -> datetime | None:
    """Return when the credit is used up by what runs, also where the next hour is free or makes the month cheaper."""
    owed = stands.owed_micros - stands.credit_limit_micros
    ends_at = forecast.runs_out_at(stands.lots, owed_micros=owed)
    if ends_at is None or (ends_at <= forecast.starts_at and rate <= 0):
        return None  # What was used up before is not what runs now.
    return max(ends_at, now)


def assess(organization: Organization, *, now: datetime) -> Assessment:
    """Return where an organization's money stands, with what its billing state follows from."""
    running = metering.running_resources(organization.id, now=now)
    uses = uses_of(running)
    stands = standing(organization, now=now, uses=uses, counted_until=counted_until(running, now=now))
    forecast = forecast_of(organization, stands, uses) if uses else None
    rate = forecast.cost_micros() if forecast else 0
    runway = _runway(forecast, stands, rate=rate, now=now) if forecast else None
    balance = Balance(
        currency=stands.currency or organization.currency,
        available_micros=stands.available_micros,
        paid_micros=stands.paid_micros,
        promo_micros=stands.promo_micros,
        accrued_micros=stands.plan.total_micros,
        held_micros=stands.held_micros,
        receivable_micros=stands.receivable_micros,
        credit_limit_micros=stands.credit_limit_micros,
        burn_rate_micros=rate,
        runway_ends_at=runway,
        ladder=_ladder(organization, stands.guard, runway),
        billing_state=organization.billing_state,
    )
    facts = Facts(
        credit_micros=stands.credit_micros,
        has_book=stands.currency is not None,
        runway_ends_at=runway,
        warn_below_micros=stands.guard.warn_below_micros,
        low_water_micros=stands.guard.low_water_micros,
        depleted_at=stands.guard.depleted_at,
        is_suspended_by_staff=stands.guard.suspended_at is not None,
        grace=grace_of(organization.plan),
    )
    return Assessment(balance=balance, facts=facts, running=running, standing=stands)


def _ladder(organization: Organization, guard: SpendGuard, runway_ends_at: datetime | None) -> Ladder | None:
    if guard.suspended_at is not None:
        return None
    return ladder_of(
        grace=grace_of(organization.plan),
        runway_ends_at=runway_ends_at,
        depleted_at=guard.depleted_at,
        stop_requested_at=guard.stop_requested_at,
    )


def counted_until(running: Sequence[ResourceUsage], *, now: datetime) -> datetime:
    """Return up to when what runs is counted: a forecast goes on from there."""
    counted = [one.resource.metered_until for one in running if one.resource.metered_until]
    return min(max(counted, default=now), now)


def uses_of(running: Sequence[ResourceUsage], *more: Use) -> list[Use]:
    """Return what resources, and whatever else, use a second, added up by what it is priced by."""
    per_second: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    for one in running:
        per_second[one.meter, one.sku, one.region] += one.gpus or 1
    for use in more:
        per_second[use.meter, use.sku, use.region] += use.per_second
    return [Use(*place, amount) for place, amount in sorted(per_second.items())]


def forecast_of(organization: Organization, stands: Standing, uses: Sequence[Use]) -> Forecast:
    """Return the forecast of what is used, from the moment up to which the organization is counted.

    stands: with the charge keys of what is used, as `standing` returns it for them.
    """
    start = stands.counted_until
    held = next((one for one in stands.plan.periods if one.starts_at <= start < one.ends_at), None)
    period = held or organizations.period_containing(organization.id, start)
    month = (
        _month(organization, start)
        if period is None
        else Month(period.label, period.starts_at, period.ends_at)
    )
    return Forecast(
        starts_at=start,
        uses=uses,
        schedule=_prices(organization, stands.plan, min(month.starts_at, floor_hour(start)), start + HORIZON),
        month=month,
        zone=organization.timezone,
        counted={
            (plan.key.meter, plan.key.sku, plan.key.region, plan.key.price_key_id): sum(
                (row.quantity for row in plan.hours.values()), Decimal(0)
            )
            for plan in stands.plan.keys
            if period and plan.key.period_id == period.id and plan.key.price_key_id
        },
    )


def _prices(organization: Organization, plan: Plan, start: datetime, end: datetime) -> PriceSchedule:
    """Return the prices in [start, end), which the plan may have."""
    known = plan.schedule
    if known is not None and known.start <= start and end <= known.end:
        return known
    return pricing.schedule(
        organization_id=organization.id, currency=organization.currency, start=start, end=end
    )


def _month(organization: Organization, moment: datetime) -> Month:
    label = label_of(moment, organization.timezone)
    return Month(
        label,
        month_start(label, organization.timezone),
        month_start(next_label(label), organization.timezone),
    )


def rated_otherwise(*, price: Price) -> bool:
    """Return whether usage is rated by another price than it would be, now that this one is in a published version.

    That is so where tiers would push aside a price that follows in the same month. Pricing asks while nobody charges.
    """
    version = price.version
    assert version.effective_from is not None, "a published version has a date"
    keys = ChargeKey.objects.filter(meter=price.meter_id, price_key_id__isnull=False)
    keys = keys.filter(period__ends_at__gt=version.effective_from).exclude(
        price__version=version, override=None
    )
    if version.effective_to is not None:
        keys = keys.filter(period__starts_at__lt=version.effective_to)
    if price.sku != ANY:
        keys = keys.filter(sku=price.sku)
    if price.region != ANY:
        keys = keys.filter(region=price.region)
    if price.model == PriceModel.PER_UNIT:
        # Between two prices without tiers each prices its own time.
        keys = keys.exclude(price__model=PriceModel.PER_UNIT, override=None)
    ordered = keys.select_related("organization", "period").order_by("organization_id")
    by_organization = groupby(ordered.iterator(500), attrgetter("organization_id"))
    return any(_is_any_rated_otherwise(list(group)) for _organization, group in by_organization)


def _is_any_rated_otherwise(keys: Sequence[ChargeKey]) -> bool:
    """Return that of an organization's keys, in two queries however many they are."""
    rows = ChargeHour.objects.filter(key__in=keys, quantity__gt=0)
    used = [*rows.values_list("key_id", "hour")]
    if not used:
        return False
    by_id = {key.pk: key for key in keys}
    hours = [hour for _key_id, hour in used]
    schedule = pricing.schedule(
        organization_id=keys[0].organization_id,
        currency=keys[0].organization.currency,
        start=min(*(key.period.starts_at for key in keys), *hours),
        end=max(hours) + HOUR,
    )

    def is_rated_otherwise(key: ChargeKey, hour: datetime) -> bool:
        since = min(key.period.starts_at, hour)
        terms = schedule.terms_for(key.meter, key.sku, key.region, hour, since)
        return terms is None or terms.key_id != key.price_key_id

    return any(is_rated_otherwise(by_id[key_id], hour) for key_id, hour in used)


def rated_until(
    *, since: datetime, book_id: UUID | None = None, organization_id: UUID | None = None
) -> datetime | None:
    """Return the end of the latest hour from `since` on that was charged by a price of a book, or to an organization.

    None if there is none. Pricing asks for it while nobody may charge, since no version or assignment may take effect
    before it; so nothing is read of the periods that ended by then, which hold nearly all hours.
    """
    rated = ChargeHour.objects.filter(
        key__price_key_id__isnull=False, key__period__ends_at__gt=since, quantity__gt=0, hour__gte=since
    )
    if book_id is not None:
        rated = rated.filter(key__price__version__book_id=book_id)
    if organization_id is not None:
        rated = rated.filter(organization_id=organization_id)
    last = rated.aggregate(last=Max("hour"))["last"]
    return floor_hour(last) + HOUR if last else None
