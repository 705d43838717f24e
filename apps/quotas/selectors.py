"""What an organization may use, what it uses, and what stands against using more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from apps.core.money import plain
from apps.core.periods import SECONDS_PER_HOUR
from apps.credentials.models import ApiKey
from apps.metering import selectors as metering
from apps.organizations import selectors as organizations
from apps.organizations.models import BillingPeriod, Organization, Project
from apps.pricing.models import Region, Sku
from apps.quotas.models import RATES, LimitOverride, Plan, PlanLimit, Quota, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit of an organization. value: None is no limit. is_own: not its plan's; expires_at: then it ends."""

    target: Target
    value: int | None
    is_own: bool = False
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUse:
    """A limit with what is used of it; `used` is None for rates, which no row counts."""

    limit: Limit
    used: Decimal | None

    @property
    def remaining(self) -> Decimal | None:
        """What is left, never below zero; None without a limit or a count."""
        if self.limit.value is None or self.used is None:
            return None
        return max(Decimal(0), self.limit.value - self.used)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """GPUs of a SKU in a region."""

    sku: str
    region: str
    gpus: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why something is refused: a code for programs, and what would lift it in words.

    limit and used say how it stands before the demand.
    """

    code: str
    remedy: str
    target: Target
    limit: int
    used: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast an organization may ask; None is no limit."""

    requests_per_minute: int | None
    request_burst: int | None
    writes_per_minute: int | None


def plans() -> QuerySet[Plan]:
    """Return the plans that everybody sees."""
    return Plan.objects.filter(is_public=True).prefetch_related("limits")


def plan_of(organization_id: UUID) -> Plan:
    """Return the plan of an organization."""
    return Plan.objects.get(code__in=Organization.objects.filter(pk=organization_id).values("plan"))


def limits(*, organization_id: UUID, now: datetime) -> dict[Target, Limit]:
    """Return every limit of an organization: its own where there is one, else its plan's. Two queries."""
    plan = Organization.objects.filter(pk=organization_id).values("plan")
    rows = PlanLimit.objects.filter(plan__code__in=plan).values_list("quota", "family", "region", "value")
    found = {Target(quota): Limit(target=Target(quota), value=None) for quota in Quota.values}
    for *about, value in rows:
        found[Target(*about)] = Limit(target=Target(*about), value=value)
    for own in LimitOverride.objects.in_force(organization_id, now):
        target = own.target
        found[target] = Limit(target=target, value=own.value, is_own=True, expires_at=own.expires_at)
    order = {quota: place for place, quota in enumerate(Quota.values)}
    return dict(sorted(found.items(), key=lambda item: (order[item[0].quota], *item[0][1:])))


def rates(*, organization_id: UUID, now: datetime) -> Rates:
    """Return how fast an organization may ask."""
    found = limits(organization_id=organization_id, now=now)
    return Rates(**{quota.value: found[Target(quota)].value for quota in RATES})


def family_of(sku: str) -> str:
    """Return the family that a SKU is limited in, in lower case; without one it is its own."""
    return families_of([sku])[sku]


def families_of(skus: Iterable[str]) -> dict[str, str]:
    """Return the family of each SKU as `family_of` does. One query."""
    wanted = set(skus)
    known = dict(Sku.objects.filter(code__in=wanted).exclude(family="").values_list("code", "family"))
    return {sku: known.get(sku, sku).lower() for sku in wanted}


def is_family(name: str) -> bool:
    """Return whether a SKU of this family exists."""
    return Sku.objects.filter(Q(family__iexact=name) | Q(family="", code__iexact=name)).exists()


def is_region(code: str) -> bool:
    """Return whether the region exists."""
    return Region.objects.filter(code=code).exists()


def running_demands(*, organization_id: UUID, now: datetime) -> list[Demand]:
    """Return what runs with GPUs, as of the last tick."""
    return [
        Demand(sku=item.sku, region=item.region, gpus=item.gpus)
        for item in metering.running_resources(organization_id, now=now)
        if item.gpus
    ]


def used_in_period(*, organization_id: UUID, now: datetime) -> Mapping[str, Decimal]:
    """Return GPU-hours and outgoing GB of the running billing period, by quota."""
    period = BillingPeriod.objects.of(organization_id).containing(now).first()
    if period is None:
        return {Quota.GPU_HOURS_PER_MONTH: Decimal(0), Quota.DATA_GB_PER_MONTH: Decimal(0)}
    rows = metering.usage_rows(organization_id, period.starts_at, period.ends_at)
    by_meter = {row.meter: row.quantity for row in rows}
    return {
        Quota.GPU_HOURS_PER_MONTH: by_meter.get("gpu_hours", Decimal(0)) / SECONDS_PER_HOUR,
        Quota.DATA_GB_PER_MONTH: by_meter.get("egress_gb", Decimal(0)),
    }


