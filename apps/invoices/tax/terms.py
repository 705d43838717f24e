"""Tax in numbers: the terms of a line, its rate group, and the group's tax spread over its lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal

from apps.core.money import EXACT
from apps.invoices.models import TaxCategory

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
    return int(_exact(base_minor, percent).to_integral_value(ROUND_HALF_UP, EXACT))


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
        for place, share in zip(places, spread(tax_minor, exact), strict=True):
            taxes[place] = share
    return groups, taxes


def spread(total: int, exact: Sequence[Decimal]) -> list[int]:
    """Return whole shares that add up to `total` and differ from the exact ones by less than one each.

    total: the sum of the exact shares, rounded either way. The largest remainders are rounded up.
    """
    shares = [int(share.to_integral_value(ROUND_FLOOR, EXACT)) for share in exact]
    remainders = [EXACT.subtract(share, Decimal(whole)) for share, whole in zip(exact, shares, strict=True)]
    by_remainder = sorted(range(len(exact)), key=lambda place: (-remainders[place], place))
    missing = total - sum(shares)
    assert 0 <= missing <= sum(1 for rest in remainders if rest), "the total is the rounded sum"
    for place in by_remainder[:missing]:
        shares[place] += 1
    return shares


def _exact(net_minor: int, percent: Decimal) -> Decimal:
    return EXACT.divide(EXACT.multiply(Decimal(net_minor), percent), Decimal(100))
