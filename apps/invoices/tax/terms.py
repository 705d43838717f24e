"""Tax in numbers: the terms of a line, its rate group, and the group's tax spread over its lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from apps.core import money
from apps.invoices.models import TaxCategory
from apps.pricing.rating import round_half_up

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxTerms:
    """How a line is taxed. Lines with the same terms are one rate group of an invoice.

    country: whose tax it is, empty outside any. note: what the law wants an invoice to say.
    """

    category: TaxCategory = TaxCategory.OUTSIDE
    percent: Decimal = ZERO
    country: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxGroup:
    """The lines of one rate: their net sum and the tax on it, in minor units."""

    terms: TaxTerms
    base_minor: int
    tax_minor: int


def round_tax(base_minor: int, percent: Decimal) -> int:
    """Return the tax on a net amount in minor units, rounded half up (ties away from zero)."""
    return int(round_half_up(_exact(base_minor, percent), 0))


def assess(lines: Sequence[tuple[TaxTerms, int]]) -> tuple[list[TaxGroup], list[int]]:
    """Return the rate groups of lines given as (terms, net amount), and the tax of each line in their order.

    The tax of a group is rounded once, from the sum of its lines. It is spread by largest remainder, the earlier line
    first on a tie, so that the lines' taxes add up to the group's; a line without an amount bears none.
    """
    members: dict[TaxTerms, list[int]] = defaultdict(list)
    for place, (terms, _net) in enumerate(lines):
        members[terms].append(place)
    groups: list[TaxGroup] = []
    taxes = [0] * len(lines)
    for terms, places in members.items():
        nets = [lines[place][1] for place in places]
        tax_minor = round_tax(sum(nets), terms.percent)
        groups.append(TaxGroup(terms=terms, base_minor=sum(nets), tax_minor=tax_minor))
        exact = [_exact(net, terms.percent) for net in nets]
        for place, share in zip(places, money.spread(tax_minor, exact), strict=True):
            taxes[place] = share
    return groups, taxes


def _exact(net_minor: int, percent: Decimal) -> Fraction:
    return net_minor * Fraction(percent) / 100
