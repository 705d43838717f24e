"""What every call to Stripe has in common: a lease on our row, a customer, and where people may return to."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.db import models, transaction
from django.utils.translation import gettext_lazy as _

from apps.core import money
from apps.core.errors import Conflict, FieldError, ValidationFailed
from apps.core.ids import uuid7
from apps.organizations.models import Organization
from apps.payments import gateway
from apps.payments.gateway import Key
from apps.payments.models import StripeCustomer

LEASE = timedelta(seconds=90)
AMOUNT_MINOR_MAX = 99_999_999  # Stripe's own limit of a charge.


class AttemptInFlight(Conflict):
    """Somebody is calling Stripe about this row right now."""

    code = "attempt_in_flight"
    default_message = _("This is being done right now. Try again in a second.")


def lease[Row: models.Model](row: Row, *, now: datetime) -> None:
    """Take a row for a call to Stripe, in the caller's transaction and under the row's lock.

    Raises AttemptInFlight while somebody else has it; a lease ends by itself, so a crash keeps nobody out for long.
    """
    leased: Any = row
    if leased.leased_until is not None and leased.leased_until > now:
        raise AttemptInFlight(retry_after=1)
    leased.leased_until = now + LEASE
    leased.save(update_fields=["leased_until"])


def customer_of(organization_id: UUID, *, now: datetime) -> str:
    """Return what Stripe calls an organization, making it known there at first; call it outside any transaction."""
    row, _created = StripeCustomer.objects.get_or_create(
        organization_id=organization_id, defaults={"created_at": now}
    )
    if row.customer_id:
        return row.customer_id
    if now - row.created_at >= gateway.KEY_LASTS:
        # A customer without payments moves no money, so one that was made and never noted may stay behind.
        row = _begin_again(row, now=now)
    organization = Organization.objects.get(pk=organization_id)
    name, email = organization.name, organization.billing_email
    # Stripe refuses a key with other parameters, and both can be changed between two tries.
    said = sha256(f"{name}\n{email}".encode()).hexdigest()[:16]
    made = gateway.current().create_customer(
        name=name,
        email=email,
        reference=str(organization_id),
        key=Key(text=f"customer-{row.id}-{said}", since=row.created_at),
    )
    StripeCustomer.objects.filter(pk=row.pk, customer_id=None).update(customer_id=made)
    return str(
        StripeCustomer.objects.values_list("customer_id", flat=True).get(organization_id=organization_id)
    )


@transaction.atomic
def _begin_again(row: StripeCustomer, *, now: datetime) -> StripeCustomer:
    StripeCustomer.objects.filter(pk=row.pk, customer_id=None).delete()
    fresh, _created = StripeCustomer.objects.get_or_create(
        organization_id=row.organization_id, defaults={"id": uuid7(), "created_at": now}
    )
    return fresh


def checked_return(url: str, *, path: str) -> str:
    """Return where Stripe's page sends people afterwards, or ValidationFailed for a place that is not ours.

    path: the field's name. An empty one becomes a page of ours.
    """
    if not url:
        return settings.PUBLIC_URL + "/"
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme not in {"http", "https"} or origin not in {settings.PUBLIC_URL, *settings.RETURN_ORIGINS}:
        message = _("Return to this portal, or to one of the origins in RETURN_ORIGINS.")
        raise ValidationFailed(fields=[FieldError(path=path, code="origin", message=str(message))])
    return url


def checked_minor(amount: Any, currency: str, *, minimum: int, path: str = "amount") -> int:
    """Return an amount in minor units, or ValidationFailed for one that is too fine, too small or too large."""
    try:
        micros = money.to_micros(amount)
        minor, rest = divmod(micros, money.micros_per_minor(currency))
    except ValueError:
        minor, rest = 0, 1
    if rest or not minimum <= minor <= AMOUNT_MINOR_MAX:
        message = _("Give an amount from %(least)s to %(most)s %(currency)s, in whole minor units.") % {
            "least": f"{money.from_minor(minimum, currency):f}",
            "most": f"{money.from_minor(AMOUNT_MINOR_MAX, currency):f}",
            "currency": currency,
        }
        raise ValidationFailed(fields=[FieldError(path=path, code="range", message=str(message))])
    return minor
