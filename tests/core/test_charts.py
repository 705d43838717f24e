"""Bars as numbers: they stand on zero, add up, and keep their colours."""

from __future__ import annotations

from decimal import Decimal

from apps.core.charts import Column, colours_of, stacked


def column(label, is_partial=False, **amounts):
    return Column(
        label=label,
        title=label,
        amounts={name: Decimal(text) for name, text in amounts.items()},
        is_partial=is_partial,
    )


def test_bars_are_stacked_up_to_the_highest():
    chart = stacked(
        [column("1", a="30", b="10"), column("2", is_partial=True, b="20")], {"a": 1, "b": 2}, unit="USD"
    )

    first, second = chart.bars
    assert chart.highest == Decimal(40)
    assert chart.width == 2
    assert [(part.y, part.height, part.colour) for part in first.segments] == [
        ("25.00", "75.00", 1),
        ("0.00", "25.00", 2),
    ]
    assert [(part.y, part.height) for part in second.segments] == [("50.00", "50.00")]
    assert (first.is_partial, second.is_partial, second.top) == (False, True, "50.00")
    assert first.segments[0].title == "1: a 30.00 USD"


def test_corrections_below_zero_are_left_to_the_table():
    chart = stacked([column("1", a="-5", b="10")], {"a": 1, "b": 2}, unit="USD")

    assert chart.highest == Decimal(10)
    assert [part.colour for part in chart.bars[0].segments] == [2]


def test_nothing_is_no_division():
    assert stacked([], {}, unit="USD").highest == 0
    assert stacked([column("1")], {"a": 1}, unit="USD").bars[0].segments == []


def test_a_name_keeps_its_colour_whatever_the_order():
    assert colours_of(["b", "a"]) == {"a": 1, "b": 2}
    assert colours_of(list("gfedcba"))["g"] == 1
