"""The demonstration of `make run`: three organizations whose provisioner reports allocations through the API.

The organizations, prices and credit are made by the same services as real ones; the provisioner is an ordinary client
of `/usage/events` with the integration key of `bootstrap`. It exists only while DEBUG.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from apps.billing import selectors as billing_state
from apps.billing import services as billing
from apps.billing.models import CreditLot, Pot
from apps.core.actor import system_actor
from apps.core.errors import Unauthenticated
from apps.core.ids import uuid7
from apps.core.money import MICROS_PER_UNIT
from apps.core.periods import floor_hour
from apps.core.permissions import Permission, Role
from apps.credentials import services as credentials
from apps.identity.models import User
from apps.organizations import services as organizations
from apps.organizations.models import Membership, Organization, Project
from apps.portal.selectors import logins
from apps.pricing import files
from apps.pricing import services as pricing
from apps.pricing.models import BookAssignment, Meter, PriceBook

SOURCE = "demonstration/provisioner"
HEARTBEAT = timedelta(seconds=15)
REGIONS = ("eu-north1", "eu-west1", "us-central1", "us-east1")
PRICES = {"h200": "3.49", "h100": "2.49", "a100": "1.49", "l40s": "0.89"}
BOOK = "Demonstration"
KEPT_IN = "demonstration.json"
HISTORY_DAYS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One organization of the demonstration: what it buys and how it pays, in major units.

    limit: what it may owe, for one that pays by invoice. history: whether it has a past. gpus: of each machine.
    """

    slug: str
    name: str
    skus: tuple[str, ...]
    projects: tuple[str, ...]
    fleet: int
    paid: int = 0
    promo: int = 0
    plan: str = "professional"
    limit: int = 0
    history: bool = True
    gpus: tuple[int, ...] = (1, 2, 4, 8)


TENANTS = (
    Tenant(
        slug="aurora-imaging",
        name="Aurora Imaging",
        skus=("h100", "a100"),
        projects=("training", "inference"),
        fleet=4,
        paid=20_000,
        promo=500,
        plan="enterprise",
    ),
    Tenant(
        slug="borealis-robotics",
        name="Borealis Robotics",
        skus=("l40s", "a100"),
        projects=("simulation", "perception"),
        fleet=3,
        paid=2_000,
    ),
    Tenant(
        slug="cirrus-language-lab",
        name="Cirrus Language Lab",
        skus=("h200", "h100"),
        projects=("pretraining",),
        fleet=2,
        plan="enterprise",
        limit=50_000,
    ),
)
# With DEMO=fast: about five minutes of credit, again at every start.
HURRIED = Tenant(
    slug="dusk-rendering",
    name="Dusk Rendering",
    skus=("h200",),
    projects=("frames",),
    fleet=4,
    paid=9,
    plan="free",
    history=False,
    gpus=(8,),
)


def tenants() -> tuple[Tenant, ...]:
    """Return the organizations of this run."""
    return (*TENANTS, HURRIED) if settings.DEMO == "fast" else TENANTS


def set_up(*, now: datetime) -> list[Organization]:
    """Make the demonstration's price book, organizations, projects and credit where they are missing."""
    actor = system_actor("demonstration")
    content = files.read_json(json.dumps(_book()), meters=Meter.objects.values_list("code", flat=True))
    book = pricing.import_price_book(
        actor=actor, content=content, publish=True, is_demonstration=True, now=now
    ).book
    made = []
    for tenant in tenants():
        organization = Organization.objects.filter(slug=tenant.slug).first()
        if organization is None:
            organization = organizations.create_organization(
                actor=actor,
                name=tenant.name,
                slug=tenant.slug,
                billing_email=f"finance@{tenant.slug}.example",
                plan=tenant.plan,
                is_demonstration=True,
                now=now,
            )
            if tenant.limit:
                billing.set_credit_limit(
                    actor=actor,
                    organization=organization,
                    credit_limit_micros=tenant.limit * MICROS_PER_UNIT,
                    reason="The demonstration pays this one by invoice",
                    now=now,
                )
        _assign(book, organization, now=now)
        for slug in tenant.projects:
            if not Project.objects.filter(organization=organization, slug=slug).exists():
                organizations.create_project(actor=actor, organization=organization, slug=slug, now=now)
        if not CreditLot.objects.filter(organization=organization, source="demonstration").exists():
            _grant(organization, tenant, now=now)
        elif tenant is HURRIED:
            _refill(organization, tenant, now=now)
        _let_in(organization, now=now)
        made.append(organization)
    _keep_key(made[0], now=now)
    return made


def _let_in(organization: Organization, *, now: datetime) -> None:
    """Make the customer of `bootstrap` an admin of a simulated organization: there the portal has something to show."""
    known = logins()
    visitor = User.objects.filter(email=known["owner"]["email"]).first() if known else None
    if visitor is None or Membership.objects.filter(organization=organization, user=visitor).exists():
        return
    organizations.add_member(
        actor=system_actor("demonstration"),
        organization=organization,
        user=visitor,
        role=Role.ADMIN,
        now=now,
    )


