"""What stands against deleting an organization, as far as invoices know."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.billing.models import ChargeKey
from apps.core.money import grouped_minor
from apps.invoices.models import Invoice, InvoiceState
from apps.invoices.services.close import compose_document
from apps.invoices.tax.rules import TaxRateMissing
from apps.organizations.models import BillingPeriod, Organization, PeriodState


def open_business(*, organization: Organization, now: datetime) -> Iterator[tuple[str, str | Promise]]:
    """Yield a code and a sentence if an invoice is not settled, and for each to come that will ask for tax.

    Credit that is used up has paid for usage alone: the tax on that is asked for at the month's end.
    """
    unsettled = Invoice.objects.filter(
        organization=organization, state__in=[InvoiceState.DRAFT, InvoiceState.OPEN]
    )
    if unsettled.exists():
        yield "invoice_open", gettext_lazy("An invoice is not settled yet.")
    for period in _invoiced_later(organization):
        facts = {"month": period.label, "currency": organization.currency}
        try:
            tax_minor = compose_document(organization, period, now=now).settlement.tax_receivable_minor
        except TaxRateMissing:
            message = _("The tax on the invoice of %(month)s is not known yet. Ask support for it.")
            yield "tax_to_come", message % facts
            continue
        if tax_minor > 0:
            facts["amount"] = grouped_minor(tax_minor, organization.currency)
            message = _(
                "The invoice of %(month)s will ask for %(amount)s %(currency)s of tax on what was used. It comes after"
                " the month; pay it then."
            )
            yield "tax_to_come", message % facts


def _invoiced_later(organization: Organization) -> Iterator[BillingPeriod]:
    """Yield the periods whose invoice is still to be drafted and may have something to say, the earliest first."""
    keys = ChargeKey.objects.filter(organization_id=organization.id)
    coming = BillingPeriod.objects.of(organization.id).exclude(state=PeriodState.FINAL).order_by("starts_at")
    used = set(keys.filter(period__in=coming).values_list("period_id", flat=True))
    # The earliest also tells what was used late in months that are final.
    if (first := coming.first()) and keys.filter(period__state=PeriodState.FINAL).unsettled().exists():
        used.add(first.pk)
    drafted = Invoice.objects.filter(organization=organization, state=InvoiceState.DRAFT)
    yield from coming.filter(pk__in=used).exclude(pk__in=drafted.values("period"))
