"""What an organization's usage costs hour by hour: the plan that charging posts and that the accrual adds up.

A charge key is (organization, period, meter, SKU, region, price line). With Q(h) its exact cumulative quantity to the
end of hour h and C(h) = rate(Q(h)) rounded half up to micros, hour h costs C(h) − C(h−1). So the sum never drifts,
however the usage is split, and a late hour moves those after it by at most one micro each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, localcontext
from operator import attrgetter
from typing import NamedTuple
from uuid import UUID

from django.db.models import Subquery

from apps.billing.models import BillingProgress, ChargeKey
from apps.core.compiled import CompiledQuery
from apps.core.ids import uuid7
from apps.core.money import EXACT
from apps.core.periods import HOUR
from apps.metering import selectors as metering
from apps.metering.selectors import UsageSlot
from apps.organizations.models import BillingPeriod, Organization
from apps.pricing import rating
from apps.pricing import selectors as pricing
from apps.pricing.rating import PriceTerms
from apps.pricing.selectors import PriceSchedule

ZERO = Decimal(0)
# A billion major units for one hour of one SKU is a mistake somewhere. It is kept as unpriced, for staff to look at, so
# that it neither overflows the ledger's integers nor holds up the organization's other usage.
HOUR_MICROS_MAX = 10**15


_KEY_COLUMNS = [field.attname for field in ChargeKey._meta.concrete_fields]
_HOUR_COLUMNS = ("hours__hour", "hours__id", "hours__quantity", "hours__amount_micros", "hours__revision")


class Family(NamedTuple):
    """The charge keys that share everything but the price line."""

    period_id: UUID
    meter: str
    sku: str
    region: str


@dataclass(slots=True, kw_only=True)
class ChargedHour:
    """One hour of a charge key while it is planned; as `models.ChargeHour`, without an id until it is stored."""

    id: UUID | None = None
    quantity: Decimal = ZERO
    amount_micros: int = 0
    revision: int = 0


@dataclass(slots=True, kw_only=True)
class KeyPlan:
    """One charge key with all its hours, those that change included."""

    key: ChargeKey
    terms: PriceTerms | None
    hours: dict[datetime, ChargedHour] = field(default_factory=dict)
    touched: set[datetime] = field(default_factory=set)
    is_new: bool = False

    def has_usage(self, hour: datetime) -> bool:
        """Return whether an hour is charged by this key, for more than nothing."""
        row = self.hours.get(hour)
        return row is not None and row.quantity > 0

    def set_quantity(self, hour: datetime, quantity: Decimal) -> None:
        """Give an hour its quantity; the amounts are computed afterwards, all at once."""
        row = self.hours.get(hour)
        if row is None:
            row = self.hours[hour] = ChargedHour()
        row.quantity = quantity
        self.touched.add(hour)


class Delta(NamedTuple):
    """What an hour of a key costs more (or less) than was posted for it."""

    hour: datetime
    plan: KeyPlan
    micros: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that charging a set of changed hours writes, with the periods and prices that it was made by."""

    keys: tuple[KeyPlan, ...]
    deltas: tuple[Delta, ...]
    periods: Sequence[BillingPeriod] = ()
    schedule: PriceSchedule | None = None

    @property
    def total_micros(self) -> int:
        return sum(delta.micros for delta in self.deltas)


def amounts_micros(terms: PriceTerms, quantities: Iterable[Decimal]) -> list[int]:
    """Return C(h) − C(h−1) in micros for the quantities of ascending hours, each C rounded half up once."""
    amounts: list[int] = []
    before = 0
    with localcontext(EXACT):
        total = ZERO
        for quantity in quantities:
            total += quantity
            cumulative = rating.amount_micros(terms, total)
            amounts.append(cumulative - before)
            before = cumulative
    return amounts


