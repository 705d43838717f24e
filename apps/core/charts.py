"""Bars drawn by the server, as numbers that a template puts into an SVG; the same data stands in a table beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

COLOURS = 6
HEIGHT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a bar, in units of the drawing: a bar is 1 wide with its gap, the chart 100 high."""

    y: str
    height: str
    colour: int
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar from the zero line up. is_partial: its time is not over, so it is hatched."""

    x: int
    label: str
    segments: Sequence[Segment]
    is_partial: bool
    top: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Stacked bars. highest: the value at the top edge, 0 where there is nothing to draw."""

    bars: Sequence[Bar]
    highest: Decimal

    @property
    def width(self) -> int:
        """The width in units of the drawing: one for each bar."""
        return len(self.bars)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a bar is made of: amounts by series, with the texts of its axis and its titles."""

    label: str
    title: str
    amounts: Mapping[str, Decimal]
    is_partial: bool = False


def stacked(columns: Sequence[Column], colours: Mapping[str, int], *, unit: str) -> Chart:
    """Return a chart of the columns; series are stacked in the order of `colours`, negative amounts are not drawn.

    unit: said after each amount, such as a currency.
    """
    sums = [
        sum((max(each, Decimal(0)) for each in column.amounts.values()), Decimal(0)) for column in columns
    ]
    highest = max(sums, default=Decimal(0))
    bars = []
    for x, (column, total) in enumerate(zip(columns, sums, strict=True)):
        y, segments = Decimal(HEIGHT), []
        for name, colour in colours.items():
            amount = column.amounts.get(name, Decimal(0))
            if amount <= 0:
                continue
            height = amount * HEIGHT / highest
            y -= height
            title = f"{column.title}: {name} {amount:,.2f} {unit}"
            segments.append(Segment(y=f"{y:.2f}", height=f"{height:.2f}", colour=colour, title=title))
        top = HEIGHT - (total * HEIGHT / highest if highest else Decimal(0))
        bars.append(
            Bar(
                x=x,
                label=column.label,
                segments=segments,
                is_partial=column.is_partial,
                top=f"{top:.2f}",
            )
        )
    return Chart(bars=bars, highest=highest)


def colours_of(names: Sequence[str]) -> dict[str, int]:
    """Return a colour from 1 to 6 for each name by its place, so that the same names look the same everywhere."""
    return {name: place % COLOURS + 1 for place, name in enumerate(sorted(names))}
