"""What stands against deleting an organization, as far as billing knows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.billing import selectors
from apps.metering import selectors as metering
from apps.organizations.models import Organization


def open_business(*, organization: Organization, now: datetime) -> Iterator[tuple[str, str | Promise]]:
    """Yield a code and a sentence for each open balance; promotional credit is no one's money and blocks nothing."""
    # Asked first: what is charged meanwhile is on the balance.
    is_counting = metering.has_uncounted(organization.id) or metering.has_changes(organization.id)
    balance = selectors.balance(organization, now=now)
    if balance.receivable_micros:
        yield "balance_owed", _("Something is owed. Pay it first.")
    if balance.paid_micros:
        yield "credit_left", _("There is paid credit left. Ask for a refund first.")
    if is_counting or balance.accrued_micros or balance.burn_rate_micros:
        yield "usage_running", _("Usage is still being counted. Stop what runs and wait an hour.")
