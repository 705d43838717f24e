"""What stands against deleting an organization, as far as payments know."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.organizations.models import Organization
from apps.payments.models import UNFINISHED_STATES, Dispute, Payment, Refund


def open_business(
    *,
    organization: Organization,
    now: datetime,  # noqa: ARG001  Every blocker is asked alike.
) -> Iterator[tuple[str, str | Promise]]:
    """Yield a code and a sentence for what may still move money: nobody of a deleted organization could see it."""
    if Payment.objects.live().filter(organization=organization).exists():
        yield (
            "payment_open",
            _("A payment is not finished. Wait until it is paid, or for an hour until its page has ended."),
        )
    if Refund.objects.filter(organization=organization, state__in=UNFINISHED_STATES).exists():
        yield "refund_open", _("A refund is on its way. Wait for the mail that says how it ended.")
    if Dispute.objects.filter(organization=organization, closed_at=None).exists():
        yield "dispute_open", _("A payment is disputed. Wait until its bank has decided.")