def plan_unposted(
    organization: Organization,
    *,
    now: datetime,
    also: Collection[UsageSlot] = (),
    prices_until: datetime | None = None,
) -> Plan:
    """Return what the usage costs that is not posted yet: the accrual, without writing anything.

    also: slots whose charge keys the plan is to hold although nothing of them may be unposted.
    prices_until: up to when its schedule is to have prices, for a forecast.
    """
    # Usage has periods, so the first of them can say how far it is charged.
    periods = _PERIODS.all(organization_id=organization.id)
    if not periods:
        return Plan((), ())
    quantities = metering.pending_quantities(
        organization.id,
        open_from=periods[0].charged_until,  # type: ignore[attr-defined]  # Annotated above.
        also=also,
    )
    return _plan(organization, quantities, periods, now=now, prices_until=prices_until)


_PERIODS = CompiledQuery(
    lambda organization_id: BillingPeriod.objects.of(organization_id).annotate(
        charged_until=Subquery(
            BillingProgress.objects.filter(organization_id=organization_id).values("charged_until")
        )
    ),
    organization_id=UUID(int=1),
)


def plan_charges(organization: Organization, slots: Collection[UsageSlot], *, now: datetime) -> Plan:
    """Return what the current usage in the slots costs beyond what is posted, without writing anything.

    Call it under the wallet's lock to post the result; without, it is an estimate of the same.
    """
    if not slots:
        return Plan((), ())
    periods = list(BillingPeriod.objects.of(organization.id))
    found = metering.slot_quantities(organization.id, slots)
    return _plan(organization, {slot: found.get(slot, ZERO) for slot in slots}, periods, now=now)


def _plan(
    organization: Organization,
    slots: Mapping[UsageSlot, Decimal],
    periods: Sequence[BillingPeriod],
    *,
    now: datetime,
    prices_until: datetime | None = None,
) -> Plan:
    """Return what the slots' quantities cost beyond what is posted."""
    if not slots:
        return Plan((), (), periods)
    starts = [period.starts_at for period in periods]
    hours = [slot.hour for slot in slots]
    first_period = _period_of(min(hours), periods, starts)
    schedule = pricing.schedule(
        organization_id=organization.id,
        currency=organization.currency,
        start=min(first_period.starts_at, *hours),
        end=max(max(hours) + HOUR, prices_until or max(hours)),
    )
    in_order = sorted(slots, key=attrgetter("hour", "meter", "sku", "region"))
    placed = [(slot, _period_of(slot.hour, periods, starts)) for slot in in_order]
    wanted = {_family(slot, period) for slot, period in placed}
    families = _load_families(organization.id, wanted, schedule)

    for slot, period in placed:
        plans = families[_family(slot, period)]
        quantity = slots[slot]
        home = next((plan for plan in plans if plan.terms and plan.has_usage(slot.hour)), None)
        if home is None or _is_absurd(home.terms, quantity):
            # Usage that is rated stays with its price; prices only ever change ahead of it. An hour whose usage was
            # withdrawn is rated no longer, so a price may have changed before it.
            terms = terms_of_hour(schedule, slot, quantity, period_start=period.starts_at)
            home = _plan_with(plans, terms) or _new_plan(organization, period, slot, terms, plans, now=now)
            for plan in plans:
                if plan is not home and slot.hour in plan.hours:
                    plan.set_quantity(slot.hour, ZERO)
        home.set_quantity(slot.hour, quantity)

    touched = [plan for plans in families.values() for plan in plans if plan.touched]
    return Plan(tuple(touched), tuple(_deltas(touched)), periods, schedule)


def terms_of_hour(
    schedule: PriceSchedule, slot: UsageSlot, quantity: Decimal, *, period_start: datetime
) -> PriceTerms | None:
    """Return what prices a quantity of an hour, or None: nothing does, or the amount would be absurd.

    period_start: of the period that the hour is charged into; the first one takes what is older, at the prices of then.
    """
    since = min(period_start, slot.hour)
    terms = schedule.terms_for(slot.meter, slot.sku, slot.region, slot.hour, since)
    return None if _is_absurd(terms, quantity) else terms


def _is_absurd(terms: PriceTerms | None, quantity: Decimal) -> bool:
    return terms is not None and rating.amount_micros(terms, quantity) > HOUR_MICROS_MAX


