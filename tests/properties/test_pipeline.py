"""From events to invoice lines, under random prices, versions, overrides, tiers, added rows, late events and closes.

The model knows nothing of keys, slots or schedules: it walks hour by hour through May and adds fractions.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from apps.billing.models import ChargeHour
from apps.invoices import replay
from apps.invoices.models import InvoiceLine
from apps.organizations.models import BillingPeriod, Organization
from apps.pricing import services as pricing
from apps.pricing.models import PriceBookVersion, Region, Sku
from apps.pricing.rows import read_row
from tests import build
from tests.depth import examples
from tests.money import failing

HOUR = timedelta(hours=1)
MAY, JUNE = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
LATER = datetime(2026, 7, 20, tzinfo=UTC)
SKUS, REGIONS = ("h100", "a100"), ("eu", "us")
TICK = 4  # The hour of May until which usage is charged before prices change.
END = 10  # No usage of May starts in this hour or later.
JUNE_RENT = 10**7  # So much that no correction makes June's invoice negative.

type Row = dict[str, Any]
type Place = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something of the organization's own, from one hour of May to another: a row, or a percentage."""

    start: int
    end: int | None
    row: Row | None
    percent: int = 0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """GPUs from one minute of May to another."""

    place: Place
    start: int
    minutes: int
    milli_gpus: int


@dataclass(frozen=True, kw_only=True)
class Story:
    first: list[Row]
    second: list[Row]
    second_from: int
    changes: list[Change]
    added: list[Row]
    early: list[Usage]
    open: list[Usage]
    late: list[Usage]


# --- the model


def cost(row: Row, quantity: Fraction) -> Fraction:
    """Return what GPU-hours of a month cost by a row."""
    if not quantity:
        return Fraction(0)
    if row["model"] == "per_unit":
        return quantity * Fraction(row["unit_price"])
    if row["model"] == "package":
        paid = max(quantity - Fraction(row["free_units"]), Fraction(0))
        return ceil(paid / Fraction(row["package_size"])) * Fraction(row["package_price"])
    total, below = Fraction(0), Fraction(0)
    for tier in row["tiers"]:
        bound = None if tier["up_to"] is None else Fraction(tier["up_to"])
        inside = quantity if bound is None else min(quantity, bound)
        if row["model"] == "volume" and (bound is None or quantity <= bound):
            return quantity * Fraction(tier["unit_price"]) + Fraction(tier["flat_fee"])
        if row["model"] == "graduated" and quantity > below:
            total += (inside - below) * Fraction(tier["unit_price"]) + Fraction(tier["flat_fee"])
        below = inside
    return total


def cheaper(row: Row, percent: int) -> Row:
    """Return a row with every price changed by a percentage, to ten decimals, half up."""

    def changed(price: str) -> str:
        exact = Fraction(price) * (100 + percent) / 100 * 10**10
        return f"{Decimal(floor(exact + Fraction(1, 2))).scaleb(-10):f}"

    found = {name: changed(row[name]) if name.endswith("_price") else row[name] for name in row}
    if "tiers" in row:
        found["tiers"] = [
            {**tier, "unit_price": changed(tier["unit_price"]), "flat_fee": changed(tier["flat_fee"])}
            for tier in row["tiers"]
        ]
    return found


def best(rows: list[Row], place: Place) -> Row | None:
    for sku, region in ((place[0], place[1]), (place[0], "*"), ("*", place[1]), ("*", "*")):
        for row in rows:
            if (row["sku"], row["region"]) == (sku, region):
                return row
    return None


def in_force(story: Story, place: Place, hour: int) -> tuple[str, Row] | None:
    """Return the price at an hour with a name that stays while nothing about it changes."""
    live = [
        change
        for change in story.changes
        if change.start <= hour and (change.end is None or hour < change.end)
    ]
    own = best([change.row for change in live if change.row], place)
    if own is not None:
        return f"own {own}", own
    row = best(story.first if hour < story.second_from else story.second, place)
    if row is None:
        return None
    percent = next((change.percent for change in live if change.row is None), 0)
    return (f"{percent} {row}", cheaper(row, percent)) if percent else (f"book {row}", row)


def price_of(story: Story, place: Place, hour: int) -> tuple[str, Row] | None:
    """Return what prices an hour: changes of per-unit prices act at once, tiers hold to the month's end."""
    found = in_force(story, place, 0)
    for moment in range(1, hour + 1):
        successor = in_force(story, place, moment)
        if found and successor and found[0] == successor[0]:
            continue
        sides = [side[1]["model"] for side in (found, successor) if side]
        if found and any(model != "per_unit" for model in sides):
            return found
        found = successor
    return found


