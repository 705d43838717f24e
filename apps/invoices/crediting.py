"""How a credit note is spread over the lines of its invoice. Pure: amounts in minor units go in and come out.

A line can be credited up to what it still has: its net amount and its tax, less what earlier credit notes took.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from uuid import UUID

from apps.core.money import apportion, spread
from apps.invoices.tax.terms import TaxTerms
from apps.pricing.rating import round_half_up


@dataclass(frozen=True, slots=True, kw_only=True)
class Creditable:
    """What is left of a line; all amounts are ≥ 0. discount: the promotional part that goes with the net amount."""

    line_id: UUID
    terms: TaxTerms
    net_minor: int
    tax_minor: int
    discount_minor: int = 0

    @property
    def gross_minor(self) -> int:
        return self.net_minor + self.tax_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class Credited:
    """What a credit note takes of a line: its net amount, the tax on it and the promotional part beside it."""

    line_id: UUID
    net_minor: int
    tax_minor: int
    discount_minor: int


def by_amount(lines: Sequence[Creditable], amount_minor: int) -> list[Credited]:
    """Spread an amount with tax over lines by what they have left; all that is left credits every line whole.

    The amount is between 1 and the sum of what the lines have left. Tax follows the line's own share of tax and is
    rounded once for each rate.
    """
    whole = sum(line.gross_minor for line in lines)
    assert 0 < amount_minor <= whole, "the caller compared with what is left"
    shares = apportion(amount_minor, [Fraction(line.gross_minor) for line in lines])
    exact = [
        _part(share, line.tax_minor, line.gross_minor) for line, share in zip(lines, shares, strict=True)
    ]
    found = []
    for line, share, rounded in zip(lines, shares, _round_by_rate(lines, exact), strict=True):
        # Neither part of a line can give more than it has.
        tax = min(max(rounded, share - line.net_minor, 0), line.tax_minor, share)
        found.append(_credited(line, net_minor=share - tax, tax_minor=tax))
    return [share for share in found if share.net_minor or share.tax_minor]


def by_line(lines: Sequence[Creditable], nets_minor: Mapping[UUID, int]) -> list[Credited]:
    """Credit net amounts of lines, each between 1 and what its line has left, with the tax on them."""
    chosen = [line for line in lines if line.line_id in nets_minor]
    assert len(chosen) == len(nets_minor), "the caller looked for the lines"
    nets = [nets_minor[line.line_id] for line in chosen]
    assert all(0 < net <= line.net_minor for line, net in zip(chosen, nets, strict=True)), "and compared"
    exact = [_part(net, line.tax_minor, line.net_minor) for line, net in zip(chosen, nets, strict=True)]
    return [
        _credited(
            line,
            net_minor=net,
            tax_minor=line.tax_minor if net == line.net_minor else min(tax, line.tax_minor),
        )
        for line, net, tax in zip(chosen, nets, _round_by_rate(chosen, exact), strict=True)
    ]


def _round_by_rate(lines: Sequence[Creditable], exact: Sequence[Fraction]) -> list[int]:
    places: dict[TaxTerms, list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        places[line.terms].append(place)
    taxes = [0] * len(lines)
    for group in places.values():
        parts = [exact[place] for place in group]
        total = int(round_half_up(sum(parts, Fraction(0)), 0))
        for place, tax in zip(group, spread(total, parts), strict=True):
            taxes[place] = tax
    return taxes


def _credited(line: Creditable, *, net_minor: int, tax_minor: int) -> Credited:
    discount = line.discount_minor
    if net_minor != line.net_minor:
        discount = int(round_half_up(_part(net_minor, discount, line.net_minor), 0))
    return Credited(line_id=line.line_id, net_minor=net_minor, tax_minor=tax_minor, discount_minor=discount)


def _part(amount: int, numerator: int, denominator: int) -> Fraction:
    return Fraction(amount * numerator, denominator) if denominator else Fraction(0)
