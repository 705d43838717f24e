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

from django.db.models import F, Sum

from apps.billing.models import Burn, ChargeHour, ChargeKey, Pot
from apps.core import money
from apps.invoices.models import FINAL_STATES, InvoiceLine, LineKind
from apps.organizations.models import BillingPeriod, Organization
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


def compose(organization: Organization, period: BillingPeriod) -> list[ComposedLine]:
    """Return the lines of a period's invoice, in print order.

    They are the period's own keys, keys of earlier periods that were never invoiced, and corrections of those that
    were. Where corrections would make the whole negative, the negative ones wait for a later invoice.
    """
    keys = list(
        ChargeKey.objects.filter(organization_id=organization.id, period__starts_at__lte=period.starts_at)
        .exclude(price=None)
        .select_related("period", "price__version", "price__meter")
        .order_by("period__starts_at", "meter", "sku", "region", "created_at", "id")
    )
    charged = _charged(keys)
    promo = _promo_micros(keys)
    invoiced = _invoiced(keys)
    lines = [
        line
        for key in keys
        if (
            line := _line(
                key,
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
    return lines


def _line(
    key: ChargeKey, charged: tuple[Decimal, int], promo_micros: int, invoiced: Invoiced, currency: str
) -> ComposedLine | None:
    assert key.price is not None, "usage without a price is not invoiced"
    quantity, posted_micros = charged
    terms = pricing.terms_of(
        key.price, book_id=key.price.version.book_id, unit_seconds=key.price.meter.unit_seconds
    )
    total_minor = line_total_minor(terms, quantity, currency)
    discount_minor = min(max(money.round_micros_to_minor(promo_micros, currency), 0), max(total_minor, 0))
    amount_minor = total_minor - invoiced.amount_minor
    discount_minor -= invoiced.discount_minor
    if invoiced.first_line_id is None:
        if not quantity:
            return None
        kind = LineKind.USAGE
    elif amount_minor or discount_minor:
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