def counts(*, organization_id: UUID, now: datetime) -> Mapping[str, int]:
    """Return how many members (with invites that wait), working API keys and active projects there are, by quota."""
    keys = ApiKey.objects.kept(now).filter(organization_id=organization_id)
    return {
        Quota.MEMBERS: organizations.seats_taken(organization_id, now=now),
        Quota.API_KEYS: keys.count(),
        Quota.PROJECTS: Project.objects.active().filter(organization_id=organization_id).count(),
    }


def uses(*, organization_id: UUID, now: datetime) -> list[QuotaUse]:
    """Return every limit of an organization with what is used of it, in the order of the quotas."""
    of_organization = limits(organization_id=organization_id, now=now)
    gpus = _gpus_by_target(of_organization, running_demands(organization_id=organization_id, now=now))
    used: dict[str, Decimal] = {
        quota: Decimal(count) for quota, count in counts(organization_id=organization_id, now=now).items()
    }
    used |= used_in_period(organization_id=organization_id, now=now)
    return [
        QuotaUse(
            limit=limit,
            used=gpus.get(target, Decimal(0))
            if target.quota == Quota.CONCURRENT_GPUS
            else used.get(target.quota),
        )
        for target, limit in of_organization.items()
    ]


def shown(quantity: Decimal) -> Decimal:
    """Return a quantity with at most six decimals, rounded half up: for display only."""
    return quantity.quantize(Decimal("0.000001"), ROUND_HALF_UP)


def exceeded(
    *,
    organization_id: UUID,
    sku: str,
    region: str,
    gpus: Decimal,
    now: datetime,
    reserved: Sequence[Demand] = (),
) -> list[Reason]:
    """Return every limit that starting these GPUs for an hour would exceed; nothing where none does.

    reserved: what is promised but does not run yet, such as holds; it counts like what runs.
    """
    of_organization = limits(organization_id=organization_id, now=now)
    reasons = []
    target = target_for(of_organization, family_of(sku), region)
    limit = of_organization[target].value
    if limit is not None:
        counted = [*running_demands(organization_id=organization_id, now=now), *reserved]
        used = _gpus_by_target(of_organization, counted).get(target, Decimal(0))
        if used + gpus > limit:
            reasons.append(
                Reason(
                    code="quota_exceeded",
                    remedy=_(
                        "%(name)s: %(used)s of %(limit)d in use or reserved. Stop what you no longer need, or ask for "
                        "more."
                    )
                    % {"name": str(target), "used": plain(used), "limit": limit},
                    target=target,
                    limit=limit,
                    used=used,
                )
            )
    hours = of_organization[Target(Quota.GPU_HOURS_PER_MONTH)]
    if hours.value is not None:
        used = used_in_period(organization_id=organization_id, now=now)[Quota.GPU_HOURS_PER_MONTH]
        # As with credit, what starts must be able to run for an hour.
        if used + gpus > hours.value:
            reasons.append(
                Reason(
                    code="plan_limit_reached",
                    remedy=_(
                        "%(used)s of %(limit)d GPU-hours of this month are used. Choose a larger plan, ask for more, "
                        "or wait for the next month."
                    )
                    % {"limit": hours.value, "used": plain(used.quantize(Decimal("0.01"), ROUND_HALF_UP))},
                    target=hours.target,
                    limit=hours.value,
                    used=used,
                )
            )
    return reasons


def target_for(targets: Iterable[Target], family: str, region: str) -> Target:
    """Return the most specific limit of GPUs that covers a family in a region; each GPU counts under one alone."""
    covering = (
        target
        for target in targets
        if target.quota == Quota.CONCURRENT_GPUS and target.covers(family, region)
    )
    return max(covering, key=lambda target: target.closeness)


def _gpus_by_target(targets: Collection[Target], demands: Collection[Demand]) -> dict[Target, Decimal]:
    families = families_of(demand.sku for demand in demands)
    sums: dict[Target, Decimal] = defaultdict(Decimal)
    for demand in demands:
        sums[target_for(targets, families[demand.sku], demand.region)] += demand.gpus
    return sums
