"""What changes from one list of prices to another: for previews, comparisons and the page before publishing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from itertools import zip_longest

from django.utils.translation import gettext as _

from apps.core.money import EXACT, plain
from apps.pricing.models import ANY
from apps.pricing.rating import Tier
from apps.pricing.rows import PriceRow

HUNDREDTH = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing of a row that changes; percent only where it is a price that was not zero, rounded to hundredths."""

    name: str
    old: str
    new: str
    percent: Decimal | None = None

    def __str__(self) -> str:
        percent = "" if self.percent is None else f" ({self.percent:+} %)".replace("-", "\N{MINUS SIGN}")
        return f"{self.name} {self.old} → {self.new}{percent}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A row that is added (no `before`), removed (no `after`) or changed in steps."""

    before: PriceRow | None
    after: PriceRow | None
    steps: tuple[Step, ...] = ()

    @property
    def kind(self) -> str:
        """Return `added`, `removed` or `changed`."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"

    @property
    def place(self) -> str:
        """Return what the row prices, for people."""
        row = self.after or self.before
        assert row is not None, "a change has a row on at least one side"
        return " · ".join(row.place)

    @property
    def terms(self) -> str:
        """Return the terms of an added or removed row, or the steps of a changed one."""
        if self.steps:
            return ", ".join(str(step) for step in self.steps)
        row = self.after or self.before
        return describe(row) if row else ""

    def __str__(self) -> str:
        sign = {"added": "+", "removed": "-", "changed": "~"}[self.kind]
        return f"{sign} {self.place}: {self.terms}"


def compare(before: Iterable[PriceRow], after: Iterable[PriceRow]) -> list[Change]:
    """Return every difference, by meter, SKU and region with `*` last; equal rows are none."""
    old, new = {row.place: row for row in before}, {row.place: row for row in after}
    changes = []
    for place in sorted(old.keys() | new.keys(), key=lambda place: [(part == ANY, part) for part in place]):
        row, successor = old.get(place), new.get(place)
        if row is None or successor is None:
            changes.append(Change(before=row, after=successor))
        elif row != successor:
            changes.append(Change(before=row, after=successor, steps=tuple(_steps(row, successor))))
    return changes


def describe(row: PriceRow) -> str:
    """Return a row's terms in one line."""
    if row.tiers:
        return f"{row.model}: {_tiers(row.tiers)}"
    if row.package_price is not None and row.package_size is not None:
        free = _(", %s free") % plain(row.free_units) if row.free_units else ""
        facts = {"price": _price(row.package_price), "size": plain(row.package_size), "free": free}
        return _("%(price)s per %(size)s%(free)s") % facts
    return "–" if row.unit_price is None else _price(row.unit_price)


def _steps(old: PriceRow, new: PriceRow) -> Iterator[Step]:
    if old.model != new.model:
        yield Step(name=_("model"), old=describe(old), new=describe(new))
        return
    if [tier.up_to for tier in old.tiers] != [tier.up_to for tier in new.tiers]:
        yield Step(name=_("tiers"), old=_tiers(old.tiers), new=_tiers(new.tiers))
    else:
        for before, after in zip_longest(old.tiers, new.tiers):
            bound = _bound(before)
            yield from _price_step(_("price %s") % bound, before.unit_price, after.unit_price)
            yield from _price_step(_("flat fee %s") % bound, before.flat_fee, after.flat_fee)
    yield from _price_step(_("unit price"), old.unit_price, new.unit_price)
    yield from _price_step(_("package price"), old.package_price, new.package_price)
    for name, was, now in (
        (_("package size"), old.package_size, new.package_size),
        (_("free units"), old.free_units, new.free_units),
    ):
        if was != now:
            yield Step(name=name, old=_number(was), new=_number(now))


def _price_step(name: str, old: Decimal | None, new: Decimal | None) -> Iterator[Step]:
    if old is None or new is None or old == new:
        return
    percent = None
    if old:
        exact = EXACT.divide(EXACT.multiply(EXACT.subtract(new, old), Decimal(100)), old)
        percent = exact.quantize(HUNDREDTH, ROUND_HALF_UP, EXACT)
    yield Step(name=name, old=_price(old), new=_price(new), percent=percent)


def _tiers(tiers: Iterable[Tier]) -> str:
    return "; ".join(
        f"{_bound(tier)} {_price(tier.unit_price)}" + (f" + {_price(tier.flat_fee)}" if tier.flat_fee else "")
        for tier in tiers
    )


def _bound(tier: Tier) -> str:
    return _("above") if tier.up_to is None else _("to %s") % plain(tier.up_to)


def _price(value: Decimal) -> str:
    return plain(value, decimals_min=2)


def _number(value: Decimal | None) -> str:
    return "–" if value is None else plain(value)
