"""Check VAT ids against VIES by a job; what it says is kept, what it does not say blocks nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from apps.audit import services as audit
from apps.core import jobs
from apps.core.actor import system_actor
from apps.core.countries import EU_MEMBERS
from apps.invoices import parties, vies
from apps.invoices.models import VatAnswer, VatCheck
from apps.organizations import services as organizations
from apps.organizations.models import BillingProfile, VatState
from apps.outbox import services as outbox

CHECKED_FOR = timedelta(days=30)  # An answer is asked for again after this,
REFUSED_FOR = timedelta(days=1)  # a refusal sooner: new ids take days to reach the registry.
RETRY_AFTER = timedelta(hours=1)  # After an outage, or while one asks already.
QUEUED_AT_ONCE = 200


def queue_vat_checks(*, now: datetime) -> int:
    """Queue a check for every VAT id of the European Union without a recent answer; return how many."""
    if not settings.VIES_URL:
        return 0
    asked = VatCheck.objects.filter(checked_at__gt=now - RETRY_AFTER).values("organization_id")
    due = (
        BillingProfile.objects.filter(
            Q(vat_checked_at=None)
            | Q(vat_checked_at__lte=now - CHECKED_FOR)
            | Q(vat_checked_at__lte=now - REFUSED_FOR, vat_state=VatState.REFUSED),
            country__in=EU_MEMBERS,
        )
        .exclude(vat_id="")
        .exclude(organization_id__in=asked)
        .order_by("organization_id")
        .values_list("organization_id", flat=True)[:QUEUED_AT_ONCE]
    )
    for organization_id in due:
        jobs.enqueue("invoices.check_vat_id", organization_id=organization_id)
    return len(due)


def check_vat_id(*, organization_id: UUID, now: datetime) -> VatCheck | None:
    """Ask VIES about an organization's VAT id and keep the answer, or return None where there is nothing to ask.

    Call it outside any transaction: the question goes over the network.
    """
    profile = BillingProfile.objects.filter(organization_id=organization_id).exclude(vat_id="").first()
    if profile is None or profile.country not in EU_MEMBERS or not settings.VIES_URL:
        return None
    seller = parties.seller_of(organization_id)
    requester = seller.vat_id if seller.address.country in EU_MEMBERS else ""
    found = vies.consult(vat_id=profile.vat_id, requester=requester)
    return _keep(organization_id, profile.vat_id, requester, found, now=now)


@transaction.atomic
def _keep(
    organization_id: UUID, vat_id: str, requester: str, found: vies.Consultation, *, now: datetime
) -> VatCheck:
    check = VatCheck.objects.create(
        organization_id=organization_id,
        vat_id=vat_id,
        requester=requester,
        answer=found.answer,
        consultation=found.number,
        details=found.details,
        checked_at=now,
    )
    if found.answer == VatAnswer.UNAVAILABLE:
        return check
    organizations.record_vat_check(
        organization_id=organization_id, vat_id=vat_id, valid=found.answer == VatAnswer.VALID, now=now
    )
    audit.record(
        actor=system_actor("invoices", organization_id),
        action="vat_id.checked",
        target=check,
        organization_id=organization_id,
        diff={"vat_id": vat_id, "answer": str(found.answer), "consultation": found.number},
    )
    outbox.publish(
        "invoices.vat_id_checked",
        {"vat_id": vat_id, "answer": str(found.answer)},
        organization_id=organization_id,
    )
    return check
