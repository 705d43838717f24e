"""Invoices, their lines, their numbers and what was paid on them; a final invoice never changes but for its state."""

from __future__ import annotations

from decimal import Decimal
from typing import Self
from uuid import UUID

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import F, Q, Sum
from django.utils.translation import gettext_lazy as _

from apps.core import money
from apps.core.actor import Actor
from apps.core.ids import uuid7
from apps.invoices.models.taxes import TaxCategory


class InvoiceState(models.TextChoices):
    """The life of an invoice; `void` is for drafts, everything else past draft is final."""

    DRAFT = "draft", _("Draft")
    OPEN = "open", _("Open")
    PAID = "paid", _("Paid")
    UNCOLLECTIBLE = "uncollectible", _("Uncollectible")
    CANCELLED = "cancelled", _("Cancelled")
    ISSUED = "issued", _("Issued")
    VOID = "void", _("Void")


FINAL_STATES = (
    InvoiceState.OPEN,
    InvoiceState.PAID,
    InvoiceState.UNCOLLECTIBLE,
    InvoiceState.CANCELLED,
    InvoiceState.ISSUED,
)


class DocumentKind(models.TextChoices):
    """An invoice, or one of the credit notes: of a period below zero, by staff, or of a whole invoice.

    A cancellation takes an invoice back as if it had never been: its usage is invoiced anew. Every other credit note
    leaves the invoice as it is. Credit notes are `issued` and never change.
    """

    INVOICE = "invoice", _("Invoice")
    ADJUSTMENT_NOTE = "adjustment_note", _("Credit note for corrected usage")
    CREDIT_NOTE = "credit_note", _("Credit note")
    CANCELLATION = "cancellation", _("Cancellation")


PERIOD_KINDS = (DocumentKind.INVOICE, DocumentKind.ADJUSTMENT_NOTE)
NOTE_KINDS = (DocumentKind.ADJUSTMENT_NOTE, DocumentKind.CREDIT_NOTE, DocumentKind.CANCELLATION)


class LineKind(models.TextChoices):
    """A line bills a charge key for the first time, corrects what was billed, or waives a part of it.

    A waiver moves money only: what usage costs, and so every later correction, is counted as if it were not there.
    """

    USAGE = "usage", _("Usage")
    ADJUSTMENT = "adjustment", _("Adjustment")
    CREDIT = "credit", _("Credit")


BILLED_KINDS = (LineKind.USAGE, LineKind.ADJUSTMENT)


class InvoiceCounter(models.Model):
    """The last number given out of one series and year; locked last, in the transaction that uses it."""

    id = models.BigAutoField(primary_key=True)
    entity = models.CharField(max_length=32)
    series = models.CharField(max_length=8)
    year = models.PositiveSmallIntegerField()
    last_number = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name = _("invoice counter")
        verbose_name_plural = _("invoice counters")
        constraints = [
            models.UniqueConstraint(
                name="invoices_invoicecounter_series", fields=["entity", "series", "year"]
            ),
        ]

    def __str__(self) -> str:
        return f"{self.entity} {self.series} {self.year}: {self.last_number}"


class InvoiceQuerySet(models.QuerySet["Invoice"]):
    def visible_to(self, actor: Actor) -> Self:
        return self.filter(organization_id=actor.organization_id)

    def final(self) -> Self:
        return self.filter(state__in=FINAL_STATES)

    def invoices(self) -> Self:
        return self.filter(kind=DocumentKind.INVOICE)

    def credit_notes(self) -> Self:
        return self.filter(kind__in=NOTE_KINDS)

    def outstanding(self, organization_id: UUID) -> Self:
        """Return an organization's open invoices, the oldest first."""
        return self.filter(organization_id=organization_id, state=InvoiceState.OPEN).order_by(
            "finalized_at", "id"
        )

    def with_payments(self) -> Self:
        """Annotate what settled each, in micros, and how much of it was no payment."""
        no_payment = ~Q(payments__kind=PaymentKind.PAYMENT)
        return self.annotate(
            payments_micros=Sum("payments__amount_micros", default=0),
            credited_micros=Sum("payments__amount_micros", default=0, filter=no_payment),
        )