def hours_of(usage: list[Usage]) -> dict[Place, dict[int, Fraction]]:
    """Return GPU-hours by place and hour."""
    found: dict[Place, dict[int, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    for one in usage:
        for minute in range(one.start, one.start + one.minutes):
            found[one.place][minute // 60] += Fraction(one.milli_gpus, 60_000)
    return found


def half_up(amount: Fraction, decimals: int) -> int:
    return floor(amount * 10**decimals + Fraction(1, 2))


def expected(
    story: Story, usage: list[Usage]
) -> tuple[dict[tuple[Place, str], int], dict[tuple[Place, int], int]]:
    """Return the cents of every price's usage, and the micros of every hour."""
    cents: dict[tuple[Place, str], int] = {}
    micros: dict[tuple[Place, int], int] = {}
    for place, hours in hours_of(usage).items():
        totals: dict[str, Fraction] = defaultdict(Fraction)
        for hour in sorted(hours):
            price = price_of(story, place, hour)
            if price is None:
                micros[place, hour] = 0
                continue
            name, row = price
            before = half_up(cost(row, totals[name]), 6)
            totals[name] += hours[hour]
            micros[place, hour] = half_up(cost(row, totals[name]), 6) - before
            cents[place, name] = half_up(cost(row, totals[name]), 2)
    return cents, micros


# --- the stories


amounts = st.sampled_from(["0", "0.0000000007", "0.333", "1", "2.4900000001", "7.77"])
fees = st.sampled_from(["0", "0", "1", "0.0000000003"])
bounds = st.sampled_from(["0.5", "1", "2", "3.000001", "6"])


@st.composite
def terms(draw: st.DrawFn) -> Row:
    model = draw(st.sampled_from(["per_unit", "per_unit", "graduated", "volume", "package"]))
    if model == "per_unit":
        return {"model": model, "unit_price": draw(amounts)}
    if model == "package":
        size, free = draw(bounds), draw(st.sampled_from(["0", "0.5", "2"]))
        return {"model": model, "package_size": size, "package_price": draw(amounts), "free_units": free}
    ends: list[str | None] = [*sorted(draw(st.sets(bounds, max_size=2)), key=Fraction), None]
    return {
        "model": model,
        "tiers": [{"up_to": end, "unit_price": draw(amounts), "flat_fee": draw(fees)} for end in ends],
    }


patterns = st.tuples(st.sampled_from([*SKUS, "*"]), st.sampled_from([*REGIONS, "*"]))


@st.composite
def books(draw: st.DrawFn, before: list[Row] | None = None) -> list[Row]:
    """Draw the rows of a version; some are those of the one before it."""
    kept = {(row["sku"], row["region"]): row for row in before or () if draw(st.booleans())}
    drawn = {place: draw(terms()) for place in draw(st.sets(patterns, min_size=0 if kept else 1, max_size=3))}
    new = {
        place: {"meter": "gpu_hours", "sku": place[0], "region": place[1], **row}
        for place, row in drawn.items()
    }
    return list((new | kept).values())


@st.composite
def overrides(draw: st.DrawFn) -> list[Change]:
    """Draw at most one percentage and one price for each of at most two targets."""
    changes = []
    targets = draw(st.lists(patterns, unique=True, max_size=2))
    for place in [None, *targets] if draw(st.booleans()) else targets:
        start = draw(st.integers(TICK, END))
        row = place and {"meter": "gpu_hours", "sku": place[0], "region": place[1], **draw(terms())}
        end = draw(st.none() | st.integers(start + 1, END + 2))
        changes.append(
            Change(
                start=start, end=end, row=row, percent=0 if row else draw(st.sampled_from([-100, -33, 15]))
            )
        )
    return changes


@st.composite
def additions(draw: st.DrawFn, second: list[Row]) -> list[Row]:
    """Draw rows that the first version is to get late; some are those of the second."""
    follows = {(row["sku"], row["region"]): row for row in second}
    found = []
    for place in draw(st.lists(patterns, unique=True, max_size=2)):
        row = {"meter": "gpu_hours", "sku": place[0], "region": place[1], **draw(terms())}
        found.append(follows[place] if place in follows and draw(st.booleans()) else row)
    return found


def usages(hour_max: int) -> st.SearchStrategy[list[Usage]]:
    one = st.builds(
        Usage,
        place=st.tuples(st.sampled_from(SKUS), st.sampled_from(REGIONS)),
        start=st.integers(0, hour_max * 60 - 1),
        minutes=st.integers(1, 150),
        milli_gpus=st.sampled_from([1, 333, 1_000, 8_000]),
    )
    return st.lists(one, max_size=4)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    first = draw(books())
    second = draw(books(first))
    return Story(
        first=first,
        second=second,
        second_from=draw(st.integers(TICK, END)),
        changes=draw(overrides()),
        added=draw(additions(second)),
        early=draw(usages(1)),  # At most 150 minutes, so that all of it ends before the tick.
        open=draw(usages(END)),
        late=draw(usages(END)),
    )


# --- the pipeline


def at(hour: int) -> datetime:
    return MAY + hour * HOUR


def send(lab: Organization, usage: list[Usage]) -> None:
    sent = [
        build.usage_event(
            lab,
            MAY + timedelta(minutes=one.start),
            MAY + timedelta(minutes=one.start + one.minutes),
            sku=one.place[0],
            region=one.place[1],
            gpus=f"{Decimal(one.milli_gpus).scaleb(-3):f}",
        )
        for one in usage
    ]
    if sent:
        build.events(*sent, now=LATER)


def change(lab: Organization, one: Change) -> None:
    dates: dict[str, Any] = {
        "actor": build.actor(),
        "organization": lab,
        "effective_from": at(one.start),
        "effective_to": None if one.end is None else at(one.end),
        "now": LATER,
    }
    if one.row is None:
        pricing.override_by_percent(percent=Decimal(one.percent), **dates)
        return
    row, errors = read_row(one.row, path="")
    assert row is not None, errors
    pricing.override_price(row=row, **dates)


def add(version: PriceBookVersion, rows: list[Row]) -> list[Row]:
    """Add to a version what it may still get, and return that."""
    added = []
    for fields in rows:
        row, errors = read_row(fields, path="")
        assert row is not None, errors
        try:
            pricing.add_price_to_published(actor=build.actor(), version=version, row=row, now=LATER)
        except pricing.PriceExists:
            continue
        added.append(fields)
    return added


def invoiced(lab: Organization) -> dict[Place, int]:
    """Return the cents of May's usage by place, on whichever invoice."""
    found: dict[Place, int] = defaultdict(int)
    for line in InvoiceLine.objects.filter(organization=lab, usage_period="2026-05", meter="gpu_hours"):
        found[line.sku, line.region] += line.amount_minor
    return {place: cents for place, cents in found.items() if cents}


def by_place(cents: dict[tuple[Place, str], int]) -> dict[Place, int]:
    found: dict[Place, int] = defaultdict(int)
    for (place, _name), amount in cents.items():
        found[place] += amount
    return {place: amount for place, amount in found.items() if amount}


def charged(lab: Organization) -> dict[tuple[Place, int], int]:
    """Return the micros of every hour of May with usage."""
    hours = ChargeHour.objects.filter(key__organization=lab, key__meter="gpu_hours", quantity__gt=0)
    return {
        ((row.key.sku, row.key.region), (row.hour - MAY) // HOUR): row.amount_micros
        for row in hours.select_related("key")
    }


@pytest.fixture
def catalog(db: None) -> None:
    for entry in (*(Sku(code=code) for code in SKUS), *(Region(code=code) for code in REGIONS)):
        pricing.save_entry(actor=build.actor(), entry=entry)
    build.price_book({"meter": "requests", "unit_price": "1"}, name="Never a default", currency="EUR")


@settings(
    max_examples=examples(25),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(story=stories())
def test_invoice_lines_are_what_a_straightforward_model_says(catalog: None, story: Story) -> None:
    with transaction.atomic():
        lab = build.organization("lab", now=MAY)
        rent = {"meter": "requests", "unit_price": "1"}
        version = build.price_book(*story.first, rent, name="Standard")
        send(lab, story.early)
        build.metered(lab, at(TICK), now=LATER)
        build.price_book(*story.second, rent, name="Standard", effective_from=at(story.second_from))
        for one in story.changes:
            change(lab, one)

        send(lab, story.open)
        build.metered(lab, at(END + 3), now=LATER)
        story = replace(story, first=[*story.first, *add(version, story.added)])
        build.closed(lab, "2026-05", now=LATER)
        cents, micros = expected(story, story.early + story.open)
        assert invoiced(lab) == by_place(cents)
        assert charged(lab) == micros

        send(lab, story.late)
        build.events(
            {
                "specversion": "1.0",
                "id": "rent",
                "source": "tests",
                "type": "usage.recorded",
                "time": (JUNE + HOUR).isoformat(),
                "data": {
                    "organization": lab.slug,
                    "sku": "h100",
                    "region": "eu",
                    "meter": "requests",
                    "quantity": str(JUNE_RENT),
                },
            },
            now=LATER,
        )
        build.closed(lab, "2026-06", now=LATER)

        cents, micros = expected(story, story.early + story.open + story.late)
        assert invoiced(lab) == by_place(cents)
        assert charged(lab) == micros
        assert failing() == []
        for label in ("2026-05", "2026-06"):
            period = BillingPeriod.objects.get(organization=lab, label=label)
            assert replay.replay(lab, period).differences == ()
        transaction.set_rollback(True)
