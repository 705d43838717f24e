"""A tenant with one of everything, for the tests that try every route."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.utils import timezone

from apps.billing.models import Budget, ChargeHour, Hold
from apps.core.permissions import Role
from apps.credentials.models import ApiKey, TokenFamily
from apps.identity.models import User
from apps.invoices import services as invoices
from apps.invoices.models import InvoiceLine
from apps.organizations import services as organizations
from apps.organizations.models import Membership
from apps.payments.models import Payment, PaymentKind, PaymentMethod
from apps.quotas import services as quotas
from tests import build

APRIL = datetime(2026, 4, 10, tzinfo=UTC)


def furnish(slug: str) -> tuple[User, dict[str, str]]:
    """Make a tenant in EUR; return its owner, and what names each of its things as paths and filters call them.

    Each text of its own begins with the slug, so that a test finds it wherever it turns up.
    """
    build.seller()
    build.price_book({"unit_price": "10"}, currency="EUR")
    tenant = build.organization(slug, name=f"{slug.title()} Ltd", currency="EUR", now=APRIL)
    build.billing_profile(tenant, legal_name=f"{slug.title()} Ltd", country="DE")
    owner = build.member(tenant, Role.OWNER, user=build.user(f"owner@{slug}.example"))
    project = build.project(tenant, "stripes")
    build.api_key(tenant, ["usage.read"], name=f"{slug} key", actor=build.user_actor(owner, tenant))
    key = ApiKey.objects.get(organization=tenant)
    build.tokens(owner)
    build.usage(tenant, APRIL, APRIL + timedelta(hours=1), project="stripes", subject=f"{slug}-run")
    invoice = build.closed(tenant, "2026-04").invoice
    note = invoices.credit_invoice(
        actor=build.actor(), invoice=invoice, reason=slug, amount_minor=100, now=build.NOW
    )
    build.credit(tenant, "500")
    build.hold(tenant, f"{slug}-allocation", "1", source=f"{slug}-source")
    build.budget(tenant, "10", name=f"{slug} budget")
    invite = organizations.invite(
        actor=build.user_actor(owner, tenant),
        organization=tenant,
        email=f"guest@{slug}.example",
        role=Role.VIEWER,
        now=timezone.now(),
    )
    asked = quotas.request_quota(
        actor=build.user_actor(owner, tenant),
        organization=tenant,
        quota="members",
        requested=25,
        reason=slug,
        now=timezone.now(),
    )
    card = PaymentMethod.objects.create(
        organization=tenant, method_id=f"pm_{slug}", brand="visa", last4="4242", created_at=build.NOW
    )
    payment = Payment.objects.create(
        organization=tenant,
        kind=PaymentKind.TOP_UP,
        amount_minor=100,
        currency="EUR",
        started_by=owner.email,
        created_at=build.NOW,
    )
    client = build.person_client(owner, X_Correlation_Id=f"{slug}-correlation")
    assert client.post(f"/orgs/{slug}/projects", {"slug": "spots"}).status_code == 201
    assert invoice.number
    assert note.number
    return owner, {
        "invoice_id": str(invoice.id),
        "line_id": str(InvoiceLine.objects.filter(invoice=invoice)[0].id),
        "note_id": str(note.id),
        "method_id": str(card.id),
        "payment_id": str(payment.id),
        "invite_id": str(invite.id),
        "key_id": str(key.id),
        "budget_id": str(Budget.objects.get(organization=tenant).id),
        "hold_id": str(Hold.objects.get(organization=tenant).id),
        "member_id": str(Membership.objects.get(user=owner).id),
        "project_id": str(project.id),
        "request_id": str(asked.id),
        "record_id": str(ChargeHour.objects.filter(organization_id=tenant.id)[0].id),
        "login_id": str(TokenFamily.objects.get(user=owner).id),
        "actor": str(owner.pk),
        "credential": str(key.id),
        "target": str(project.id),
        "correlation_id": f"{slug}-correlation",
        "corrects": str(invoice.id),
        "number": invoice.number,
        "slug": slug,
        "project": "stripes",
        "public_id": key.public_id,
        "source": f"{slug}-source",
        "subject": f"{slug}-allocation",
        "email": owner.email,
        "organization": str(tenant.id),
    }