class Invoice(models.Model):
    """One invoice or credit note of one organization and period. Amounts are ISO 4217 minor units of its currency.

    total = subtotal − discount + tax; below zero on a credit note. due: the part that credit did not pay; total − due
    was paid from paid credit or ahead of the invoice. The promotional credit used is the discount.
    tax_credit: the part of the tax that paid credit paid. receipts: what was paid ahead and used here.
    seller, buyer: the parties as they were when the document became final, see `parties`; so is organization_slug.
    corrects: the invoice that a credit note by staff or a cancellation is about. reason: theirs.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    period = models.ForeignKey(
        "organizations.BillingPeriod", models.PROTECT, related_name="invoices", db_constraint=False
    )
    kind = models.CharField(max_length=16, choices=DocumentKind.choices, default=DocumentKind.INVOICE)
    state = models.CharField(max_length=16, choices=InvoiceState.choices, default=InvoiceState.DRAFT)
    corrects = models.ForeignKey(
        "self", models.PROTECT, related_name="credit_notes", db_constraint=False, null=True, blank=True
    )
    reason = models.CharField(max_length=500, blank=True)
    entity = models.CharField(max_length=32, default="default")
    series = models.CharField(max_length=8, default="INV")
    number = models.CharField(max_length=32, null=True, blank=True)  # noqa: DJ001 (a draft has no number; an empty one would be a second of its kind)
    currency = models.CharField(max_length=3)
    subtotal_minor = models.BigIntegerField(default=0)
    discount_minor = models.BigIntegerField(default=0)
    tax_minor = models.BigIntegerField(default=0)
    total_minor = models.BigIntegerField(default=0)
    due_minor = models.BigIntegerField(default=0)
    tax_credit_minor = models.BigIntegerField(default=0)
    receipts_micros = models.BigIntegerField(default=0)
    seller = models.JSONField(default=dict)
    buyer = models.JSONField(default=dict)
    organization_slug = models.CharField(max_length=63, blank=True, db_default="")
    due_at = models.DateTimeField(null=True, blank=True)
    drafted_at = models.DateTimeField()
    finalized_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    # Of `with_payments`.
    payments_micros: Decimal
    credited_micros: Decimal

    objects = InvoiceQuerySet.as_manager()

    class Meta:
        verbose_name = _("invoice")
        verbose_name_plural = _("invoices")
        permissions = [("correct_invoice", _("Can finalise, credit, cancel, write off and send invoices"))]
        constraints = [
            models.UniqueConstraint(name="invoices_invoice_in_organization", fields=["organization", "id"]),
            models.UniqueConstraint(name="invoices_invoice_number", fields=["entity", "number"]),
            models.UniqueConstraint(
                name="invoices_invoice_one_per_period",
                fields=["organization", "period"],
                condition=~Q(state=InvoiceState.VOID) & Q(kind__in=PERIOD_KINDS),
            ),
            models.CheckConstraint(
                name="invoices_invoice_kind_known", condition=Q(kind__in=DocumentKind.values)
            ),
            models.CheckConstraint(
                name="invoices_invoice_notes_are_issued",
                condition=Q(kind=DocumentKind.INVOICE) & ~Q(state=InvoiceState.ISSUED)
                | Q(
                    kind__in=NOTE_KINDS,
                    state__in=[InvoiceState.DRAFT, InvoiceState.ISSUED, InvoiceState.VOID],
                ),
            ),
            models.CheckConstraint(
                name="invoices_invoice_corrects",
                condition=Q(kind__in=PERIOD_KINDS, corrects=None)
                | Q(kind__in=[DocumentKind.CREDIT_NOTE, DocumentKind.CANCELLATION], corrects__isnull=False),
            ),
            models.CheckConstraint(
                name="invoices_invoice_state_known", condition=Q(state__in=InvoiceState.values)
            ),
            models.CheckConstraint(
                name="invoices_invoice_final_is_numbered",
                condition=Q(state__in=[InvoiceState.DRAFT, InvoiceState.VOID], number=None, finalized_at=None)
                | Q(state__in=FINAL_STATES, number__isnull=False, finalized_at__isnull=False),
            ),
            models.CheckConstraint(
                name="invoices_invoice_total",
                condition=Q(total_minor=F("subtotal_minor") - F("discount_minor") + F("tax_minor")),
            ),
            models.CheckConstraint(name="invoices_invoice_due_not_negative", condition=Q(due_minor__gte=0)),
        ]
        indexes = [
            models.Index(name="invoices_invoice_organization", fields=["organization", "-created_at", "-id"])
        ]

    def __str__(self) -> str:
        return self.number or f"draft {self.id}"

    def outstanding_micros(self) -> int:
        """Return what is left to pay of what was due; `with_payments` saves the query."""
        known = self.__dict__.get("payments_micros")
        paid = self.payments.aggregate(sum=Sum("amount_micros", default=0))["sum"] if known is None else known
        return money.minor_to_micros(self.due_minor, self.currency) - int(paid)

    def outstanding_minor(self) -> int:
        """Return what is left to pay in whole minor units, rounded up: a payment may settle a fraction of one."""
        return -(-self.outstanding_micros() // money.micros_per_minor(self.currency))


class InvoiceLine(models.Model):
    """One charge key on an invoice. Amounts are minor units; an adjustment carries the difference, signed.

    quantity: in the meter's counting unit, GPU-seconds for `gpu_hours`.
    ledger_micros: how much of the key's posted amount this line covers, so that the next line knows its residue.
    splits: quantity and amount by project and credential, by quantity share, as they were; those of a correction are
    what changed. For display only.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, models.PROTECT, related_name="lines", db_constraint=False)
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=12, choices=LineKind.choices)
    key = models.ForeignKey(
        "billing.ChargeKey", models.PROTECT, related_name="invoice_lines", db_constraint=False
    )
    corrects = models.ForeignKey(
        "self", models.PROTECT, related_name="corrections", db_constraint=False, null=True, blank=True
    )
    usage_period = models.CharField(max_length=7)
    meter = models.CharField(max_length=64)
    sku = models.CharField(max_length=120, blank=True)
    region = models.CharField(max_length=64, blank=True)
    quantity = models.DecimalField(max_digits=38, decimal_places=6)
    unit_price = models.DecimalField(max_digits=20, decimal_places=10, null=True, blank=True)
    amount_minor = models.BigIntegerField()
    discount_minor = models.BigIntegerField(default=0)
    tax_minor = models.BigIntegerField(default=0)
    tax_category = models.CharField(max_length=2, choices=TaxCategory.choices, default=TaxCategory.OUTSIDE)
    tax_percent = models.DecimalField(max_digits=7, decimal_places=4, default=0)
    tax_country = models.CharField(max_length=2, blank=True)
    tax_note = models.CharField(max_length=300, blank=True)
    ledger_micros = models.BigIntegerField()
    splits = models.JSONField(default=list, encoder=DjangoJSONEncoder)

    class Meta:
        verbose_name = _("invoice line")
        verbose_name_plural = _("invoice lines")
        constraints = [
            models.UniqueConstraint(
                name="invoices_invoiceline_in_organization", fields=["organization", "id"]
            ),
            models.UniqueConstraint(name="invoices_invoiceline_position", fields=["invoice", "position"]),
            models.UniqueConstraint(name="invoices_invoiceline_key_once", fields=["invoice", "key"]),
            models.CheckConstraint(
                name="invoices_invoiceline_kind_known", condition=Q(kind__in=LineKind.values)
            ),
            models.CheckConstraint(
                name="invoices_invoiceline_adjustment_corrects",
                condition=Q(kind=LineKind.USAGE, corrects=None)
                | Q(kind__in=[LineKind.ADJUSTMENT, LineKind.CREDIT], corrects__isnull=False),
            ),
        ]
        indexes = [models.Index(name="invoices_invoiceline_key", fields=["key"])]

    def __str__(self) -> str:
        return f"{self.meter} {self.sku} {self.region}"


