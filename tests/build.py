"""Builders: each makes the least valid thing by calling the services, so that fixtures keep every invariant."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from allauth.account.internal.flows import login as allauth_login
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from apps.billing import services as billing
from apps.billing.models import Budget, BudgetScope, Hold, Pot
from apps.billing.services import ChargeStep, Grant
from apps.core.actor import Actor, ActorKind, system_actor
from apps.core.money import to_micros
from apps.core.permissions import IntegrationScope, Permission, Role
from apps.credentials import services as credentials
from apps.identity import selectors as identity_selectors
from apps.identity import services as identity
from apps.identity.models import User
from apps.invoices import services as invoices
from apps.invoices.models import SellerEntity
from apps.invoices.services import ClosedPeriod
from apps.metering import services as metering
from apps.metering.services import Outcome
from apps.organizations import services as organizations
from apps.organizations.models import BillingProfile, Organization, Project
from apps.pricing import files as price_files
from apps.pricing import selectors as pricing_selectors
from apps.pricing import services as pricing
from apps.pricing.models import PriceBookVersion
from apps.quotas import services as quotas
from apps.quotas.models import LimitOverride, Target
from apps.vouchers import services as vouchers
from apps.vouchers.models import Campaign, CampaignKind

NOW = datetime(2026, 5, 15, 12, tzinfo=UTC)
_numbers = itertools.count(1)


def actor(organization: Organization | None = None) -> Actor:
    """Return the actor that builders act as."""
    return system_actor("tests", organization.id if organization else None)


def user(email: str = "", *, now: datetime | None = None, **fields: Any) -> User:
    """Make a person with a verified address."""
    return identity.create_user(
        email=email or f"user-{next(_numbers)}@example.com", now=now or timezone.now(), **fields
    )


def organization(slug: str = "", *, now: datetime | None = None, **fields: Any) -> Organization:
    """Make an organization; fields are those of `create_organization`."""
    slug = slug or f"org-{next(_numbers)}"
    return organizations.create_organization(
        actor=actor(), slug=slug, now=now or timezone.now(), **{"name": slug, **fields}
    )


def member(organization: Organization, role: Role = Role.DEVELOPER, *, user: User | None = None) -> User:
    """Make a person with a role in an organization and return that person."""
    person = user or globals()["user"]()
    organizations.add_member(
        actor=actor(organization), organization=organization, user=person, role=role, now=timezone.now()
    )
    return person


def user_actor(user: User, organization: Organization) -> Actor:
    """Return the actor that a member is in an organization."""
    alone = Actor(kind=ActorKind.USER, id=user.pk, label=user.email)
    found = organizations.resolve_for_actor(actor=alone, path=organization.slug, header=None, owner=None)
    assert found is not None
    return found[1]


def project(organization: Organization, slug: str = "", **fields: Any) -> Project:
    """Make a project of an organization."""
    slug = slug or f"project-{next(_numbers)}"
    return organizations.create_project(
        actor=actor(organization), organization=organization, slug=slug, now=timezone.now(), **fields
    )


def limit(
    organization: Organization,
    quota: str,
    value: int | None,
    *,
    family: str = "*",
    region: str = "*",
    expires_at: datetime | None = None,
    now: datetime | None = None,
) -> LimitOverride:
    """Give an organization a limit of its own; None is no limit."""
    return quotas.override_limit(
        actor=actor(),
        organization=organization,
        target=Target(quota, family, region),
        value=value,
        reason="tests",
        expires_at=expires_at,
        now=now or timezone.now(),
    )


def price_book(
    *rows: dict[str, Any],
    name: str = "",
    currency: str = "USD",
    effective_from: datetime = datetime(1970, 1, 1, tzinfo=UTC),
    is_demonstration: bool = False,
    now: datetime = NOW,
) -> PriceBookVersion:
    """Publish prices and return their version; the same name again makes the book's next version.

    rows: fields of the price book JSON; `meter` is gpu_hours, `sku` and `region` are `*` unless given.
    """
    listed = [{"meter": "gpu_hours", "sku": "*", "region": "*", **row} for row in rows]
    text = json.dumps({"name": name or f"Book {next(_numbers)}", "currency": currency, "prices": listed})
    return pricing.import_price_book(
        actor=actor(),
        content=price_files.read_json(text, meters=pricing_selectors.meter_codes()),
        effective_from=effective_from,
        publish=True,
        is_demonstration=is_demonstration,
        now=now,
    ).version


def api_key(organization: Organization, scopes: Collection[str] = tuple(Permission), **fields: Any) -> str:
    """Make an API key and return its secret; all scopes unless told."""
    now = fields.pop("now", None) or timezone.now()
    acting = fields.pop("actor", None) or actor(organization)
    return credentials.create_api_key(
        actor=acting, organization=organization, scopes=scopes, now=now, **{"name": "tests", **fields}
    )[1]


def integration(scopes: Collection[str] = tuple(IntegrationScope), **fields: Any) -> str:
    """Make an integration and return its secret; all integration scopes unless told."""
    now = fields.pop("now", None) or timezone.now()
    return credentials.create_integration(
        actor=actor(), scopes=scopes, now=now, **{"name": "tests", **fields}
    )[1]


def client(secret: str = "", **headers: str) -> APIClient:
    """Return a client that speaks JSON and sends a credential; headers by name, such as X_Org_Slug="lab"."""
    found = APIClient(headers={name.replace("_", "-"): value for name, value in headers.items()})
    found.default_format = "json"
    if secret:
        found.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return found


def person(user: User) -> Actor:
    """Return the actor that somebody is outside of any organization."""
    return Actor(kind=ActorKind.USER, id=user.pk, label=user.email, address="127.0.0.1")


def person_client(user: User, *, stepped_up: bool = True, **headers: str) -> APIClient:
    """Return a client that asks as a person, who has just proved themselves unless told otherwise."""
    found = client(**headers)
    found.force_authenticate(
        Actor(
            kind=ActorKind.USER,
            id=user.pk,
            label=user.email,
            stepped_up_at=timezone.now() if stepped_up else None,
        )
    )
    return found


def browser(user: User, *, stepped_up: bool = True, at: datetime | None = None) -> Client:
    """Return a client with a session of a person, who has proved themselves just now or `at`, unless told otherwise."""
    if not user.has_usable_password():  # Without one there is nothing to ask again but the login.
        user.set_password("correct horse")
        user.save()
    found = Client()
    found.force_login(user)
    if stepped_up:
        session = found.session
        methods = ("mfa", "password") if identity_selectors.has_second_factor(user) else ("password",)
        session[allauth_login.AUTHENTICATION_METHODS_SESSION_KEY] = [
            {"method": method, "at": (at or timezone.now()).timestamp()} for method in methods
        ]
        session[allauth_login._AUTHENTICATION_METHODS_USER_SESSION_KEY] = str(user.pk)
        session.save()
    return found


def tokens(user: User, password: str = "correct horse") -> credentials.Tokens:  # noqa: S107  Of tests.
    """Log a person in over REST and return their tokens; the password becomes theirs first."""
    if not user.check_password(password):
        user.set_password(password)
        user.save()
    return credentials.login(
        email=user.email,
        password=password,
        otp="",
        address="127.0.0.1",
        user_agent="tests",
        now=timezone.now(),
    )


def events(*sent: dict[str, Any], now: datetime = NOW) -> Outcome:
    """Send CloudEvents as an integration with all its scopes would; every one of them must be taken."""
    sender = Actor(
        kind=ActorKind.INTEGRATION, id=None, label="provisioner", permissions=frozenset(IntegrationScope)
    )
    outcome = metering.ingest_body(
        actor=sender, body=json.dumps(sent).encode(), content_type="application/json", now=now
    )
    assert not outcome.errors, outcome.errors
    return outcome


def usage_event(
    organization: Organization,
    start: datetime,
    end: datetime,
    *,
    gpus: str = "1",
    sku: str = "h100",
    region: str = "eu",
    subject: str | None = None,
    **data: Any,
) -> dict[str, Any]:
    """Return the event of one finished interval; by default each is a resource of its own."""
    event = {
        "specversion": "1.0",
        "id": f"event-{next(_numbers)}",
        "source": "tests",
        "type": "usage.recorded",
        "data": {
            "organization": organization.slug,
            "sku": sku,
            "region": region,
            "gpus": gpus,
            "started_at": start.isoformat(),
            "ended_at": end.isoformat(),
            **data,
        },
    }
    return event if subject is None else event | {"subject": subject}


def usage(
    organization: Organization, start: datetime, end: datetime, *, now: datetime = NOW, **fields: Any
) -> None:
    """Send one finished interval; fields are those of `usage_event`."""
    events(usage_event(organization, start, end, **fields), now=now)


def credit(
    organization: Organization, amount: str, *, pot: Pot = Pot.PAID, now: datetime = NOW, **fields: Any
) -> Grant:
    """Grant credit in major units; fields are those of `grant_credit`."""
    return billing.grant_credit(
        actor=actor(organization),
        organization_id=organization.id,
        amount_micros=to_micros(Decimal(amount)),
        pot=pot,
        now=now,
        **{"reason": "tests", **fields},
    )


def hold(
    organization: Organization,
    subject: str,
    amount: str,
    *,
    source: str = "prov",
    expires_at: datetime | None = None,
    now: datetime = NOW,
) -> Hold:
    """Reserve credit in major units for an allocation, for a day unless told."""
    return billing.place_hold(
        actor=actor(organization),
        organization=organization,
        source=source,
        subject=subject,
        amount_micros=to_micros(Decimal(amount)),
        expires_at=expires_at or now + timedelta(days=1),
        now=now,
    )[0]


def campaign(amount: str = "50", *, kind: str = "shared", now: datetime = NOW, **fields: Any) -> Campaign:
    """Make a voucher campaign without codes, open now; fields are those of `create_campaign`."""
    return vouchers.create_campaign(
        actor=actor(),
        kind=CampaignKind(kind),
        amount_micros=to_micros(Decimal(amount)),
        now=now,
        **{
            "name": f"Campaign {next(_numbers)}",
            "currency": "USD",
            "redemptions_max": 100,
            "starts_at": now,
            **fields,
        },
    )


def voucher(campaign: Campaign, *, now: datetime = NOW) -> str:
    """Make one code of a campaign and return it."""
    return vouchers.issue_codes(actor=actor(), campaign=campaign, count=1, now=now)[0]


def budget(organization: Organization, amount: str, *, now: datetime = NOW, **fields: Any) -> Budget:
    """Make a budget in major units, of the whole organization unless told; fields are those of `create_budget`."""
    return billing.create_budget(
        actor=actor(organization),
        organization=organization,
        amount_micros=to_micros(Decimal(amount)),
        now=now,
        **{"name": "Budget", "scope": BudgetScope.ORGANIZATION, **fields},
    )


def metered(organization: Organization, until: datetime = NOW, *, now: datetime | None = None) -> ChargeStep:
    """Count and charge an organization's usage up to a moment."""
    return billing.meter_and_charge(organization_id=organization.id, until=until, now=now or until)


