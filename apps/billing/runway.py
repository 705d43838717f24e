"""How long credit lasts if all that runs now runs on. Pure: lots, quantities and prices go in, a moment comes out.

Time is walked in stretches in which no lot starts or ends, no price changes, no billing period begins and no tier ends,
so that within each the cost only rises. Amounts are exact fractions of a micro: rounding each hour's cumulative amount
moves the end by less than what runs costs in a microsecond or a micro, whichever is more. Where a volume price falls,
what comes back is taken to stay; charging returns it to the lots that paid, of which one may end: there it is near.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple
from uuid import UUID

from apps.billing.burning import LotState
from apps.core import periods
from apps.core.periods import HOUR
from apps.pricing import rating
from apps.pricing.rating import PriceTerms
from apps.pricing.selectors import PriceSchedule

# Beyond ten years no sentence about credit is worth its words.
HORIZON = timedelta(days=3653)
_TICK = timedelta(microseconds=1)
_MICROS = 1_000_000


class Use(NamedTuple):
    """What runs, by what it is priced by; `per_second` is the quantity that a second adds."""

    meter: str
    sku: str
    region: str
    per_second: Decimal


class Month(NamedTuple):
    """A billing period as far as the forecast needs it."""

    label: str
    starts_at: datetime
    ends_at: datetime


@dataclass(slots=True, kw_only=True)
class Forecast:
    """What runs, what the running period has counted so far, and what it will cost.

    counted: quantities of the period by (meter, SKU, region, price key).
    """

    starts_at: datetime
    uses: Sequence[Use]
    schedule: PriceSchedule
    month: Month
    zone: str
    counted: Mapping[tuple[str, str, str, UUID], Decimal]
    _quantities: dict[tuple[str, str, str, UUID], Fraction] = field(init=False)

    def __post_init__(self) -> None:
        self._quantities = {key: Fraction(quantity) for key, quantity in self.counted.items()}

    def cost_micros(self, length: timedelta = HOUR) -> int:
        """Return what a time from the start costs at the prices in force then, rounded half up for each price once.

        In micros; an hour unless told.
        """
        total = 0
        for use, terms in self._priced(self.starts_at):
            before = self._quantities.get(_key(use, terms), Fraction(0))
            cost = self._cost(use, terms, before, length)
            total += int(cost + Fraction(1, 2)) if cost >= 0 else -int(Fraction(1, 2) - cost)
        return total

    def is_priced(self) -> bool:
        """Return whether everything that runs has a price."""
        return len(self._priced(self.starts_at)) == len(self.uses)

    def runs_out_at(self, lots: Sequence[LotState], *, owed_micros: int) -> datetime | None:
        """Return when the lots in force no longer exceed what is owed, or None if that is beyond the horizon.

        None as well if nothing that runs ever costs anything: that a lot ends is then no matter of what runs.
        lots: in burn order; they are left as they are. owed_micros: may be negative, as credit without a lot.
        """
        lots = [replace(lot) for lot in lots]
        owed = Fraction(owed_micros)
        now, horizon = self.starts_at, min(self.starts_at + HORIZON, self.schedule.end)
        met = list(self._terms_met(horizon))
        if all(terms.is_free for terms in met):
            return None
        is_tiered = any(terms.is_tiered for terms in met)
        while now < horizon:
            in_force = [lot for lot in lots if lot.in_force(now)]
            credit = sum(lot.balance_micros for lot in in_force) - owed
            if credit <= 0:
                return now
            priced = self._priced(now)
            until = min(horizon, self._next_change(lots, now, priced, is_tiered=is_tiered))
            found = self._crossing(priced, credit, until - now)
            if found is not None:
                return now + found
            owed = _burn(in_force, owed, self._advance(priced, until - now))
            now = until
            if is_tiered and now >= self.month.ends_at:
                self._next_month()
        return None

    def _priced(self, moment: datetime) -> list[tuple[Use, PriceTerms]]:
        since = min(self.month.starts_at, moment)
        found = []
        for use in self.uses:
            terms = self.schedule.terms_for(use.meter, use.sku, use.region, moment, since)
            if terms is not None:
                found.append((use, terms))
        return found

    def _terms_met(self, horizon: datetime) -> Iterator[PriceTerms]:
        """Yield every price that what runs may meet."""
        yield from (terms for _use, terms in self._priced(self.starts_at))
        for segment in self.schedule.segments:
            moment = max(segment.start, self.schedule.start)
            for use in self.uses if moment < horizon else ():
                terms = self.schedule.terms_at(use.meter, use.sku, use.region, moment)
                if terms is not None:
                    yield terms

    def _next_change(
        self,
        lots: Sequence[LotState],
        now: datetime,
        priced: Sequence[tuple[Use, PriceTerms]],
        *,
        is_tiered: bool,
    ) -> datetime:
        moments = [segment.start for segment in self.schedule.segments]
        moments += [moment for lot in lots for moment in (lot.effective_at, lot.expires_at) if moment]
        if is_tiered:
            moments.append(self.month.ends_at)
            for use, terms in priced:
                moments += self._tier_ends(use, terms, now)
        return min((moment for moment in moments if moment > now), default=now + HORIZON)

    def _tier_ends(self, use: Use, terms: PriceTerms, now: datetime) -> list[datetime]:
        """Return when the quantity reaches the end of each tier that is still ahead, and when it has passed it.

        Between the two a volume price may fall: what the hours until then cost is burnt before that comes back.
        """
        counted = self._quantities.get(_key(use, terms), Fraction(0))
        ends = []
        for tier in terms.tiers:
            if tier.up_to is None:
                continue
            missing = Fraction(tier.up_to) * terms.unit_seconds - counted
            seconds = missing / Fraction(use.per_second)
            # Up to the microsecond that contains the bound, so that every stretch has a length.
            if 0 <= seconds < Fraction(int(HORIZON.total_seconds())):
                reached = now + int(seconds * _MICROS) * _TICK
                ends += [reached, reached + _TICK]
        return ends

    def _crossing(
        self, priced: Sequence[tuple[Use, PriceTerms]], credit: Fraction, length: timedelta
    ) -> timedelta | None:
        """Return how long the credit lasts if it ends within the stretch, to the microsecond."""

        def spent(ticks: int) -> Fraction:
            return self._total(priced, ticks * _TICK)

        last = length // _TICK
        if not any(terms.is_tiered for _use, terms in priced):
            cost = spent(_MICROS)
            ticks = -(-credit * _MICROS // cost) if cost else last + 1
            return ticks * _TICK if ticks <= last else None
        # A volume price may fall at the very end of a stretch, so the moment before it is asked as well.
        over = next((ticks for ticks in (last - 1, last) if ticks > 0 and spent(ticks) >= credit), None)
        if over is None:
            return None
        below = 0
        while over - below > 1:
            middle = (below + over) // 2
            if spent(middle) >= credit:
                over = middle
            else:
                below = middle
        return over * _TICK

    def _advance(self, priced: Sequence[tuple[Use, PriceTerms]], length: timedelta) -> Fraction:
        """Count a stretch, and return what it costs in micros."""
        cost = self._total(priced, length)
        for use, terms in priced:
            key = _key(use, terms)
            self._quantities[key] = self._quantities.get(key, Fraction(0)) + _quantity(use, length)
        return cost

    def _total(self, priced: Sequence[tuple[Use, PriceTerms]], length: timedelta) -> Fraction:
        return sum(
            (
                self._cost(use, terms, self._quantities.get(_key(use, terms), Fraction(0)), length)
                for use, terms in priced
            ),
            Fraction(0),
        )

    def _cost(self, use: Use, terms: PriceTerms, before: Fraction, length: timedelta) -> Fraction:
        added = _quantity(use, length)
        if not terms.is_tiered:
            return rating.rate(terms, added) * _MICROS
        after = rating.rate(terms, before + added)
        return (after - rating.rate(terms, before)) * _MICROS

    def _next_month(self) -> None:
        label = periods.next_label(self.month.label)
        end = periods.month_start(periods.next_label(label), self.zone)
        self.month = Month(label, self.month.ends_at, max(end, self.month.ends_at + timedelta(hours=1)))
        self._quantities = {}


def _key(use: Use, terms: PriceTerms) -> tuple[str, str, str, UUID]:
    return use.meter, use.sku, use.region, terms.key_id


def _quantity(use: Use, length: timedelta) -> Fraction:
    return Fraction(use.per_second) * Fraction(length // _TICK, _MICROS)


def _burn(lots: Sequence[LotState], owed: Fraction, cost: Fraction) -> Fraction:
    """Take a cost from the lots in their order and return what is owed then; what comes back is owed less."""
    if cost <= 0:
        return owed + cost
    whole = int(cost)
    fraction = cost - whole
    for lot in lots:
        share = min(lot.balance_micros, whole)
        lot.balance_micros -= share
        whole -= share
    return owed + whole + fraction