class InvoiceTax(models.Model):
    """One rate group of a document: the lines of one category, rate and country, their net sum and its tax."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, models.PROTECT, related_name="taxes", db_constraint=False)
    position = models.PositiveSmallIntegerField()
    category = models.CharField(max_length=2, choices=TaxCategory.choices)
    percent = models.DecimalField(max_digits=7, decimal_places=4)
    country = models.CharField(max_length=2, blank=True)
    note = models.CharField(max_length=300, blank=True)
    base_minor = models.BigIntegerField()
    tax_minor = models.BigIntegerField()

    class Meta:
        verbose_name = _("tax of an invoice")
        verbose_name_plural = _("taxes of invoices")
        constraints = [
            models.UniqueConstraint(name="invoices_invoicetax_position", fields=["invoice", "position"]),
            models.UniqueConstraint(
                name="invoices_invoicetax_group",
                fields=["invoice", "category", "percent", "country", "note"],
            ),
            models.CheckConstraint(
                name="invoices_invoicetax_category_known", condition=Q(category__in=TaxCategory.values)
            ),
            models.CheckConstraint(
                name="invoices_invoicetax_only_rates_tax",
                condition=Q(category=TaxCategory.STANDARD) | Q(percent=0, tax_minor=0),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.category} {self.percent.normalize():f} %"


class InvoiceClaim(models.Model):
    """How much of a charge key's receivable an invoice asks for, so that a cancellation knows what to give back."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, models.PROTECT, related_name="claims", db_constraint=False)
    key = models.ForeignKey("billing.ChargeKey", models.PROTECT, related_name="+", db_constraint=False)
    micros = models.BigIntegerField()

    class Meta:
        verbose_name = _("claim of an invoice")
        verbose_name_plural = _("claims of invoices")
        constraints = [
            models.UniqueConstraint(name="invoices_invoiceclaim_once", fields=["invoice", "key"]),
            models.CheckConstraint(name="invoices_invoiceclaim_positive", condition=Q(micros__gt=0)),
        ]

    def __str__(self) -> str:
        return f"{self.key_id}: {self.micros}"