def _deltas(plans: Sequence[KeyPlan]) -> list[Delta]:
    """Return the differences to post: credit that comes back first, then the hours in their order."""
    deltas = []
    for plan in plans:
        if plan.terms is None:
            continue
        hours = sorted(plan.hours)
        for hour, amount in zip(
            hours, amounts_micros(plan.terms, (plan.hours[hour].quantity for hour in hours)), strict=True
        ):
            row = plan.hours[hour]
            if amount != row.amount_micros:
                deltas.append(Delta(hour, plan, amount - row.amount_micros))
                plan.touched.add(hour)
    return sorted(
        deltas,
        key=lambda delta: (
            delta.micros > 0,
            delta.hour,
            delta.plan.key.meter,
            delta.plan.key.sku,
            delta.plan.key.region,
            delta.plan.key.id,
        ),
    )


def _load_families(
    organization_id: UUID, families: set[Family], schedule: PriceSchedule
) -> dict[Family, list[KeyPlan]]:
    """Return the existing keys of each family with all their hours and terms, in at most three queries.

    schedule: whose rows and overrides need not be loaded again.
    """
    loaded: dict[Family, list[KeyPlan]] = {family: [] for family in families}
    plans: dict[UUID, KeyPlan] = {}
    rows = ChargeKey.objects.filter(
        organization_id=organization_id,
        period_id__in={family.period_id for family in families},
        meter__in={family.meter for family in families},
        sku__in={family.sku for family in families},
    ).values_list(*_KEY_COLUMNS, *_HOUR_COLUMNS)
    for row in rows:
        values = row[: len(_KEY_COLUMNS)]
        hour, pk, quantity, amount_micros, revision = row[len(_KEY_COLUMNS) :]
        plan = plans.get(values[0])
        if plan is None:
            key = ChargeKey.from_db(rows.db, _KEY_COLUMNS, values)
            plan = plans[key.id] = KeyPlan(key=key, terms=None)
        if hour is not None:
            plan.hours[hour] = ChargedHour(
                id=pk, quantity=quantity, amount_micros=amount_micros, revision=revision
            )
    wanted = [plan for plan in plans.values() if _family_of(plan.key) in loaded]
    stored = {(plan.key.price_id, plan.key.override_id) for plan in wanted if plan.key.price_key_id}
    terms = pricing.terms_of_keys(stored, known=schedule.stored_rows(), known_overrides=schedule.overrides)
    for plan in sorted(wanted, key=lambda plan: (plan.key.created_at, plan.key.id)):
        plan.terms = terms.get((plan.key.price_id, plan.key.override_id))
        loaded[_family_of(plan.key)].append(plan)
    return loaded


def _plan_with(plans: Sequence[KeyPlan], terms: PriceTerms | None) -> KeyPlan | None:
    wanted = terms.key_id if terms else None
    return next((plan for plan in plans if plan.key.price_key_id == wanted), None)


def _new_plan(
    organization: Organization,
    period: BillingPeriod,
    slot: UsageSlot,
    terms: PriceTerms | None,
    plans: list[KeyPlan],
    *,
    now: datetime,
) -> KeyPlan:
    key = ChargeKey(
        id=uuid7(),
        organization_id=organization.id,
        period=period,
        meter=slot.meter,
        sku=slot.sku,
        region=slot.region,
        price_id=terms.price_id if terms else None,
        override_id=terms.override_id if terms else None,
        price_key_id=terms.key_id if terms else None,
        created_at=now,
    )
    plan = KeyPlan(key=key, terms=terms, is_new=True)
    plans.append(plan)
    return plan


def _period_of(hour: datetime, periods: Sequence[BillingPeriod], starts: Sequence[datetime]) -> BillingPeriod:
    """Return the period of an hour; usage older than a first period that is final belongs to that one."""
    assert periods, "metering makes the periods before it writes usage"
    return periods[max(bisect_right(starts, hour) - 1, 0)]


def _family(slot: UsageSlot, period: BillingPeriod) -> Family:
    return Family(period.id, slot.meter, slot.sku, slot.region)


def _family_of(key: ChargeKey) -> Family:
    return Family(key.period_id, key.meter, key.sku, key.region)
