"""Get open invoices paid: by the default card on the plan's schedule, by a page, from credit, or at the bank."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid5

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.audit import services as audit
from apps.billing import services as billing
from apps.core import jobs, money
from apps.core.actor import Actor, system_actor
from apps.core.errors import Conflict, FieldError, NotFound, ValidationFailed
from apps.invoices.models import Invoice, InvoiceState
from apps.invoices.parties import due_on
from apps.ledger import services as ledger
from apps.ledger.services import AccountKind
from apps.organizations.models import Organization
from apps.outbox import services as outbox
from apps.payments.models import (
    LIVE_STATES,
    Collection,
    CollectionState,
    Payment,
    PaymentKind,
    PaymentMethod,
    PaymentState,
)
from apps.payments.services import applying, mails
from apps.payments.services.attempts import AMOUNT_MINOR_MAX, checked_minor, checked_return
from apps.payments.services.top_up import close_page, is_stale, record_start

REMIND_BEFORE = timedelta(days=3)


class InvoiceNotOpen(Conflict):
    """The invoice is a draft, paid or cancelled: nothing is left to pay on it."""

    code = "invoice_not_open"
    default_message = gettext_lazy("Nothing is left to pay on this invoice.")


class NoPaidCredit(Conflict):
    """There is no paid credit that the invoice could be paid from."""

    code = "no_paid_credit"
    default_message = gettext_lazy("There is no paid credit left. Pay with a card instead.")


class PaymentUnderWay(Conflict):
    """The invoice is being paid already."""

    code = "payment_under_way"
    default_message = gettext_lazy("A payment of this invoice is on its way. Wait for its outcome.")


class SentBefore(Conflict):
    """The form was sent before, and what it asked for is paid or being paid."""

    code = "payment_sent_before"
    default_message = gettext_lazy(
        "This was sent before, and nothing is paid twice. To pay more, go to the invoice again."
    )


class PageInTheWay(Exception):
    """A page of the invoice is open on other terms; `replacing_page` closes it."""

    def __init__(self, payment: Payment) -> None:
        self.payment_id = payment.id
        super().__init__(f"the page of payment {payment.id} is open")


def replacing_page[T](start: Callable[[], T], *, now: datetime) -> T:
    """Start to pay an invoice; where a page with other terms is open, close it first. Call it outside any transaction.

    start: calls `start_invoice_payment` or `pay_invoice_from_credit` in a transaction of its own. If the page was paid
    meanwhile, what it paid is taken and counts. Raises PaymentUnderWay if a page stays in the way.
    """
    try:
        return start()
    except PageInTheWay as found:
        close_page(payment_id=found.payment_id, now=now)
    try:
        return start()
    except PageInTheWay:
        raise PaymentUnderWay from None


@transaction.atomic
def start_invoice_payment(
    *,
    actor: Actor,
    organization: Organization,
    invoice_id: UUID,
    by_card: bool,
    amount: Decimal | None = None,
    success_url: str = "",
    cancel_url: str = "",
    attempt_id: UUID | None = None,
    now: datetime,
) -> Payment:
    """Write the attempt to pay an open invoice, whole or an amount in major units of it.

    by_card: charge the default card with its holder present, if there is one; otherwise `open_checkout` makes a page.
    A page of the same invoice and amount that is still open is returned instead of a second one.
    attempt_id: of the form that asks for it, which pays once.
    Raises NotFound, InvoiceNotOpen, PaymentUnderWay, SentBefore, ValidationFailed, and PageInTheWay for
    `replacing_page`.
    """
    invoice = _locked_invoice(organization.id, invoice_id, attempt_id=attempt_id, now=now)
    wanted = _wanted_minor(amount, invoice.outstanding_minor(), invoice.currency)
    method = PaymentMethod.objects.default_of(organization.id) if by_card else None
    page = _open_page(invoice)
    if page is not None:
        if method is not None or page.amount_minor != wanted or is_stale(page, now=now):
            raise PageInTheWay(page)
        return page
    return _start(
        actor,
        invoice,
        wanted,
        method=method,
        is_off_session=False,
        success_url=checked_return(success_url, path="success_url"),
        cancel_url=checked_return(cancel_url, path="cancel_url"),
        attempt_id=attempt_id,
        now=now,
    )


@transaction.atomic
def pay_invoice_from_credit(
    *,
    actor: Actor,
    organization: Organization,
    invoice_id: UUID,
    amount: Decimal | None = None,
    attempt_id: UUID | None = None,
    now: datetime,
) -> Payment:
    """Pay an open invoice out of paid credit, as far as that goes or an amount in major units of it.

    attempt_id: of the form that asks for it, which pays once.
    Raises NotFound, InvoiceNotOpen, PaymentUnderWay while it is being paid otherwise, SentBefore, NoPaidCredit,
    ValidationFailed, and PageInTheWay for `replacing_page`.
    """
    invoice = _locked_invoice(organization.id, invoice_id, attempt_id=attempt_id, now=now)
    credit = billing.paid_credit_micros(organization_id=organization.id, now=now)
    left = min(invoice.outstanding_minor(), credit // money.micros_per_minor(invoice.currency))
    if left <= 0:
        raise NoPaidCredit
    wanted = _wanted_minor(amount, left, invoice.currency)
    if (page := _open_page(invoice)) is not None:
        raise PageInTheWay(page)
    payment = _start(
        actor, invoice, wanted, method=None, is_off_session=False, attempt_id=attempt_id, now=now
    )
    billing.settle_from_credit(
        book=ledger.open_book(organization_id=organization.id, currency=invoice.currency, now=now),
        invoice_id=invoice.id,
        amount_micros=min(money.minor_to_micros(wanted, invoice.currency), invoice.outstanding_micros()),
        batch_id=payment.id,
        reference=invoice.number or "",
        now=now,
    )
    applying.end_paid_from_credit(payment, now=now)
    return payment


def _open_page(invoice: Invoice) -> Payment | None:
    """Return the live attempt that has a page nobody has paid on, or raise PaymentUnderWay for any other."""
    live = Payment.objects.live().filter(invoice=invoice).first()
    if live is not None and (live.method_id or live.state not in {PaymentState.CREATED, PaymentState.OPEN}):
        raise PaymentUnderWay
    return live


def _wanted_minor(amount: Decimal | None, most: int, currency: str) -> int:
    if amount is None:
        return min(most, AMOUNT_MINOR_MAX)
    wanted = checked_minor(amount, currency, minimum=1)
    if wanted > most:
        message = _("At most %(most)s can be paid so.") % {"most": mails.amount(most, currency)}
        raise ValidationFailed(fields=[FieldError(path="amount", code="range", message=message)])
    return wanted


def _start(
    actor: Actor,
    invoice: Invoice,
    amount_minor: int,
    *,
    method: PaymentMethod | None,
    is_off_session: bool,
    success_url: str = "",
    cancel_url: str = "",
    attempt_id: UUID | None = None,
    now: datetime,
) -> Payment:
    payment = Payment.objects.create(
        organization_id=invoice.organization_id,
        kind=PaymentKind.INVOICE,
        invoice=invoice,
        method=method,
        is_off_session=is_off_session,
        amount_minor=amount_minor,
        currency=invoice.currency,
        success_url=success_url,
        cancel_url=cancel_url,
        started_by=actor.label,
        attempt_id=attempt_id,
        created_at=now,
    )
    record_start(actor, payment)
    return payment


def _locked_invoice(
    organization_id: UUID, invoice_id: UUID, *, attempt_id: UUID | None = None, now: datetime
) -> Invoice:
    found = Invoice.objects.filter(pk=invoice_id, organization_id=organization_id).first()
    if found is None or found.state in {InvoiceState.DRAFT, InvoiceState.VOID}:
        raise NotFound
    ledger.open_book(organization_id=organization_id, currency=found.currency, now=now)
    invoice = Invoice.objects.select_for_update(no_key=True).get(pk=invoice_id)
    if attempt_id is not None and (payment := _paid_by(invoice, attempt_id)):
        raise SentBefore(payment=str(payment.id))
    if invoice.state != InvoiceState.OPEN:
        raise InvoiceNotOpen
    return invoice


def _paid_by(invoice: Invoice, attempt_id: UUID) -> Payment | None:
    """Return the payment of a form that has paid or is about to; one that failed may be sent again.

    So may one whose page waits: nobody has paid on it, and it is returned or replaced.
    """
    at_work = Q(method__isnull=False, state__in=LIVE_STATES)
    rows = Payment.objects.filter(at_work | Q(state=PaymentState.SUCCEEDED), attempt_id=attempt_id)
    return rows.filter(organization_id=invoice.organization_id, invoice=invoice).first()


# --- Collection ---


def collect_due(*, now: datetime) -> int:
    """Open a collection for every open invoice that has none, and queue those with something to do; return how many.

    Something to do: a charge that is due and a card that may be charged now, a mail that is due, or an invoice that is
    no longer open.
    """
    fresh = Invoice.objects.filter(state=InvoiceState.OPEN).exclude(
        pk__in=Collection.objects.values_list("invoice_id")
    )
    Collection.objects.bulk_create(
        (
            Collection(
                invoice_id=invoice_id, organization_id=organization_id, next_attempt_at=now, created_at=now
            )
            for invoice_id, organization_id in fresh.order_by("pk").values_list("pk", "organization_id")[:500]
        ),
        ignore_conflicts=True,  # Of another look at the same time.
    )
    card = PaymentMethod.objects.filter(
        organization_id=OuterRef("organization_id"), is_default=True, removed_at=None
    )
    under_way = Payment.objects.live().filter(invoice_id=OuterRef("invoice_id"))
    due = Collection.objects.exclude(state=CollectionState.DONE).filter(
        ~Q(invoice__state=InvoiceState.OPEN)
        | Q(Exists(card), ~Exists(under_way), next_attempt_at__lte=now)
        | Q(state=CollectionState.DUE, invoice__due_at__lte=now)
        | Q(reminders=0, invoice__due_at__lte=now + REMIND_BEFORE)
    )
    found = list(due.order_by("pk").values_list("pk", flat=True))
    for collection_id in found:
        jobs.enqueue("payments.collect", collection_id=collection_id)
    return len(found)


def collect(*, collection_id: UUID, now: datetime) -> None:
    """Do what one open invoice needs now: charge the default card, remind, or note that it is late or settled."""
    payment = _next_step(collection_id, now=now)
    if payment is not None:
        jobs.enqueue("payments.charge", payment_id=payment.id)


@transaction.atomic
def _next_step(collection_id: UUID, *, now: datetime) -> Payment | None:
    found = Collection.objects.select_related("invoice").get(pk=collection_id)
    ledger.open_book(organization_id=found.organization_id, currency=found.invoice.currency, now=now)
    collection = Collection.objects.select_for_update(no_key=True).get(pk=collection_id)
    invoice = Invoice.objects.get(pk=collection.invoice_id)
    if invoice.state != InvoiceState.OPEN:
        collection.state, collection.next_attempt_at = CollectionState.DONE, None
        collection.save(update_fields=["state", "next_attempt_at"])
        return None
    method = PaymentMethod.objects.default_of(invoice.organization_id)
    is_time = collection.next_attempt_at is not None and collection.next_attempt_at <= now
    if method is None or not is_time or Payment.objects.live().filter(invoice=invoice).exists():
        _remind(collection, invoice, now=now)
        return None
    # Nobody is called late for what the card pays in this minute; if it does not, the next look reminds.
    collection.attempts += 1
    schedule = schedule_of(invoice.organization_id)
    later = schedule[collection.attempts] if collection.attempts < len(schedule) else None
    collection.next_attempt_at = collection.created_at + timedelta(days=later) if later is not None else None
    collection.save(update_fields=["attempts", "next_attempt_at"])
    amount = min(invoice.outstanding_minor(), AMOUNT_MINOR_MAX)
    actor = system_actor("payments", invoice.organization_id)
    return _start(actor, invoice, amount, method=method, is_off_session=True, now=now)


def schedule_of(organization_id: UUID) -> tuple[int, ...]:
    """Return on which days after an invoice opened the default card is charged, by the organization's plan."""
    plan = Organization.objects.values_list("plan", flat=True).get(pk=organization_id)
    schedules: dict[str, tuple[int, ...]] = settings.PAYMENT_RETRY_DAYS
    return schedules.get(plan, schedules["default"])