def closed(
    organization: Organization, label: str, *, finalize: bool = True, now: datetime = NOW
) -> ClosedPeriod:
    """Make the invoice of a period, final unless told."""
    return invoices.close_period(
        actor=actor(organization), organization_id=organization.id, label=label, finalize=finalize, now=now
    )


GERMAN_SELLER = {
    "legal_name": "Kontor GPU GmbH",
    "line1": "Speicherstadt 4",
    "postal_code": "20457",
    "city": "Hamburg",
    "country": "DE",
    "vat_id": "DE136695976",
    "tax_number": "22/815/08154",
    "registration_number": "HRB 123456, Amtsgericht Hamburg",
    "email": "billing@kontor.example",
    "bank_name": "Hanseatic Bank",
    "account_holder": "Kontor GPU GmbH",
    "iban": "DE89370400440532013000",
    "bic": "COBADEFFXXX",
    "timezone": "Europe/Berlin",
}


def seller(code: str = "default", **fields: Any) -> SellerEntity:
    """Make or change a seller; the first one made is a German company unless told."""
    known = SellerEntity.objects.filter(code=code).exists()
    return invoices.save_seller(
        actor=actor(), code=code, now=NOW, **(fields if known else GERMAN_SELLER | fields)
    )


def billing_profile(organization: Organization, **fields: Any) -> BillingProfile:
    """Say who an organization's invoices are made out to; fields are those of `change_billing_profile`."""
    return organizations.change_billing_profile(
        actor=actor(organization), organization=organization, now=NOW, **fields
    )
