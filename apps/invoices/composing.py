"""What an invoice says: one line per charge key, computed from what was charged and what was already invoiced.

A line's amount is round(rate(Q)) of its key to minor units, half up, from the exact quantity and never from micros. A
key that was invoiced before gets the difference to that, signed, as an adjustment. Promotional credit is a discount:
the promo burnt by the key, net of reversals and rounded once, between 0 and the key's total, less what was discounted
before. Tax comes after the discount: a new line has the invoice's terms, a correction those of the line it corrects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from uuid import UUID

from django.db.models import F, Sum

from apps.billing.models import Burn, ChargeHour, ChargeKey, Pot
from apps.core import money
from apps.invoices.models import BILLED_KINDS, FINAL_STATES, InvoiceLine, InvoiceState, LineKind, TaxCategory
from apps.invoices.tax.terms import TaxGroup, TaxTerms, assess
from apps.organizations.models import BillingPeriod, Organization, PeriodState
from apps.pricing import rating
from apps.pricing import selectors as pricing
from apps.pricing.rating import PriceTerms

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoiced:
    """What final invoices say of a charge key so far.

    first_line: the line that later ones correct, None where a cancellation took all of them back.
    """

    quantity: Decimal = ZERO
    amount_minor: int = 0
    discount_minor: int = 0
    ledger_micros: int = 0
    first_line: InvoiceLine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedLine:
    """One line as it would stand on the invoice now; amounts in minor units."""

    key: ChargeKey
    kind: LineKind
    terms: PriceTerms
    quantity: Decimal
    amount_minor: int
    discount_minor: int
    ledger_micros: int
    corrects_id: UUID | None
    tax_terms: TaxTerms
    tax_minor: int = 0

    @property
    def net_minor(self) -> int:
        return self.amount_minor - self.discount_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """A period's invoice as it would stand now: its lines in print order, and the keys whose debt it asks for.

    A key can owe without a line: what a lapsed credit paid for moved to the receivable, and its total stayed the same.
    A total below zero makes it a credit note, which asks for nothing. waiting: corrections that a later document says.
    """

    lines: tuple[ComposedLine, ...] = ()
    waiting: tuple[ComposedLine, ...] = ()
    taxes: tuple[TaxGroup, ...] = ()
    keys: tuple[ChargeKey, ...] = ()

    @property
    def subtotal_minor(self) -> int:
        return sum(line.amount_minor for line in self.lines)

    @property
    def discount_minor(self) -> int:
        return sum(line.discount_minor for line in self.lines)

    @property
    def tax_minor(self) -> int:
        return sum(group.tax_minor for group in self.taxes)

    @property
    def total_minor(self) -> int:
        return self.subtotal_minor - self.discount_minor + self.tax_minor

    @property
    def is_credit_note(self) -> bool:
        return self.total_minor < 0

    @property
    def owed_micros(self) -> int:
        """What the keys owe and no final invoice asks for yet, in micros, without tax."""
        return sum(key.receivable_micros - key.billed_receivable_micros for key in self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How an invoice is paid at the moment it becomes final; amounts in minor units but for the receipts.

    due: what is left to pay. tax_credit: the tax that paid credit pays, below zero what comes back as credit.
    tax_receivable: the tax left to pay, below zero what reduces the debt. receipts: used of what was paid ahead.
    """

    due_minor: int = 0
    tax_credit_minor: int = 0
    tax_receivable_minor: int = 0
    receipts_micros: int = 0


