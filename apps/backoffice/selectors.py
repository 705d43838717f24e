"""What the staff's home shows first: the few numbers that ask for somebody."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from apps.billing.models import ChargeKey
from apps.identity.models import User
from apps.invoices.models import Invoice, InvoiceState
from apps.metering import selectors as metering
from apps.organizations.models import Organization, OrganizationStatus
from apps.payments import services as payments
from apps.quotas.models import QuotaRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A number with a name, what to know about it, and the list behind it as `app_model` and a query."""

    name: str
    value: str
    note: str = ""
    model: str = ""
    query: str = ""


def facts_for(user: User, *, now: datetime) -> list[Fact]:
    """Return the numbers about rows that this staff user may see."""
    found = []
    if user.has_perm("organizations.view_organization"):
        found.append(_organizations())
    if user.has_perm("invoices.view_invoice"):
        found += [
            _invoices(InvoiceState.OPEN, _("Open invoices")),
            _invoices(InvoiceState.DRAFT, _("Draft invoices")),
        ]
    if user.has_perm("payments.view_reconciliation"):
        found += _payments()
    if user.has_perm("quotas.view_quotarequest"):
        found.append(_quota_requests())
    if user.has_perm("billing.view_chargekey"):
        found.append(_unpriced())
    if user.has_perm("metering.view_meteringstate"):
        found.append(_metering(now))
    return found


def _organizations() -> Fact:
    active = Organization.objects.filter(status=OrganizationStatus.ACTIVE).count()
    suspended = Organization.objects.filter(status=OrganizationStatus.SUSPENDED).count()
    note = ngettext("%(count)d suspended", "%(count)d suspended", suspended) % {"count": suspended}
    return Fact(
        name=_("Active organizations"),
        value=f"{active:,}",
        note=note if suspended else "",
        model="organizations_organization",
        query="status__exact=active",
    )


def _invoices(state: InvoiceState, name: str) -> Fact:
    count = Invoice.objects.filter(state=state).count()
    return Fact(name=name, value=f"{count:,}", model="invoices_invoice", query=f"state__exact={state}")


def _payments() -> list[Fact]:
    """Return what of payments waits for people; nothing where payments are off and nothing waits."""
    found = payments.report()
    facts = [
        Fact(
            name=_("Differences with Stripe"),
            value=f"{found.open_differences:,}",
            note=_("Stripe and the books disagree.") if found.open_differences else "",
            model="payments_difference",
            query="resolved_at__isempty=1",
        ),
        Fact(
            name=_("Stripe events given up"),
            value=f"{found.dead_events:,}",
            model="payments_stripeevent",
            query="state__exact=dead",
        ),
        Fact(
            name=_("Refunds to decide"),
            value=f"{found.pending_refunds:,}",
            model="payments_refund",
            query="state__exact=requested",
        ),
    ]
    return [fact for fact in facts if fact.value != "0"] or facts[:1]


def _quota_requests() -> Fact:
    waiting = QuotaRequest.objects.waiting().count()
    return Fact(
        name=_("Quota requests"),
        value=f"{waiting:,}",
        note=_("Somebody waits for a decision.") if waiting else "",
        model="quotas_quotarequest",
        query="state__exact=submitted",
    )


def _unpriced() -> Fact:
    keys = ChargeKey.objects.unpriced().count()
    return Fact(
        name=_("Usage without a price"),
        value=f"{keys:,}",
        note=_("Billed once a price is added.") if keys else "",
        model="billing_chargekey",
        query="price_key_id__isnull=True",
    )


def _metering(now: datetime) -> Fact:
    oldest = metering.slowest_metered_until()
    waiting = metering.backlog()
    note = ngettext("%(count)d change waits", "%(count)d changes wait", waiting) % {"count": waiting}
    if oldest is None:
        return Fact(
            name=_("Metering lag"), value="\N{EN DASH}", note=note if waiting else _("Nothing metered yet.")
        )
    seconds = max(0, int((now - oldest).total_seconds()))
    return Fact(name=_("Metering lag"), value=_lag(seconds), note=note if waiting else _("Nothing waits."))


def _lag(seconds: int) -> str:
    if seconds < 120:
        return _("%(count)d s") % {"count": seconds}
    if seconds < 7200:
        return _("%(count)d min") % {"count": seconds // 60}
    return _("%(count)d h") % {"count": seconds // 3600}
