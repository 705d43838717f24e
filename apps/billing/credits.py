"""An organization's credit as its page shows it: the lots in the order in which they burn, and what is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q

from apps.billing.models import CreditLot, Pot

ENDS_SOON = timedelta(days=14)
PAST_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class LotRow:
    """A lot that has credit. place: 1 burns first. state: `planned`, `ends_soon` or `in_force`."""

    place: int
    lot: CreditLot
    remaining_micros: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """paid, promo: micros in force. ends_soon: the part of them that ends within fourteen days. past: the latest."""

    rows: Sequence[LotRow]
    past: Sequence[CreditLot]
    paid_micros: int
    promo_micros: int
    ends_soon_micros: int


def credit_of(organization_id: UUID, *, now: datetime) -> Credit:
    """Return an organization's credit. Two queries."""
    own = CreditLot.objects.filter(organization_id=organization_id)
    unexpired = Q(expires_at=None) | Q(expires_at__gt=now)
    lots = list(own.filter(unexpired).with_balance().in_burn_order())
    rows = [
        LotRow(
            place=place,
            lot=lot,
            remaining_micros=lot.account.balance_micros,
            state=_state(lot, now),
        )
        for place, lot in enumerate(lots, start=1)
    ]
    in_force = [row for row in rows if row.state != "planned"]

    def total(pot: Pot) -> int:
        return sum(row.remaining_micros for row in in_force if row.lot.pot == pot)

    past = own.exclude(pk__in=[lot.pk for lot in lots]).select_related("account")
    return Credit(
        rows=rows,
        past=list(past.order_by("-created_at", "-pk")[:PAST_SHOWN]),
        paid_micros=total(Pot.PAID),
        promo_micros=total(Pot.PROMO),
        ends_soon_micros=sum(row.remaining_micros for row in rows if row.state == "ends_soon"),
    )


def _state(lot: CreditLot, now: datetime) -> str:
    if lot.effective_at > now:
        return "planned"
    return "ends_soon" if lot.expires_at is not None and lot.expires_at <= now + ENDS_SOON else "in_force"
