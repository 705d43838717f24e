"""Which credit pays an hour. Pure: lots in burn order go in, shares come out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from apps.core.periods import HOUR, floor_hour


@dataclass(slots=True, kw_only=True)
class LotState:
    """A lot while hours are charged to it; `balance_micros` goes down as they are."""

    id: UUID
    account_id: UUID
    is_promo: bool
    effective_at: datetime
    expires_at: datetime | None
    balance_micros: int

    def pays(self, hour: datetime) -> bool:
        """Return whether this lot may pay the hour that contains the moment.

        Paid credit pays anything. A promo lot pays an hour only if it takes effect before the hour's end and does
        not expire before it.
        """
        end = floor_hour(hour) + HOUR
        return not self.is_promo or (
            self.effective_at < end and (self.expires_at is None or end <= self.expires_at)
        )

    def in_force(self, moment: datetime) -> bool:
        """Return whether this lot counts as credit at a moment."""
        return self.effective_at <= moment and (self.expires_at is None or moment < self.expires_at)


def burn(
    lots: Sequence[LotState], *, hour: datetime, amount_micros: int
) -> Iterator[tuple[LotState | None, int]]:
    """Take an amount from the lots in their order and yield (lot, micros); what no lot covers comes with None.

    The balances of the lots go down. Consumed usage always posts, so the shares add up to the amount.
    """
    assert amount_micros > 0, "only usage that costs something is burnt"
    for lot in lots:
        if lot.balance_micros and lot.pays(hour):
            share = min(lot.balance_micros, amount_micros)
            lot.balance_micros -= share
            amount_micros -= share
            yield lot, share
            if not amount_micros:
                return
    yield None, amount_micros