def _remind(collection: Collection, invoice: Invoice, *, now: datetime) -> None:
    """Mail three days before the invoice is due and when it is late; each once."""
    assert invoice.due_at is not None, "an open invoice is final"
    if collection.state == CollectionState.DUE and now >= invoice.due_at:
        collection.state = CollectionState.LATE
        _tell(invoice, "invoice_late", now=now)
        audit.record(
            actor=system_actor("payments", invoice.organization_id), action="invoice.late", target=invoice
        )
        outbox.publish(
            "payments.invoice_late",
            {"id": str(invoice.id), "number": invoice.number},
            organization_id=invoice.organization_id,
        )
    elif collection.reminders == 0 and now >= invoice.due_at - REMIND_BEFORE:
        _tell(invoice, "invoice_due", now=now)
    else:
        return
    collection.reminders += 1
    collection.save(update_fields=["state", "reminders"])


def _tell(invoice: Invoice, template: str, *, now: datetime) -> None:
    mails.tell(
        template,
        organization_id=invoice.organization_id,
        cause=str(invoice.id),
        now=now,
        page=f"invoices/{invoice.id}/pay",
        invoice=invoice.number or "",
        amount=mails.amount(invoice.outstanding_minor(), invoice.currency),
        due=str(due_on(invoice)),
    )


