"""What usage would cost: the prices in force, the exact arithmetic of rating, rounded as an invoice line is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from django.db.models import Q
from django.utils.translation import gettext as _

from apps.core.errors import FieldError, ValidationFailed
from apps.core.money import EXACT, exponent
from apps.core.periods import LAST_HOUR, floor_hour
from apps.pricing import rating, selectors
from apps.pricing.models import ANY, PriceBook, Sku

DECIMALS_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Usage of one period; quantity is in the meter's own unit, such as GPU-hours.

    sku, region: empty or `*` for usage that has none.
    """

    meter: str
    sku: str
    region: str
    quantity: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One item priced. amount: rounded half up to the currency's minor unit, as an invoice line is."""

    item: Item
    unit_price: Decimal | None
    amount: Decimal
    exact: Fraction
    tiers: Sequence[rating.TierShare]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Lines and their sum."""

    lines: Sequence[Line]
    currency: str

    @property
    def total(self) -> Decimal:
        """Return the sum of the rounded lines, as an invoice has it."""
        return sum((line.amount for line in self.lines), Decimal(0).scaleb(-exponent(self.currency)))


def estimate(
    *,
    items: Sequence[Item],
    organization_id: UUID | None,
    currency: str,
    at: datetime,
    book: str = "",
    any_book: bool = False,
) -> Estimate:
    """Return what the items would cost at the prices of a moment.

    book: name or id of a price book; empty for the one that prices the organization, or by default everybody.
    any_book: whether the caller may see books that are not theirs; otherwise those look like none.
    Raises ValidationFailed naming each item that cannot be priced.
    """
    start = floor_hour(at)
    if start == LAST_HOUR:
        message = _("No price is known for so late a moment.")
        raise ValidationFailed(fields=[FieldError(path="at", code="invalid", message=message)])
    schedule = selectors.schedule(
        organization_id=organization_id,
        currency=currency,
        start=start,
        end=start + timedelta(hours=1),
    )
    own = schedule.version_at(at)
    if book and not (own and book in (own.book.name, str(own.book_id))):
        found = PriceBook.objects.filter(_named(book)).first() if any_book else None
        if found is None:
            message = _("There is no such price book.")
            raise ValidationFailed(fields=[FieldError(path="price_book", code="unknown", message=message)])
        schedule, currency = selectors.schedule_of_book(book=found, at=at), found.currency
    known = _Known(items)
    errors = [error for index, item in enumerate(items) for error in known.check(item, index)]
    lines = []
    for index, item in enumerate(items):
        terms = schedule.terms_at(item.meter, item.sku, item.region, at)
        if terms is not None:
            lines.append(_line(item, terms, currency))
        elif not any(error.path.startswith(f"items.{index}.") for error in errors):
            message = _("This has no price.")
            errors.append(FieldError(path=f"items.{index}", code="unpriced", message=message))
    if errors:
        raise ValidationFailed(fields=errors)
    return Estimate(lines=lines, currency=currency)


def shown(value: Fraction) -> Decimal:
    """Return an exact value with as many decimals as it needs, up to twelve; for display only."""
    return rating.round_half_up(value, DECIMALS_SHOWN)


class _Known:
    """Which of the items' codes exist, asked once for all of them."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.meters = selectors.meter_codes()
        self.regions = selectors.region_codes() | {ANY, ""}
        asked = {item.sku for item in items}
        self.skus = {ANY, "", *Sku.objects.filter(code__in=asked).values_list("code", flat=True)}

    def check(self, item: Item, index: int) -> list[FieldError]:
        message = _("There is no “%s”.")
        return [
            FieldError(path=f"items.{index}.{name}", code="unknown", message=message % value)
            for name, value, known in (
                ("meter", item.meter, self.meters),
                ("sku", item.sku, self.skus),
                ("region", item.region, self.regions),
            )
            if value not in known
        ]


def _line(item: Item, terms: rating.PriceTerms, currency: str) -> Line:
    quantity = EXACT.multiply(item.quantity, Decimal(terms.unit_seconds))
    exact = rating.rate(terms, quantity)
    return Line(
        item=item,
        unit_price=terms.unit_price,
        amount=rating.round_half_up(exact, exponent(currency)),
        exact=exact,
        tiers=rating.breakdown(terms, quantity),
    )


def _named(book: str) -> Q:
    try:
        return Q(pk=UUID(book))
    except ValueError:
        return Q(name=book)
