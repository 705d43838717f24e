"""Telling customers of credit that ends soon, once for each lot and threshold."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from apps.billing.models import CreditLot
from apps.core import money
from apps.notifications import services as notifications
from apps.organizations import selectors as organizations
from apps.organizations.models import Organization

THRESHOLDS = (timedelta(days=1), timedelta(days=3), timedelta(days=14))


def tell_expiring_credit(*, now: datetime) -> int:
    """Queue a mail for every lot that has come within a threshold of its end with credit left; return how many lots.

    A lot that was shorter than a threshold from the start is not told of it. Doing so again mails nothing: the mail's
    cause is the lot and the threshold.
    """
    lots = CreditLot.objects.filter(
        expires_at__gt=now,
        expires_at__lte=max(THRESHOLDS) + now,
        organization__in=Organization.objects.existing(),
    )
    told = 0
    for lot in lots.with_balance().select_related("organization").order_by("pk").iterator(chunk_size=500):
        assert lot.expires_at is not None, "filtered by it"
        threshold = next(span for span in THRESHOLDS if lot.expires_at <= now + span)
        # Less than the smallest coin is nothing that anybody could spend.
        worth = lot.account.balance_micros >= money.micros_per_minor(lot.currency)
        if worth and lot.created_at <= lot.expires_at - threshold:
            _tell(lot, threshold, now)
            told += 1
    return told


@transaction.atomic
def _tell(lot: CreditLot, threshold: timedelta, now: datetime) -> None:
    assert lot.expires_at is not None, "only credit with an end ends"
    organization = lot.organization
    left = money.from_minor(lot.account.balance_micros // money.micros_per_minor(lot.currency), lot.currency)
    notifications.queue_mail(
        template="billing/mail/expiring",
        to=organizations.billing_recipients(organization, now=now),
        context={
            "organization": organization.name,
            "amount": f"{left:,f}",
            "currency": lot.currency,
            "reason": lot.reason,
            "expires_at": lot.expires_at.isoformat(),
            "link": f"{settings.PUBLIC_URL}/app/{organization.slug}/credits",
        },
        organization_id=organization.id,
        cause=f"billing:expiring:{lot.id}:{threshold.days}",
        now=now,
    )