# --- What did not come through Stripe ---


@transaction.atomic
def record_bank_receipt(
    *, actor: Actor, invoice_id: UUID, amount: Decimal | None, reference: str, now: datetime
) -> int:
    """Note money that came to the operator's bank for an invoice; return what it settled, in micros.

    amount: major units; all that is outstanding unless told. The same reference of the same invoice counts once.
    """
    found = Invoice.objects.filter(pk=invoice_id).first()
    if found is None:
        raise NotFound
    if not reference.strip():
        message = _("Give the bank's reference of the transfer.")
        raise ValidationFailed(
            message, fields=[FieldError(path="reference", code="required", message=message)]
        )
    invoice = _locked_invoice(found.organization_id, invoice_id, now=now)
    left = invoice.outstanding_minor()
    minor = left if amount is None else checked_minor(amount, invoice.currency, minimum=1)
    payment_id = uuid5(invoice.id, reference.strip())  # The same receipt again is the same posting.
    try:
        with transaction.atomic():
            granted = billing.receive_payment(
                actor=actor,
                organization_id=invoice.organization_id,
                currency=invoice.currency,
                payment_id=payment_id,
                amount_micros=money.minor_to_micros(minor, invoice.currency),
                funded_by=AccountKind.BANK,
                source="bank",
                reason=_("Bank transfer"),
                reference=reference.strip(),
                invoice_id=invoice.id,
                now=now,
            )
    except IntegrityError as error:
        raise Conflict(_("This receipt was recorded before.")) from error
    audit.record(
        actor=actor,
        action="invoice.bank_receipt",
        target=invoice,
        diff={"amount": mails.amount(minor, invoice.currency)},
        reason=reference.strip(),
    )
    return granted.settled_micros
