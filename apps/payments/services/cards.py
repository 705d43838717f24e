"""Saved cards: saved on Stripe's page, charged later without their holder; the default one is charged by itself."""

from __future__ import annotations

import contextlib
from datetime import datetime
from uuid import UUID

from django.db import transaction

from apps.audit import services as audit
from apps.core.actor import Actor, system_actor
from apps.core.errors import NotFound
from apps.organizations.models import Organization
from apps.outbox import services as outbox
from apps.payments import gateway
from apps.payments.gateway import Card, Key, NotAtStripe, RefusedByStripe
from apps.payments.models import (
    CardSetup,
    CardSetupState,
    PaymentMethod,
    StripeCustomer,
)
from apps.payments.services import auto_top_up, mails
from apps.payments.services.attempts import checked_return, customer_of, lease


@transaction.atomic
def start_card_setup(
    *,
    actor: Actor,
    organization: Organization,
    success_url: str = "",
    cancel_url: str = "",
    now: datetime,
) -> CardSetup:
    """Write the attempt to save a card; `open_card_setup` then makes its page."""
    setup = CardSetup.objects.create(
        organization=organization,
        success_url=checked_return(success_url, path="success_url"),
        cancel_url=checked_return(cancel_url, path="cancel_url"),
        created_at=now,
    )
    audit.record(actor=actor, action="card_setup.started", target=setup)
    outbox.publish("payments.card_setup_started", {"id": str(setup.id)}, organization_id=organization.id)
    return setup


def open_card_setup(*, setup_id: UUID, now: datetime) -> CardSetup:
    """Make the page of an attempt, or return the one it has; call it outside any transaction."""
    with transaction.atomic():
        setup = CardSetup.objects.select_for_update(no_key=True).get(pk=setup_id)
        if setup.session_id:
            return setup
        lease(setup, now=now)
    organization = Organization.objects.get(pk=setup.organization_id)
    session = gateway.current().create_setup_session(
        customer_id=customer_of(setup.organization_id, now=now),
        reference=str(setup.id),
        currency=organization.currency,
        success_url=setup.success_url,
        cancel_url=setup.cancel_url,
        key=Key(text=f"setup-{setup.id}", since=setup.created_at),
    )
    with transaction.atomic():
        setup = CardSetup.objects.select_for_update(no_key=True).get(pk=setup_id)
        setup.session_id, setup.checkout_url, setup.leased_until = session.id, session.url, None
        setup.save()
    return setup


def sync_setup_session(session_id: str, *, now: datetime) -> CardSetup | None:
    """Ask Stripe about a setup page and save the card that it took; None if it is none of ours."""
    setup = CardSetup.objects.filter(session_id=session_id).first()
    if setup is None or setup.state != CardSetupState.STARTED:
        return setup
    session = gateway.current().session(session_id)
    if session.status == "expired":
        CardSetup.objects.filter(pk=setup.pk, state=CardSetupState.STARTED).update(
            state=CardSetupState.EXPIRED
        )
    card = gateway.current().card_of_setup(session.setup_id) if session.setup_id else None
    if session.status == "complete" and card is not None:
        save_card(setup.organization_id, card, now=now)
        CardSetup.objects.filter(pk=setup.pk).update(state=CardSetupState.SAVED)
    setup.refresh_from_db()
    return setup


def sync_card(method_id: str, *, now: datetime) -> None:
    """Ask Stripe about a payment method: whose it is now, and until when it holds."""
    try:
        card = gateway.current().card(method_id)
    except NotAtStripe:
        _note_removed(method_id, now=now)
        return
    customer = (
        StripeCustomer.objects.filter(customer_id=card.customer_id).first() if card.customer_id else None
    )
    if customer is None:
        _note_removed(method_id, now=now)
    else:
        save_card(customer.organization_id, card, now=now)


