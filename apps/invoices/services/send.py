"""Mail invoices and credit notes to who hears about an organization's money; the mail links to the document."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core import money
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.invoices.models import DocumentKind, Invoice, InvoiceState
from apps.invoices.parties import due_on
from apps.invoices.services.files import NotFinal
from apps.limits import services as limits
from apps.notifications import services as notifications
from apps.organizations import selectors as organizations
from apps.organizations.models import OrganizationStatus
from apps.outbox import services as outbox

RECIPIENTS_MAX = 10


class NoRecipient(Conflict):
    """Nobody is left to whom invoices go."""

    code = "no_recipient"
    default_message = _(
        "Nobody hears about invoices here: the billing details and the settings name no address, and no member may"
        " manage billing. Add an address to the billing details, then send again."
    )


def mail_document(*, document: Invoice, to: Sequence[str], cause: str, now: datetime) -> None:
    """Queue the mail of a final document in the caller's transaction; the same cause mails once."""
    is_note = document.kind != DocumentKind.INVOICE
    currency = document.currency
    is_open = document.state == InvoiceState.OPEN
    left = f"{money.from_minor(document.outstanding_minor(), currency):,f} {currency}" if is_open else ""
    page = f"{settings.PUBLIC_URL}/app/{document.organization.slug}/invoices/{document.id}"
    notifications.queue_mail(
        template="invoices/mail/document",
        to=to,
        context={
            "is_credit_note": is_note,
            "organization": document.organization.name,
            "number": document.number,
            "total": f"{money.from_minor(abs(document.total_minor), currency):,f} {currency}",
            "is_paid": document.state == InvoiceState.PAID,
            "due": left,
            "due_on": str(due_on(document) or ""),
            "link": page,
            "is_deleted": document.organization.status == OrganizationStatus.DELETED,
            "pay_link": f"{page}/pay",
        },
        organization_id=document.organization_id,
        cause=cause,
        now=now,
    )


def mail_when_final(document: Invoice, *, now: datetime) -> None:
    """Queue the first mail of a document, where it is news to a customer: no imported history, no demonstration."""
    organization = document.organization
    if document.period.ends_at <= organization.created_at or organization.is_demonstration:
        return
    # A note names the buyer of its invoice; the mail goes to whom the profile names by now.
    mail_document(
        document=document,
        to=organizations.billing_recipients(organization, now=now),
        cause=f"invoices.final:{document.id}",
        now=now,
    )


class TooManyRecipients(Conflict):
    """More addresses than one sending takes."""

    code = "too_many_recipients"
    default_message = _("A document goes to at most 10 addresses at once. Send it again to the others.")


def send_again(*, actor: Actor, document: Invoice, to: Sequence[str] = (), now: datetime) -> Sequence[str]:
    """Mail a final document once more and return to whom.

    to: addresses; empty: whoever hears about the organization's money now. Raises NotFinal, NoRecipient,
    TooManyRecipients, and TooManyGuesses for more mails of one organization than go to strangers in a minute. Call it
    outside of any transaction: what is counted stays counted.
    """
    if document.number is None:
        raise NotFinal
    to = list(dict.fromkeys(to)) or organizations.billing_recipients(document.organization, now=now)
    if not to:
        raise NoRecipient
    if len(to) > RECIPIENTS_MAX:
        raise TooManyRecipients
    for _address in to:
        limits.guard(limits.MAILS, str(document.organization_id))
    _queue_again(actor, document, to, now=now)
    return to


@transaction.atomic
def _queue_again(actor: Actor, document: Invoice, to: Sequence[str], *, now: datetime) -> None:
    mail_document(document=document, to=to, cause=f"invoices.again:{document.id}:{now.isoformat()}", now=now)
    audit.record(
        actor=actor,
        action="invoice.sent_again",
        target=document,
        organization_id=document.organization_id,
        diff={"to": list(to)},
    )
    outbox.publish(
        "invoices.invoice_sent", {"id": str(document.id)}, organization_id=document.organization_id
    )