def _keep_key(organization: Organization, *, now: datetime) -> None:
    """Make an API key for the start page's examples and keep it beside the logins, unless the kept one still works."""
    kept = sample()
    if kept is not None:
        try:
            credentials.authenticate_secret(kept["api_key"], address="127.0.0.1", now=now)
        except Unauthenticated:
            pass
        else:
            return
    _key, secret = credentials.create_api_key(
        actor=system_actor("demonstration"),
        organization=organization,
        name="Start page",
        scopes=[str(permission) for permission in Permission],
        now=now,
    )
    path = settings.VAR / KEPT_IN
    path.touch(mode=0o600)
    path.write_text(
        json.dumps({"organization": organization.slug, "api_key": secret}) + "\n", encoding="utf-8"
    )


def sample() -> dict[str, str] | None:
    """Return the slug and the API key of the organization that examples use, or None before the demonstration ran."""
    try:
        return dict(json.loads((settings.VAR / KEPT_IN).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _assign(book: PriceBook, organization: Organization, *, now: datetime) -> None:
    if not BookAssignment.objects.filter(organization=organization).exists():
        pricing.assign_book(
            actor=system_actor("demonstration"),
            organization=organization,
            book=book,
            effective_from=floor_hour(now - timedelta(days=10 * HISTORY_DAYS)),
            now=now,
        )


def _book() -> dict[str, Any]:
    return {
        "name": BOOK,
        "currency": "USD",
        "effective_from": "1970-01-01T00:00:00Z",
        "prices": [
            {"meter": "gpu_hours", "sku": sku, "region": region, "model": "per_unit", "unit_price": price}
            for sku, price in PRICES.items()
            for region in REGIONS
        ],
    }


def _grant(organization: Organization, tenant: Tenant, *, now: datetime) -> None:
    for pot, amount in ((Pot.PAID, tenant.paid), (Pot.PROMO, tenant.promo)):
        if amount:
            billing.grant_credit(
                actor=system_actor("demonstration"),
                organization_id=organization.id,
                amount_micros=amount * MICROS_PER_UNIT,
                pot=pot,
                source="demonstration",
                reason="Credit of the demonstration",
                now=now,
            )


def _refill(organization: Organization, tenant: Tenant, *, now: datetime) -> None:
    """Pay what the last run left owed, and the same credit once more."""
    balance = billing_state.balance(organization, now=now)
    missing = tenant.paid * MICROS_PER_UNIT - balance.available_micros
    if missing > 0:
        billing.grant_credit(
            actor=system_actor("demonstration"),
            organization_id=organization.id,
            amount_micros=missing,
            pot=Pot.PAID,
            source="demonstration",
            reason="Another start of the demonstration",
            now=now,
        )


@dataclass(slots=True, kw_only=True)
class _Allocation:
    subject: str
    stops_at: datetime
    gpus: int


@dataclass(slots=True)
class Provisioner:
    """A simulated provisioner: what it reports is decided by its random numbers and the time alone."""

    tenant: Tenant
    numbers: random.Random
    running: list[_Allocation] = field(default_factory=list)

    def history(self, *, now: datetime) -> Iterator[dict[str, Any]]:
        """Yield the events of allocations that ran and stopped in the weeks before."""
        for day in range(HISTORY_DAYS if self.tenant.history else 0, 0, -1):
            if self.numbers.random() < 0.6:
                start = now - timedelta(days=day, minutes=self.numbers.randrange(600))
                end = min(start + timedelta(minutes=self.numbers.randrange(90, 2_000)), now)
                subject = f"{self.tenant.slug}-{uuid7().hex[-8:]}"
                yield self._event("started", subject, start, **self._machine())
                yield self._event("stopped", subject, end)

    def report(self, *, now: datetime) -> list[dict[str, Any]]:
        """Return the events since the last report: stops, resizes, starts, and a heartbeat for what runs on."""
        events = []
        for allocation in list(self.running):
            if allocation.stops_at <= now:
                self.running.remove(allocation)
                events.append(self._event("stopped", allocation.subject, now))
            elif allocation.gpus > 1 and self.numbers.random() < 0.02:
                allocation.gpus = self.numbers.choice(self.tenant.gpus)
                events.append(self._event("resized", allocation.subject, now, gpus=str(allocation.gpus)))
            else:
                events.append(self._event("heartbeat", allocation.subject, now))
        if len(self.running) < self.tenant.fleet and (not self.running or self.numbers.random() < 0.5):
            machine = self._machine()
            allocation = _Allocation(
                subject=f"{self.tenant.slug}-{uuid7().hex[-8:]}",
                stops_at=now + timedelta(seconds=self.numbers.randrange(120, 1_800)),
                gpus=int(machine["gpus"]),
            )
            self.running.append(allocation)
            events.append(self._event("started", allocation.subject, now, **machine))
        return events

    def _machine(self) -> dict[str, str]:
        return {
            "sku": self.numbers.choice(self.tenant.skus),
            "region": self.numbers.choice(REGIONS),
            "gpus": str(self.numbers.choice(self.tenant.gpus)),
            "project": self.numbers.choice(self.tenant.projects),
        }

    def _event(self, what: str, subject: str, moment: datetime, **data: str) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": str(uuid7()),
            "source": SOURCE,
            "type": f"allocation.{what}",
            "subject": subject,
            "time": moment.isoformat(timespec="milliseconds"),
            "data": {"organization": self.tenant.slug, **data},
        }