class PaymentKind(models.TextChoices):
    """What settled a part of an invoice: money, or a decision of staff."""

    PAYMENT = "payment", _("Payment")
    CREDIT_NOTE = "credit_note", _("Credit note")
    CANCELLATION = "cancellation", _("Cancellation")
    WRITE_OFF = "write_off", _("Write-off")


class InvoicePayment(models.Model):
    """What was put to an invoice; the transfers of the payment, credit note or write-off share `batch_id`."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, models.PROTECT, related_name="payments", db_constraint=False)
    kind = models.CharField(max_length=12, choices=PaymentKind.choices, default=PaymentKind.PAYMENT)
    amount_micros = models.BigIntegerField()
    batch_id = models.UUIDField()
    paid_at = models.DateTimeField()

    class Meta:
        verbose_name = _("invoice payment")
        verbose_name_plural = _("invoice payments")
        constraints = [
            models.UniqueConstraint(name="invoices_invoicepayment_once", fields=["invoice", "batch_id"]),
            models.CheckConstraint(
                name="invoices_invoicepayment_amount_positive", condition=Q(amount_micros__gt=0)
            ),
            models.CheckConstraint(
                name="invoices_invoicepayment_kind_known", condition=Q(kind__in=PaymentKind.values)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.invoice_id}: {self.amount_micros}"


class PeriodClose(models.Model):
    """The record that a period became final: with which invoice, and up to when its usage was counted.

    waiting: the corrections that its document could not say, see `composing.compose`: month, meter, SKU, region and net
    amount in major units, as they were; for display only.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey("organizations.Organization", models.PROTECT, related_name="+")
    period = models.OneToOneField(
        "organizations.BillingPeriod", models.PROTECT, related_name="close", db_constraint=False
    )
    invoice = models.OneToOneField(
        Invoice, models.PROTECT, related_name="close", db_constraint=False, null=True, blank=True
    )
    waiting = models.JSONField(default=list, db_default=[], blank=True)
    closed_by = models.CharField(max_length=150)
    closed_at = models.DateTimeField()

    class Meta:
        verbose_name = _("period close")
        verbose_name_plural = _("period closes")

    def __str__(self) -> str:
        return str(self.period_id)