def settle(
    composition: Composition, currency: str, *, credit_micros: int, receipts_micros: int
) -> Settlement:
    """Return how an invoice is settled: tax from paid credit in whole minor units, the rest is owed.

    credit_micros: paid credit in force. receipts_micros: paid ahead of any invoice. Due is rounded half up once.
    Discounts are rounded line by line, so the parts can exceed the total by a minor unit for each line at most; then
    the receivable gives way, and the residue goes to rounding with the others.
    """
    tax_minor, owed_micros = composition.tax_minor, composition.owed_micros
    if composition.is_credit_note:
        return Settlement(tax_credit_minor=tax_minor)
    unit = money.micros_per_minor(currency)
    if tax_minor >= 0:
        from_credit = min(tax_minor, credit_micros // unit)
    else:
        from_credit = tax_minor + min(-tax_minor, max(owed_micros - receipts_micros, 0) // unit)
    on_receivable = tax_minor - from_credit
    owed_micros += on_receivable * unit
    receipts_micros = min(receipts_micros, owed_micros)
    due_minor = money.round_micros_to_minor(owed_micros - receipts_micros, currency)
    billable_minor = sum(max(line.net_minor, 0) for line in composition.lines) + on_receivable
    if billable_minor < due_minor <= billable_minor + len(composition.lines):
        due_minor = billable_minor
    return Settlement(
        due_minor=due_minor,
        tax_credit_minor=from_credit,
        tax_receivable_minor=on_receivable,
        receipts_micros=receipts_micros,
    )


def compose(organization: Organization, period: BillingPeriod, tax: TaxTerms) -> Composition:
    """Return what a period's invoice says, and what it asks for.

    tax: how the organization is taxed now.

    The lines are the period's own keys, keys of earlier periods that were never invoiced, and corrections of those that
    were; what earlier periods left is on the invoice of the earliest period that is not final, and on no other. Where
    corrections make the whole negative it is a credit note; only if tax would still be due on it, because rates are
    mixed, the negative lines wait for a later document.
    """
    of_organization = ChargeKey.objects.filter(organization_id=organization.id)
    wanted = of_organization.filter(period=period)
    earlier = BillingPeriod.objects.of(organization.id).filter(starts_at__lt=period.starts_at)
    if not earlier.exclude(state=PeriodState.FINAL).exists():
        wanted |= of_organization.filter(period__in=earlier).unsettled()
    keys = list(
        wanted.exclude(price_key_id=None)
        .select_related("period")
        .order_by("period__starts_at", "meter", "sku", "region", "created_at", "id")
    )
    terms = pricing.terms_of_keys({(key.price_id, key.override_id) for key in keys})
    charged = _charged(keys)
    promo = _promo_micros(keys)
    invoiced = _invoiced(keys)
    lines = [
        line
        for key in keys
        if (
            line := _line(
                key,
                terms[key.price_id, key.override_id],
                charged.get(key.id, (ZERO, 0)),
                promo.get(key.id, 0),
                invoiced[key.id],
                organization.currency,
                tax,
            )
        )
    ]
    # The period's own lines first, then what earlier periods left, oldest first.
    lines.sort(key=lambda line: line.key.period_id != period.id)
    composition = _taxed(lines, keys)
    if composition.is_credit_note and composition.tax_minor > 0:
        waiting = tuple(line for line in composition.lines if line.net_minor < 0)
        composition = replace(_taxed([line for line in lines if line.net_minor >= 0], keys), waiting=waiting)
    return composition


def _taxed(lines: Sequence[ComposedLine], keys: Sequence[ChargeKey]) -> Composition:
    groups, taxes = assess([(line.tax_terms, line.net_minor) for line in lines])
    return Composition(
        lines=tuple(replace(line, tax_minor=tax) for line, tax in zip(lines, taxes, strict=True)),
        taxes=tuple(groups),
        keys=tuple(keys),
    )


def terms_of_line(line: InvoiceLine) -> TaxTerms:
    """Return how a line was taxed."""
    return TaxTerms(
        category=TaxCategory(line.tax_category),
        percent=line.tax_percent,
        country=line.tax_country,
        note=line.tax_note,
    )


def _line(
    key: ChargeKey,
    terms: PriceTerms,
    charged: tuple[Decimal, int],
    promo_micros: int,
    invoiced: Invoiced,
    currency: str,
    tax: TaxTerms,
) -> ComposedLine | None:
    quantity, posted_micros = charged
    total_minor = line_total_minor(terms, quantity, currency)
    discount_minor = min(max(money.round_micros_to_minor(promo_micros, currency), 0), max(total_minor, 0))
    amount_minor = total_minor - invoiced.amount_minor
    discount_minor -= invoiced.discount_minor
    if not amount_minor and not discount_minor and quantity == invoiced.quantity:
        # Usage too small to move a cent is told, so that the quantities of all lines add up to the usage.
        return None
    return ComposedLine(
        key=key,
        kind=LineKind.ADJUSTMENT if invoiced.first_line else LineKind.USAGE,
        terms=terms,
        quantity=quantity - invoiced.quantity,
        amount_minor=amount_minor,
        discount_minor=discount_minor,
        ledger_micros=posted_micros - invoiced.ledger_micros,
        corrects_id=invoiced.first_line.id if invoiced.first_line else None,
        tax_terms=terms_of_line(invoiced.first_line) if invoiced.first_line else tax,
    )


def line_total_minor(terms: PriceTerms, quantity: Decimal, currency: str) -> int:
    """Return round(rate(Q)) in minor units: the one place where an amount of an invoice is rounded."""
    exponent = money.exponent(currency)
    return int(rating.round_half_up(rating.rate(terms, quantity), exponent).scaleb(exponent, money.EXACT))


def _charged(keys: Sequence[ChargeKey]) -> dict[UUID, tuple[Decimal, int]]:
    rows = (
        ChargeHour.objects.filter(key__in=[key.id for key in keys])
        .values("key_id")
        .annotate(quantity_sum=Sum("quantity"), amount_sum=Sum("amount_micros"))
    )
    return {row["key_id"]: (row["quantity_sum"], int(row["amount_sum"])) for row in rows}


def _promo_micros(keys: Sequence[ChargeKey]) -> dict[UUID, int]:
    rows = (
        Burn.objects.filter(key__in=[key.id for key in keys], lot__pot=Pot.PROMO)
        .values("key_id")
        .annotate(net=Sum(F("amount_micros") - F("reversed_micros")))
    )
    return {row["key_id"]: int(row["net"]) for row in rows}


def _invoiced(keys: Sequence[ChargeKey]) -> Mapping[UUID, Invoiced]:
    lines = InvoiceLine.objects.filter(
        key__in=[key.id for key in keys], invoice__state__in=FINAL_STATES, kind__in=BILLED_KINDS
    )
    standing = lines.filter(kind=LineKind.USAGE).exclude(invoice__state=InvoiceState.CANCELLED)
    first_lines = {line.key_id: line for line in standing.order_by("-invoice__finalized_at", "-id")}
    rows = lines.values("key_id").annotate(
        quantity_sum=Sum("quantity"),
        amount_sum=Sum("amount_minor"),
        discount_sum=Sum("discount_minor"),
        ledger_sum=Sum("ledger_micros"),
    )
    found = {
        row["key_id"]: Invoiced(
            quantity=row["quantity_sum"],
            amount_minor=int(row["amount_sum"]),
            discount_minor=int(row["discount_sum"]),
            ledger_micros=int(row["ledger_sum"]),
            first_line=first_lines.get(row["key_id"]),
        )
        for row in rows
    }
    return {key.id: found.get(key.id, Invoiced()) for key in keys}
