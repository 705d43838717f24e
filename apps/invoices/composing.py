"""What an invoice says: one line per charge key, computed from what was charged and what was already invoiced.

A line's amount is round(rate(Q)) of its key to minor units, half up, from the exact quantity and never from micros. A
key that was invoiced before gets the difference to that, signed, as an adjustment. Promotional credit is a discount:
the promo burnt by the key, net of reversals and rounded once, between 0 and the key's total, less what was discounted
before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from django.db.models import F, Q, Sum

from apps.billing.models import Burn, ChargeHour, ChargeKey, Pot
from apps.core import money
from apps.invoices.models import FINAL_STATES, InvoiceLine, LineKind
from apps.organizations.models import BillingPeriod, Organization, PeriodState
from apps.pricing import rating
from apps.pricing import selectors as pricing
from apps.pricing.rating import PriceTerms

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoiced:
    """What final invoices say of a charge key so far; first_line is the line that later ones correct."""

    quantity: Decimal = ZERO
    amount_minor: int = 0
    discount_minor: int = 0
    ledger_micros: int = 0
    first_line_id: UUID | None = None


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

    @property
    def net_minor(self) -> int:
        return self.amount_minor - self.discount_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """A period's invoice as it would stand now: its lines in print order, and the keys whose debt it asks for.

    A key can owe without a line: what a lapsed credit paid for moved to the receivable, and its total stayed the same.
    """

    lines: tuple[ComposedLine, ...]
    keys: tuple[ChargeKey, ...]

    @property
    def owed_micros(self) -> int:
        """What the keys owe and no final invoice asks for yet, in micros."""
        return sum(key.receivable_micros - key.billed_receivable_micros for key in self.keys)

    def due_minor(self, owed_micros: int, currency: str) -> int:
        """Return the receivable part of the invoice in minor units, rounded half up once.

        Discounts are rounded line by line, so the parts can exceed the total by a minor unit for each line at most;
        then the receivable gives way, and the residue goes to rounding with the others.
        """
        due_minor = money.round_micros_to_minor(owed_micros, currency)
        billable_minor = sum(max(line.net_minor, 0) for line in self.lines)
        if billable_minor < due_minor <= billable_minor + len(self.lines):
            return billable_minor
        return due_minor


def compose(organization: Organization, period: BillingPeriod) -> Composition:
    """Return what a period's invoice says, and what it asks for.

    The lines are the period's own keys, keys of earlier periods that were never invoiced, and corrections of those that
    were; what earlier periods left is on the invoice of the earliest period that is not final, and on no other. Where
    corrections would make the whole negative, the negative ones wait for a later invoice.
    """
    wanted = Q(period=period)
    earlier = BillingPeriod.objects.of(organization.id).filter(starts_at__lt=period.starts_at)
    if not earlier.exclude(state=PeriodState.FINAL).exists():
        wanted |= Q(period__in=earlier)
    keys = list(
        ChargeKey.objects.filter(wanted, organization_id=organization.id)
        .exclude(price_key_id=None)
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
            )
        )
    ]
    # The period's own lines first, then what earlier periods left, oldest first.
    lines.sort(key=lambda line: line.key.period_id != period.id)
    if sum(line.net_minor for line in lines) < 0:
        lines = [line for line in lines if line.net_minor >= 0]
    return Composition(lines=tuple(lines), keys=tuple(keys))


def _line(
    key: ChargeKey,
    terms: PriceTerms,
    charged: tuple[Decimal, int],
    promo_micros: int,
    invoiced: Invoiced,
    currency: str,
) -> ComposedLine | None:
    quantity, posted_micros = charged
    total_minor = line_total_minor(terms, quantity, currency)
    discount_minor = min(max(money.round_micros_to_minor(promo_micros, currency), 0), max(total_minor, 0))
    amount_minor = total_minor - invoiced.amount_minor
    discount_minor -= invoiced.discount_minor
    if invoiced.first_line_id is None:
        if not quantity:
            return None
        kind = LineKind.USAGE
    elif amount_minor or discount_minor or quantity != invoiced.quantity:
        # Usage too small to move a cent is still told, so that the quantities of all lines add up to the usage.
        kind = LineKind.ADJUSTMENT
    else:
        return None
    return ComposedLine(
        key=key,
        kind=kind,
        terms=terms,
        quantity=quantity - invoiced.quantity,
        amount_minor=amount_minor,
        discount_minor=discount_minor,
        ledger_micros=posted_micros - invoiced.ledger_micros,
        corrects_id=invoiced.first_line_id,
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
    lines = InvoiceLine.objects.filter(key__in=[key.id for key in keys], invoice__state__in=FINAL_STATES)
    first_lines = dict(lines.filter(kind=LineKind.USAGE).values_list("key_id", "id"))
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
            first_line_id=first_lines[row["key_id"]],
        )
        for row in rows
    }
    return {key.id: found.get(key.id, Invoiced()) for key in keys}
