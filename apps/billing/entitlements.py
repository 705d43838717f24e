"""May this start? One function asks status, price, plan, quota, credit and budgets, and says what would lift a no."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.utils.translation import gettext as _

from apps.billing import budgets, holds, selectors
from apps.billing.models import Budget, BudgetScope, Hold
from apps.billing.runway import Use
from apps.billing.selectors import Standing
from apps.core import money
from apps.core.periods import HOUR
from apps.credentials.models import ApiKey
from apps.metering import selectors as metering
from apps.metering.selectors import ResourceUsage
from apps.organizations.models import BillingState, Organization, OrganizationStatus, Project
from apps.quotas import selectors as quotas
from apps.quotas.selectors import Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is to start: GPUs (none is an instance without) of a SKU in a region, for whom, and for how long."""

    sku: str
    region: str
    gpus: Decimal
    hours: Decimal = Decimal(1)
    project: Project | None = None
    credential: ApiKey | None = None

    @property
    def use(self) -> Use:
        """What it uses a second."""
        meter = "gpu_hours" if self.gpus else "instance_hours"
        return Use(meter, self.sku, self.region, self.gpus or Decimal(1))

    @property
    def length(self) -> timedelta:
        """How long it is to run."""
        return timedelta(microseconds=int(self.hours * 3_600_000_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why something may not start, and what would lift that."""

    code: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """The answer.

    cost_micros: of the hours asked for; None without a price. needed_micros: what must be available, an hour at least.
    runway_ends_at: when the credit is used up if it starts and everything runs on.
    """

    reasons: Sequence[Reason]
    cost_micros: int | None
    needed_micros: int
    runway_ends_at: datetime | None

    @property
    def allowed(self) -> bool:
        return not self.reasons


def check(
    organization: Organization, launch: Launch, *, own: Hold | None = None, now: datetime
) -> Entitlement:
    """Return whether something may start now, with every reason against it.

    own: the live hold of the same allocation; what it reserves is there for this very launch.
    """
    running = metering.running_resources(organization.id, now=now)
    uses = selectors.uses_of(running, launch.use)
    stands = selectors.standing(
        organization, now=now, uses=uses, counted_until=selectors.counted_until(running, now=now)
    )
    alone = selectors.forecast_of(organization, stands, [launch.use])
    needed = max(alone.cost_micros(max(launch.length, HOUR)), 0)
    reasons = list(_of_status(organization))
    if not alone.is_priced():
        reasons.append(
            Reason(
                code="sku_unpriced",
                remedy=_("There is no price for this SKU and region. Choose another one."),
            )
        )
    reasons += _of_quotas(organization, launch, running, own, now=now)
    reasons += _of_credit(stands, needed, own, currency=organization.currency, now=now)
    reasons += _of_budgets(organization, launch, now=now)
    together = selectors.forecast_of(organization, stands, uses)
    return Entitlement(
        reasons=reasons,
        cost_micros=alone.cost_micros(launch.length) if alone.is_priced() else None,
        needed_micros=needed,
        runway_ends_at=together.runs_out_at(
            stands.lots, owed_micros=stands.owed_micros - stands.credit_limit_micros
        ),
    )


def _of_status(organization: Organization) -> Iterator[Reason]:
    if organization.status != OrganizationStatus.ACTIVE:
        yield Reason(
            code="organization_suspended", remedy=_("The organization is suspended. Contact support.")
        )
    if organization.billing_state == BillingState.SUSPENDED:
        yield Reason(
            code="spending_suspended",
            remedy=_("New usage is blocked. Top up, or contact support if there is credit."),
        )


def _of_quotas(
    organization: Organization,
    launch: Launch,
    running: Sequence[ResourceUsage],
    own: Hold | None,
    *,
    now: datetime,
) -> list[Reason]:
    """Return the limits in the way; what is held and does not run yet counts like what runs."""
    if not launch.gpus:
        return []
    started = {one.resource.subject for one in running}
    live = Hold.objects.filter(organization_id=organization.id, gpus__gt=0).live(now)
    reserved = [
        Demand(sku=hold.sku, region=hold.region, gpus=hold.gpus or Decimal(0))
        for hold in live
        if hold.subject not in started and (own is None or hold.pk != own.pk)
    ]
    found = quotas.exceeded(
        organization_id=organization.id,
        sku=launch.sku,
        region=launch.region,
        gpus=launch.gpus,
        now=now,
        reserved=reserved,
    )
    return [Reason(code=one.code, remedy=one.remedy) for one in found]


def _of_credit(
    stands: Standing, needed: int, own: Hold | None, *, currency: str, now: datetime
) -> Iterator[Reason]:
    held = (
        holds.remaining_micros(own.organization_id, stands.plan, now=now, ids=[own.id]).get(own.id, 0)
        if own
        else 0
    )
    available = stands.available_micros + held
    if available < needed:
        # Up to the next minor unit: less than that would still not do.
        minor = -((available - needed) // money.micros_per_minor(currency))
        yield Reason(
            code="insufficient_credit",
            remedy=_("%(missing)s %(currency)s more is needed. Top up, or ask for less.")
            % {"missing": f"{money.from_minor(minor, currency):,f}", "currency": currency},
        )


def _of_budgets(organization: Organization, launch: Launch, *, now: datetime) -> list[Reason]:
    covering = [budget for budget in budgets.budgets_of(organization.id) if _covers(budget, launch)]
    return [
        Reason(
            code="budget_exceeded",
            remedy=_("The budget %(name)s is used up. Raise it, or wait for the next period.")
            % {"name": found.budget.name},
        )
        for found in budgets.blocking(organization, covering, now=now)
    ]


def _covers(budget: Budget, launch: Launch) -> bool:
    if budget.scope == BudgetScope.PROJECT:
        return launch.project is not None and budget.project_id == launch.project.pk
    if budget.scope == BudgetScope.API_KEY:
        return launch.credential is not None and budget.credential_id == launch.credential.pk
    return True
