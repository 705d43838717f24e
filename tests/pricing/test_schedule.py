"""Which price applies when: most specific, by date, by assignment, and tiers that hold to the period's end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.organizations.models import Organization
from apps.pricing import selectors, services
from apps.pricing.models import PriceBookVersion
from apps.pricing.selectors import PriceSchedule
from tests import build

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("rated")]

MAY = datetime(2026, 5, 1, tzinfo=UTC)
MID = datetime(2026, 5, 10, tzinfo=UTC)
LATE = datetime(2026, 5, 20, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

TIERS = [{"up_to": "10", "unit_price": "3"}, {"up_to": None, "unit_price": "2"}]
OTHER_TIERS = [{"up_to": "20", "unit_price": "3"}, {"up_to": None, "unit_price": "2"}]


def per_unit(price: str) -> dict[str, Any]:
    return {"sku": "h100", "unit_price": price}


def tiered(tiers: list[dict[str, Any]] = TIERS) -> dict[str, Any]:
    return {"sku": "h100", "model": "graduated", "tiers": tiers}


def book(
    *rows: dict[str, Any], since: datetime = MAY, name: str = "Standard", **fields: Any
) -> PriceBookVersion:
    return build.price_book(*rows, name=name, effective_from=since, **fields)


def assign(organization: Organization, version: PriceBookVersion, since: datetime) -> None:
    services.assign_book(
        actor=build.actor(organization),
        organization=organization,
        book=version.book,
        effective_from=since,
        now=build.NOW,
    )


def schedule(organization: Organization | None = None, **fields: Any) -> PriceSchedule:
    organization_id = organization.pk if organization else None
    return selectors.schedule(
        organization_id=organization_id, **{"currency": "USD", "start": MAY, "end": JULY, **fields}
    )


def price_at(prices: PriceSchedule, hour: datetime, sku: str = "h100", region: str = "eu") -> str | None:
    terms = prices.terms_at("gpu_hours", sku, region, hour)
    return None if terms is None else str(terms.unit_price and terms.unit_price.normalize())


def price_for(prices: PriceSchedule, hour: datetime, period_start: datetime = MAY) -> str | None:
    """Name the row that prices an hour of a period: its unit price, or the first bound of its tiers."""
    terms = prices.terms_for("gpu_hours", "h100", "eu", hour, period_start)
    if terms is None:
        return None
    return f"to {terms.tiers[0].up_to}" if terms.is_tiered else str((terms.unit_price or 0) + 0).rstrip("0.")


def test_the_most_specific_row_wins() -> None:
    book(
        {"unit_price": "4"},
        {"unit_price": "3", "region": "eu"},
        {"unit_price": "2", "sku": "h100"},
        {"unit_price": "1", "sku": "h100", "region": "eu"},
    )
    prices = schedule()

    assert price_at(prices, MAY, "h100", "eu") == "1"
    assert price_at(prices, MAY, "h100", "us") == "2"
    assert price_at(prices, MAY, "a100", "eu") == "3"
    assert price_at(prices, MAY, "a100", "us") == "4"
    assert prices.terms_at("tokens", "a100", "us", MAY) is None


def test_a_version_is_in_force_from_its_hour_on() -> None:
    first = book(per_unit("1"))
    second = book(per_unit("2"), since=MID)
    prices = schedule()

    assert price_at(prices, MID - timedelta(microseconds=1)) == "1"
    assert price_at(prices, MID) == "2"
    assert prices.version_at(MID - HOUR) == first
    assert prices.version_at(JULY - HOUR) == second


def test_nothing_has_a_price_before_the_first_version() -> None:
    book(per_unit("1"), since=MID)
    prices = schedule()

    assert price_at(prices, MID - HOUR) is None
    assert price_at(prices, MID) == "1"


def test_a_piece_of_an_hour_has_the_price_of_the_whole_hour() -> None:
    """A period that starts at half past, as in India, cuts the hour; prices do not change there."""
    start = MAY - timedelta(hours=5, minutes=30)
    book(per_unit("1"), since=MAY - timedelta(days=3))
    book(per_unit("2"), since=MAY - timedelta(hours=6))
    prices = schedule(start=start)

    assert price_at(prices, start) == "2"
    assert price_for(prices, start, start) == "2"


def test_the_default_is_the_book_published_first_that_is_not_the_demonstration() -> None:
    book(per_unit("9"), name="Demonstration", is_demonstration=True, now=build.NOW)
    book(per_unit("1"), name="Standard", now=build.NOW + HOUR)
    book(per_unit("2"), name="Another", now=build.NOW + 2 * HOUR)
    book(per_unit("3"), name="Euro", currency="EUR", now=build.NOW)

    assert price_at(schedule(), MAY) == "1"
    assert price_at(schedule(currency="EUR"), MAY) == "3"
    assert price_at(schedule(currency="CHF"), MAY) is None


def test_a_draft_prices_nothing() -> None:
    services.create_book(actor=build.actor(), name="Drafted", currency="USD", now=build.NOW)

    assert schedule().segments[0].version is None


def test_an_assignment_comes_before_the_default_while_it_lasts() -> None:
    organization = build.organization()
    book(per_unit("1"))
    special = book(per_unit("2"), name="Special")
    assign(organization, special, MID)
    prices = schedule(organization)

    assert price_at(prices, MID - HOUR) == "1"
    assert price_at(prices, MID) == "2"
    assert price_at(schedule(build.organization()), MID) == "1"


def test_the_default_book_can_be_assigned_as_well() -> None:
    organization = build.organization()
    default = book(per_unit("1"))
    special = book(per_unit("2"), name="Special")
    assign(organization, special, MID)
    assign(organization, default, LATE)
    prices = schedule(organization)

    assert [price_at(prices, moment) for moment in (MAY, MID, LATE)] == ["1", "2", "1"]


def test_a_book_in_another_currency_is_never_used() -> None:
    organization = build.organization(currency="EUR")
    book(per_unit("1"))
    assign(organization, book(per_unit("2"), name="Euro", currency="EUR"), MAY)

    assert price_at(schedule(organization, currency="EUR"), MAY) == "2"
    assert price_at(schedule(organization, currency="USD"), MAY) == "1"


def test_an_unchanged_row_continues_its_key() -> None:
    book(per_unit("1"), {"sku": "a100", "unit_price": "5"})
    book({"sku": "h100", "unit_price": "1.0"}, {"sku": "a100", "unit_price": "6"}, since=MID)
    prices = schedule()

    def keys(sku: str) -> list[Any]:
        found = [prices.terms_at("gpu_hours", sku, "eu", moment) for moment in (MAY, MID)]
        return [terms and terms.key_id for terms in found]

    assert keys("h100")[0] == keys("h100")[1]
    assert keys("a100")[0] != keys("a100")[1]


def test_per_unit_changes_act_at_once() -> None:
    book(per_unit("1"))
    book(per_unit("2"), since=MID)
    book(per_unit("3"), since=LATE)
    prices = schedule()

    assert [price_for(prices, moment) for moment in (MAY, MID, LATE)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("before", "after", "held", "followed"),
    [
        (tiered(), tiered(OTHER_TIERS), "to 10", "to 20"),
        (tiered(), per_unit("2"), "to 10", "2"),
        (per_unit("1"), tiered(), "1", "to 10"),
    ],
)
def test_tiers_hold_to_the_end_of_the_period(
    before: dict[str, Any], after: dict[str, Any], held: str, followed: str
) -> None:
    book(before)
    book(after, since=MID)
    prices = schedule()

    assert price_for(prices, MID - HOUR) == held
    assert price_for(prices, MID) == held
    assert price_for(prices, JUNE - HOUR) == held
    assert price_for(prices, JUNE, JUNE) == followed
    # The row in force is another matter than the one that rates.
    assert prices.terms_at("gpu_hours", "h100", "eu", MID) == prices.terms_for(
        "gpu_hours", "h100", "eu", JUNE, JUNE
    )


def test_what_held_once_holds_through_every_later_change() -> None:
    book(per_unit("1"))
    book(per_unit("2"), since=MID)
    book(tiered(), since=MID + HOUR)
    book(per_unit("4"), since=LATE)
    prices = schedule()

    assert [price_for(prices, moment) for moment in (MAY, MID, MID + HOUR, LATE)] == ["1", "2", "2", "2"]
    assert price_for(prices, JUNE, JUNE) == "4"


def test_unchanged_tiers_are_no_change() -> None:
    book(tiered(), {"sku": "a100", "unit_price": "1"})
    book(tiered(), since=MID)
    prices = schedule()

    first, second = (prices.terms_for("gpu_hours", "h100", "eu", moment, MAY) for moment in (MAY, MID))
    assert first is not None
    assert second is not None
    assert first.key_id == second.key_id
    assert first.price_id != second.price_id


def test_tiers_hold_through_an_assignment_and_through_a_row_that_disappears() -> None:
    organization = build.organization()
    book(tiered())
    assign(organization, book({"sku": "a100", "unit_price": "1"}, name="Special"), MID)
    prices = schedule(organization)

    assert price_at(prices, MID) is None
    assert price_for(prices, MID) == "to 10"
    assert price_for(prices, JUNE, JUNE) is None


def test_per_unit_prices_end_with_their_row() -> None:
    book(per_unit("1"))
    book({"sku": "a100", "unit_price": "1"}, since=MID)

    assert price_for(schedule(), MID) is None


def test_a_first_price_acts_at_once_even_if_tiered() -> None:
    book({"sku": "a100", "unit_price": "1"})
    book(tiered(), {"sku": "a100", "unit_price": "1"}, since=MID)
    prices = schedule()

    assert price_for(prices, MAY) is None
    assert price_for(prices, MID) == "to 10"


def test_a_more_specific_row_of_a_new_version_is_a_change() -> None:
    book({"unit_price": "1"})
    book({"unit_price": "1"}, tiered(), since=MID)

    assert price_for(schedule(), MID) == "1"


def test_a_schedule_takes_one_query_whatever_its_size() -> None:
    organization = build.organization()
    for day in range(1, 6):
        rows = [{"sku": f"sku-{number}", "unit_price": f"{day}.{number:02}"} for number in range(20)]
        book(*rows, since=MAY + timedelta(days=day))
    assign(organization, book(per_unit("2"), name="Special"), MID)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        prices = schedule(organization)
        prices.terms_for("gpu_hours", "sku-3", "eu", LATE, MAY)
        prices.terms_at("gpu_hours", "sku-3", "eu", MAY)

    # Versions with their books, rows and assignments; overrides are asked for only where there are any.
    assert len(queries) == 1


def test_another_time_than_loaded_is_a_bug() -> None:
    book(per_unit("1"))
    prices = schedule(start=MID, end=JUNE)

    for moment in (MID - HOUR, JUNE):
        with pytest.raises(AssertionError):
            prices.terms_at("gpu_hours", "h100", "eu", moment)


def test_regions() -> None:
    book({"unit_price": "1", "region": "eu"})

    assert selectors.known_region("eu")
    assert not selectors.known_region("*")
    assert not selectors.known_region("us")
    assert selectors.region_codes() == {"eu"}