@transaction.atomic
def save_card(organization_id: UUID, card: Card, *, now: datetime) -> PaymentMethod:
    """Note a card as it is; the first one becomes the default."""
    Organization.objects.select_for_update(no_key=True).get(pk=organization_id)
    has_default = PaymentMethod.objects.default_of(organization_id) is not None
    method, created = PaymentMethod.objects.get_or_create(
        method_id=card.id,
        defaults={"organization_id": organization_id, "created_at": now, "is_default": not has_default},
    )
    method.kind, method.brand, method.last4 = card.kind, card.brand, card.last4
    method.exp_month, method.exp_year = card.exp_month, card.exp_year
    method.save()
    if created:
        actor = system_actor("payments", organization_id)
        audit.record(actor=actor, action="payment_method.saved", target=method, diff={"card": str(method)})
        outbox.publish("payments.card_saved", {"id": str(method.id)}, organization_id=organization_id)
    return method


@transaction.atomic
def make_default(*, actor: Actor, method_id: UUID) -> PaymentMethod:
    """Charge this card from now on when nobody is asked; NotFound for a card that is not the actor's."""
    method = _locked(actor, method_id)
    PaymentMethod.objects.filter(organization_id=method.organization_id, is_default=True).exclude(
        pk=method.pk
    ).update(is_default=False)
    method.is_default = True
    method.save(update_fields=["is_default"])
    audit.record(actor=actor, action="payment_method.made_default", target=method, diff={"card": str(method)})
    outbox.publish(
        "payments.card_made_default", {"id": str(method.id)}, organization_id=method.organization_id
    )
    return method


def remove_card(*, actor: Actor, method_id: UUID, now: datetime) -> bool:
    """Forget a card, at Stripe first and then here.

    Returns whether it was the last one, which turned automatic top-up off.
    """
    method = PaymentMethod.objects.visible_to(actor).filter(pk=method_id).first()
    if method is None:
        raise NotFound
    with contextlib.suppress(NotAtStripe):
        _detach(method.method_id)
    return _remove(actor, method, now=now)


def _detach(method_id: str) -> None:
    try:
        gateway.current().detach_card(method_id)
    except RefusedByStripe:
        if gateway.current().card(method_id).customer_id is not None:
            raise  # Otherwise it was detached there before, and that is all that is wanted.


def _note_removed(method_id: str, *, now: datetime) -> None:
    method = PaymentMethod.objects.filter(method_id=method_id).first()
    if method is not None:
        _remove(system_actor("payments", method.organization_id), method, now=now)


@transaction.atomic
def _remove(actor: Actor, found: PaymentMethod, *, now: datetime) -> bool:
    """Note that a card is gone, once, whoever says so first: the person who removed it or Stripe's news of it.

    Returns whether that turned automatic top-up off.
    """
    Organization.objects.select_for_update(no_key=True).get(pk=found.organization_id)
    method = PaymentMethod.objects.get(pk=found.pk)
    if method.removed_at is not None:
        return False
    was_default, method.is_default, method.removed_at = method.is_default, False, now
    method.save(update_fields=["is_default", "removed_at"])
    others = PaymentMethod.objects.filter(organization_id=method.organization_id, removed_at=None)
    next_one = others.order_by("-created_at", "-id").first()
    if was_default and next_one is not None:
        next_one.is_default = True
        next_one.save(update_fields=["is_default"])
    ended_auto_top_up = next_one is None and auto_top_up.turn_off_without_card(
        actor=actor, method=method, now=now
    )
    audit.record(actor=actor, action="payment_method.removed", target=method, diff={"card": str(method)})
    outbox.publish("payments.card_removed", {"id": str(method.id)}, organization_id=method.organization_id)
    return ended_auto_top_up


def _locked(actor: Actor, method_id: UUID) -> PaymentMethod:
    assert actor.organization_id is not None, "cards belong to organizations"
    Organization.objects.select_for_update(no_key=True).get(pk=actor.organization_id)
    method = PaymentMethod.objects.visible_to(actor).filter(pk=method_id).first()
    if method is None:
        raise NotFound
    return method


def tell_expiring(*, now: datetime) -> int:
    """Mail once about each default card that ends with this month or the next, and return how many there are."""
    found = PaymentMethod.objects.expiring_soon(now).filter(
        is_default=True, removed_at=None, organization__in=Organization.objects.existing()
    )
    for method in found:
        with transaction.atomic():
            mails.card_expires(method, now=now)
    return len(found)
