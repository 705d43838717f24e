"""The public contract: catalog, regions, prices, estimates; and whose prices a caller sees."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from rest_framework.test import APIClient

from apps.core.permissions import IntegrationScope
from apps.organizations.models import Organization
from apps.pricing import services
from apps.pricing.models import Sku
from apps.pricing.rows import read_row
from tests import build

pytestmark = pytest.mark.django_db

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
TIERS = [{"up_to": "10", "unit_price": "10", "flat_fee": "2"}, {"up_to": None, "unit_price": "5"}]


@pytest.fixture
def standard() -> Any:
    version = build.price_book(
        {"sku": "h100", "unit_price": "2.49"},
        {"sku": "h100", "region": "us", "unit_price": "2.99"},
        {"sku": "a100", "region": "eu", "model": "graduated", "tiers": TIERS},
        {
            "meter": "egress_gb",
            "model": "package",
            "package_size": "100",
            "package_price": "5",
            "free_units": "100",
        },
        {"meter": "tokens", "unit_price": "0.0000001234"},
        name="Standard",
        effective_from=SINCE,
    )
    facts = {"accelerator": "H100", "gpus": "8", "vcpus": "128", "memory_gib": "1600"}
    Sku.objects.filter(code="h100").update(name="H100 SXM", family="H100", attributes=facts)
    return version


@pytest.fixture
def special(standard: Any) -> tuple[Organization, APIClient]:
    """Return an organization with a book of its own, and its client."""
    organization = build.organization()
    version = build.price_book({"sku": "h100", "unit_price": "1.5"}, name="Special", effective_from=SINCE)
    services.assign_book(
        actor=build.actor(),
        organization=organization,
        book=version.book,
        effective_from=SINCE,
        now=build.NOW,
    )
    return organization, build.client(build.api_key(organization))


def estimate(client: APIClient, *items: dict[str, Any], **fields: Any) -> Any:
    defaults = {"meter": "gpu_hours", "sku": "h100", "region": "eu"}
    body = {"items": [{**defaults, **item} for item in items], **fields}
    return client.post("/api/v1/pricing/estimate", body, format="json")


def lines(answer: Any) -> list[tuple[str, str]]:
    assert answer.status_code == 200, answer.content
    return [(line["amount"], line["amount_exact"]) for line in answer.json()["lines"]]


def errors(answer: Any) -> list[tuple[str, str]]:
    assert answer.status_code == 422, answer.content
    return [(field["path"], field["code"]) for field in answer.json()["details"]["fields"]]


# Catalog


@pytest.mark.parametrize("path", ["catalog", "machine-types", "resources"])
def test_the_catalog_lists_what_is_sold_with_its_prices(standard: Any, path: str) -> None:
    answer = build.client().get(f"/api/v1/{path}")

    assert answer.status_code == 200
    assert answer.json() == {
        "data": [
            {
                "sku": "a100",
                "name": "a100",
                "family": "",
                "accelerator": None,
                "gpus": None,
                "vcpus": None,
                "memory_gib": None,
                "currency": "USD",
                "prices": [{"meter": "gpu_hours", "region": "eu", "model": "graduated", "unit_price": None}],
            },
            {
                "sku": "h100",
                "name": "H100 SXM",
                "family": "H100",
                "accelerator": "H100",
                "gpus": "8",
                "vcpus": "128",
                "memory_gib": "1600",
                "currency": "USD",
                "prices": [
                    {"meter": "gpu_hours", "region": "us", "model": "per_unit", "unit_price": "2.99"},
                    {"meter": "gpu_hours", "region": "*", "model": "per_unit", "unit_price": "2.49"},
                ],
            },
        ],
        "has_more": False,
        "next_cursor": None,
    }


def test_the_catalog_is_filtered_and_paged(standard: Any) -> None:
    client = build.client()

    assert [row["sku"] for row in client.get("/api/v1/catalog?accelerator=h100").json()["data"]] == ["h100"]
    assert [row["sku"] for row in client.get("/api/v1/catalog?family=H100").json()["data"]] == ["h100"]
    page = client.get("/api/v1/catalog?limit=1").json()
    assert page["has_more"]
    following = client.get(f"/api/v1/catalog?limit=1&cursor={page['next_cursor']}").json()
    assert [row["sku"] for row in page["data"] + following["data"]] == ["a100", "h100"]
    assert client.get("/api/v1/catalog?colour=green").status_code == 400


def test_a_price_for_any_sku_shows_where_none_of_its_own_hides_it() -> None:
    build.price_book(
        {"unit_price": "9"},
        {"region": "us", "unit_price": "8"},
        {"sku": "l4", "region": "us", "unit_price": "1"},
    )

    (row,) = build.client().get("/api/v1/catalog").json()["data"]

    assert [(price["region"], price["unit_price"]) for price in row["prices"]] == [("us", "1"), ("*", "9")]


def test_regions(standard: Any) -> None:
    client = build.client()

    assert client.get("/api/v1/regions").json()["data"] == [
        {"code": "eu", "name": "eu"},
        {"code": "us", "name": "us"},
    ]
    assert client.get("/v1/regions/eu").json() == {"code": "eu", "name": "eu"}
    for code in ("mars", "%00", "e%00u"):
        missing = client.get(f"/api/v1/regions/{code}")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


# The price book


@pytest.mark.parametrize("path", ["pricing", "resources/prices"])
def test_the_book_in_force_across_all_meters(standard: Any, path: str) -> None:
    answer = build.client().get(f"/api/v1/{path}")

    rows = answer.json()["data"]
    assert [(row["meter"], row["sku"], row["region"]) for row in rows] == [
        ("egress_gb", "*", "*"),
        ("gpu_hours", "a100", "eu"),
        ("gpu_hours", "h100", "*"),
        ("gpu_hours", "h100", "us"),
        ("tokens", "*", "*"),
    ]
    assert rows[2] == {
        "meter": "gpu_hours",
        "unit": "GPU-hour",
        "sku": "h100",
        "region": "*",
        "model": "per_unit",
        "currency": "USD",
        "unit_price": "2.49",
        "tiers": None,
        "package_size": None,
        "package_price": None,
        "free_units": None,
        "negotiated": False,
        "price_book": "Standard",
        "version": 1,
        "effective_from": "2026-01-01T00:00:00Z",
    }
    assert rows[1]["tiers"] == [
        {"up_to": "10", "unit_price": "10", "flat_fee": "2"},
        {"up_to": None, "unit_price": "5", "flat_fee": "0"},
    ]
    assert [rows[0][name] for name in ("package_size", "package_price", "free_units")] == ["100", "5", "100"]


def test_prices_are_filtered_and_paged(standard: Any) -> None:
    client = build.client()

    assert len(client.get("/api/v1/pricing?meter=gpu_hours&sku=h100").json()["data"]) == 2
    seen: list[str] = []
    cursor = ""
    while True:
        page = client.get(f"/api/v1/pricing?limit=2&cursor={cursor}").json()
        seen += [f"{row['meter']} {row['sku']} {row['region']}" for row in page["data"]]
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break
    assert len(seen) == len(set(seen)) == 5


def test_without_prices_the_list_is_empty() -> None:
    assert build.client().get("/api/v1/pricing").json() == {
        "data": [],
        "has_more": False,
        "next_cursor": None,
    }


def test_an_organization_sees_its_own_book(special: tuple[Organization, APIClient]) -> None:
    _organization, client = special

    (row,) = client.get("/api/v1/pricing").json()["data"]
    assert (row["price_book"], row["unit_price"]) == ("Special", "1.5")
    catalog = {row["sku"]: row["prices"] for row in client.get("/api/v1/catalog").json()["data"]}
    assert catalog["h100"][0]["unit_price"] == "1.5"
    assert catalog.keys() == {"h100"}  # What has no price in the book in force is not sold.
    assert len(build.client().get("/api/v1/pricing").json()["data"]) == 5


def test_an_organization_sees_what_it_pays_instead(standard: Any) -> None:
    organization = build.organization()
    fields = {"actor": build.actor(), "organization": organization, "effective_from": SINCE, "now": build.NOW}
    services.override_by_percent(percent=Decimal(-50), **fields)
    own, _errors = read_row({"meter": "gpu_hours", "sku": "h100", "region": "*", "unit_price": "2"}, path="")
    assert own is not None
    services.override_price(row=own, **fields)
    client = build.client(build.api_key(organization))

    rows, cursor = [], ""
    while True:
        page = client.get(f"/api/v1/pricing?limit=1{cursor}").json()
        rows += page["data"]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"

    found = {(row["meter"], row["sku"], row["region"]): row for row in rows}
    assert len(found) == len(rows) == 4  # The price in the US is hidden by their own.
    assert all(row["negotiated"] for row in rows)
    mine = found["gpu_hours", "h100", "*"]
    assert (mine["unit_price"], mine["price_book"], mine["version"]) == ("2", None, None)
    assert found["gpu_hours", "a100", "eu"]["tiers"][0] == {"up_to": "10", "unit_price": "5", "flat_fee": "1"}
    assert found["egress_gb", "*", "*"]["package_price"] == "2.5"
    assert [row["sku"] for row in client.get("/api/v1/pricing?sku=h100").json()["data"]] == ["h100"]
    catalog = client.get("/api/v1/catalog").json()["data"]
    assert [(row["sku"], [price["unit_price"] for price in row["prices"]]) for row in catalog] == [
        ("a100", [None]),
        ("h100", ["2"]),
    ]


def test_lists_take_a_fixed_number_of_queries(standard: Any, django_assert_num_queries: Any) -> None:
    rows = [{"sku": f"sku-{number}", "unit_price": "1"} for number in range(30)]
    build.price_book(*rows, name="Standard", effective_from=SINCE.replace(month=2))
    client = build.client()

    with django_assert_num_queries(2):  # The version in force, its rows.
        assert len(client.get("/api/v1/pricing").json()["data"]) == 30
    with django_assert_num_queries(2):  # The SKUs, the version in force with its rows.
        assert len(client.get("/api/v1/catalog").json()["data"]) == 30


def test_a_wrong_key_is_refused_even_where_none_is_needed(standard: Any) -> None:
    assert build.client("ch_live_00000000_nonsense").get("/api/v1/pricing").status_code == 401


# Estimates


def test_an_estimate_is_rounded_as_an_invoice_is(standard: Any) -> None:
    answer = estimate(
        build.client(),
        {"quantity": "8"},
        {"quantity": "0.000001", "region": "us"},
        {"meter": "tokens", "quantity": "40518", "sku": "", "region": ""},
    )

    assert lines(answer) == [
        ("19.92", "19.92"),
        ("0.00", "0.00000299"),
        ("0.00", "0.0049999212"),
    ]
    body = answer.json()
    assert (body["total"], body["currency"]) == ("19.92", "USD")
    assert body["lines"][0] == {
        "meter": "gpu_hours",
        "sku": "h100",
        "region": "eu",
        "quantity": "8",
        "unit_price": "2.49",
        "amount": "19.92",
        "amount_exact": "19.92",
        "tiers": [
            {"up_to": None, "quantity": "8", "unit_price": "2.49", "flat_fee": "0", "amount": "19.92"},
        ],
    }


def test_half_a_cent_rounds_up(standard: Any) -> None:
    build.price_book({"unit_price": "0.005"}, name="Halves", currency="USD", effective_from=SINCE)
    client = build.client(build.integration([IntegrationScope.PRICING_MANAGE]))

    assert lines(estimate(client, {"quantity": "1"}, price_book="Halves")) == [("0.01", "0.005")]


def test_tiers_are_broken_down(standard: Any) -> None:
    answer = estimate(build.client(), {"sku": "a100", "quantity": "12.5"})

    assert lines(answer) == [("114.50", "114.5")]
    assert answer.json()["lines"][0]["unit_price"] is None
    assert answer.json()["lines"][0]["tiers"] == [
        {"up_to": "10", "quantity": "10", "unit_price": "10", "flat_fee": "2", "amount": "102"},
        {"up_to": None, "quantity": "2.5", "unit_price": "5", "flat_fee": "0", "amount": "12.5"},
    ]


def test_packages_are_sold_whole(standard: Any) -> None:
    answer = estimate(build.client(), {"meter": "egress_gb", "quantity": "201"})

    assert lines(answer) == [("10.00", "10")]
    assert answer.json()["lines"][0]["tiers"] == [
        {"up_to": "100", "quantity": "100", "unit_price": "0", "flat_fee": "0", "amount": "0"},
        {"up_to": None, "quantity": "101", "unit_price": None, "flat_fee": "0", "amount": "10"},
    ]


def test_the_total_is_the_sum_of_the_rounded_lines() -> None:
    build.price_book({"unit_price": "0.005"}, effective_from=SINCE)

    items = [{"sku": "", "region": "", "quantity": "1"}] * 3
    assert estimate(build.client(), *items).json()["total"] == "0.03"


def test_currencies_have_their_own_minor_units() -> None:
    organization = build.organization(currency="JPY")
    build.price_book({"unit_price": "100.5"}, currency="JPY", effective_from=SINCE)

    answer = estimate(build.client(build.api_key(organization)), {"sku": "", "region": "", "quantity": "1"})

    assert lines(answer) == [("101", "100.5")]
    assert (answer.json()["total"], answer.json()["currency"]) == ("101", "JPY")


def test_an_estimate_at_another_time(standard: Any) -> None:
    build.price_book(
        {"sku": "h100", "unit_price": "4"}, name="Standard", effective_from=SINCE.replace(year=2030)
    )
    client = build.client()

    assert lines(estimate(client, {"quantity": "1"}, at="2029-12-31T23:59:59Z")) == [("2.49", "2.49")]
    assert lines(estimate(client, {"quantity": "1"}, at="2030-01-01T00:00:00Z")) == [("4.00", "4")]
    assert errors(estimate(client, {"quantity": "1"}, at="2025-12-31T23:59:59Z")) == [("items.0", "unpriced")]
    assert lines(estimate(client, {"quantity": "1"}, at="9999-12-31T22:59:59Z")) == [("4.00", "4")]
    assert errors(estimate(client, {"quantity": "1"}, at="9999-12-31T23:00:00Z")) == [("at", "invalid")]


def test_everything_wrong_is_named(standard: Any) -> None:
    client = build.client()

    assert errors(
        estimate(
            client,
            {"sku": "h1000", "quantity": "1"},
            {"quantity": "1"},
            {"meter": "gpus", "region": "mars", "quantity": "1"},
            {"sku": "a100", "region": "us", "quantity": "1"},
        )
    ) == [
        ("items.0.sku", "unknown"),
        ("items.2.meter", "unknown"),
        ("items.2.region", "unknown"),
        ("items.3", "unpriced"),
    ]
    for quantity in ("-1", "NaN", "Infinity", "1e40", "0.0000001", "many", None, True, ["1"], {}):
        paths = [path for path, _code in errors(estimate(client, {"quantity": quantity}))]
        assert paths == ["items.0.quantity"], quantity
    assert errors(client.post("/api/v1/pricing/estimate", {}, format="json")) == [("items", "required")]
    assert [path for path, _code in errors(estimate(client))] == ["items"]
    assert [path for path, _code in errors(estimate(client, *[{"quantity": "1"}] * 101))] == ["items"]
    assert [path for path, _code in errors(estimate(client, {"quantity": "1"}, at="2026-05-01"))] == ["at"]


def test_another_customers_book_looks_like_none(special: tuple[Organization, APIClient]) -> None:
    _organization, client = special
    other = build.client(build.api_key(build.organization()))
    staff = build.client(build.integration([IntegrationScope.PRICING_MANAGE]))

    assert lines(estimate(client, {"quantity": "1"})) == [("1.50", "1.5")]
    assert lines(estimate(client, {"quantity": "1"}, price_book="Special")) == [("1.50", "1.5")]
    assert lines(estimate(staff, {"quantity": "1"}, price_book="Special")) == [("1.50", "1.5")]
    for stranger in (build.client(), other):
        assert errors(estimate(stranger, {"quantity": "1"}, price_book="Special")) == [
            ("price_book", "unknown")
        ]
        assert errors(estimate(stranger, {"quantity": "1"}, price_book="Nobody's")) == [
            ("price_book", "unknown")
        ]


def test_zero_usage_costs_nothing(standard: Any) -> None:
    answer = estimate(build.client(), {"sku": "a100", "quantity": "0"})

    assert lines(answer) == [("0.00", "0")]
    assert answer.json()["lines"][0]["tiers"] == []
