"""What the database refuses by itself, in SQL."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import Error, IntegrityError, connection, transaction

from apps.core.ids import uuid7
from apps.pricing.models import BookAssignment, PriceBookVersion
from tests import build

pytestmark = pytest.mark.django_db

RESTRICTED = "23001"
EXCLUDED = "23P01"
CHECKED = "23514"
UNIQUE = "23505"
REFERRED = "23503"


def refused(sql: str, *values: Any) -> str:
    """Return the SQLSTATE with which PostgreSQL refuses a statement, at once or at commit."""
    with pytest.raises(Error) as error, transaction.atomic():
        run_to_commit(sql, *values)
    return str(error.value.__cause__.sqlstate)  # type: ignore[union-attr]


def run_to_commit(sql: str, *values: Any) -> None:
    run(sql, *values)
    run("SET CONSTRAINTS ALL IMMEDIATE")


def run(sql: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)


@pytest.fixture
def published() -> PriceBookVersion:
    return build.price_book(
        {"unit_price": "2.49", "sku": "h100"}, effective_from=build.NOW.replace(day=1, hour=0)
    )


@pytest.fixture
def draft(published: PriceBookVersion) -> Any:
    """Return the id of a draft of the same book, with one price for h100."""
    version_id = uuid7()
    run(
        "INSERT INTO pricing_pricebookversion (id, book_id, number, state, created_at, checksum)"
        " VALUES (%s, %s, 2, 'draft', now(), '')",
        version_id,
        published.book_id,
    )
    add_price(version_id)
    return version_id


INSERT_PRICE = (
    "INSERT INTO pricing_price (id, version_id, key_id, meter, sku, region, model, unit_price, tiers, package_size,"
    " package_price, free_units) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)


def price(version_id: Any, **columns: Any) -> list[Any]:
    row = {
        "id": uuid7(),
        "version_id": version_id,
        "key_id": uuid7(),
        "meter": "gpu_hours",
        "sku": "h100",
        "region": "*",
        "model": "per_unit",
        "unit_price": "1",
        "tiers": None,
        "package_size": None,
        "package_price": None,
        "free_units": None,
        **columns,
    }
    return list(row.values())


def add_price(version_id: Any, **columns: Any) -> None:
    run(INSERT_PRICE, *price(version_id, **columns))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE pricing_price SET unit_price = 1 WHERE version_id = %s",
        "UPDATE pricing_price SET key_id = gen_random_uuid() WHERE version_id = %s",
        "DELETE FROM pricing_price WHERE version_id = %s",
        "UPDATE pricing_pricebookversion SET effective_from = effective_from + interval '1 hour' WHERE id = %s",
        "UPDATE pricing_pricebookversion SET number = 7 WHERE id = %s",
        "UPDATE pricing_pricebookversion SET checksum = 'other' WHERE id = %s",
        "UPDATE pricing_pricebookversion SET published_at = now() WHERE id = %s",
        "UPDATE pricing_pricebookversion SET state = 'draft' WHERE id = %s",
        "DELETE FROM pricing_pricebookversion WHERE id = %s",
    ],
)
def test_a_published_version_never_changes(published: PriceBookVersion, change: str) -> None:
    assert refused(change, published.pk) == RESTRICTED


@pytest.mark.parametrize("table", ["pricing_price", "pricing_pricebookversion", "pricing_bookassignment"])
def test_nothing_is_truncated(table: str) -> None:
    assert refused(f"TRUNCATE {table} CASCADE") == RESTRICTED


def test_a_version_ends_once_and_retires_once(published: PriceBookVersion) -> None:
    end = "UPDATE pricing_pricebookversion SET effective_to = %s WHERE id = %s"
    retire = "UPDATE pricing_pricebookversion SET state = 'retired' WHERE id = %s"

    assert refused(retire, published.pk) == CHECKED
    run(end, "2026-06-01T00:00:00Z", published.pk)
    assert refused(end, "2026-07-01T00:00:00Z", published.pk) == RESTRICTED
    assert refused(end, None, published.pk) == RESTRICTED
    run(retire, published.pk)
    assert (
        refused("UPDATE pricing_pricebookversion SET state = 'published' WHERE id = %s", published.pk)
        == RESTRICTED
    )
    assert (
        refused("UPDATE pricing_price SET unit_price = 1 WHERE version_id = %s", published.pk) == RESTRICTED
    )


def test_a_draft_changes_freely_but_is_published_with_dates_only(draft: Any) -> None:
    run("UPDATE pricing_price SET unit_price = 7 WHERE version_id = %s", draft)
    publish = "UPDATE pricing_pricebookversion SET state = 'published' WHERE id = %s"

    assert refused(publish, draft) == CHECKED
    assert refused("UPDATE pricing_pricebookversion SET state = 'retired' WHERE id = %s", draft) == RESTRICTED
    assert refused("UPDATE pricing_pricebookversion SET effective_to = now() WHERE id = %s", draft) == CHECKED
    run("DELETE FROM pricing_price WHERE version_id = %s", draft)
    run("DELETE FROM pricing_pricebookversion WHERE id = %s", draft)


def test_published_versions_of_one_book_never_overlap(published: PriceBookVersion, draft: Any) -> None:
    publish = (
        "UPDATE pricing_pricebookversion SET state = 'published', published_at = now(), effective_from = %s"
        " WHERE id = %s"
    )

    assert refused(publish, "2026-06-01T00:00:00Z", draft) == EXCLUDED
    run(
        "UPDATE pricing_pricebookversion SET effective_to = '2026-06-01T00:00:00Z' WHERE id = %s",
        published.pk,
    )
    assert refused(publish, "2026-05-31T23:00:00Z", draft) == EXCLUDED
    run(publish, "2026-06-01T00:00:00Z", draft)


@pytest.mark.parametrize("moment", ["2026-06-01T00:30:00Z", "2026-06-01T00:00:00.000001Z", "infinity"])
def test_dates_are_whole_hours(published: PriceBookVersion, draft: Any, moment: str) -> None:
    end = "UPDATE pricing_pricebookversion SET effective_to = %s WHERE id = %s"
    start = "UPDATE pricing_pricebookversion SET effective_from = %s WHERE id = %s"
    organization = build.organization()
    assign = (
        "INSERT INTO pricing_bookassignment (id, organization_id, book_id, effective_from, created_at)"
        " VALUES (%s, %s, %s, %s, now())"
    )

    assert refused(end, moment, published.pk) == CHECKED
    assert refused(start, moment, draft) == CHECKED
    assert refused(assign, uuid7(), organization.pk, published.book_id, moment) == CHECKED


def test_half_an_hour_from_utc_is_a_whole_hour_there_only(draft: Any) -> None:
    start = "UPDATE pricing_pricebookversion SET effective_from = %s WHERE id = %s"

    assert refused(start, "2026-06-01T00:00:00+05:30", draft) == CHECKED
    run(start, "2026-06-01T00:00:00+05:00", draft)


def test_a_row_is_added_where_nothing_matched_only(published: PriceBookVersion) -> None:
    def refusal(**columns: Any) -> str:
        return refused(INSERT_PRICE, *price(published.pk, **columns))

    build.price_book({"unit_price": "1", "sku": "a100", "region": "eu"}, name="Others")
    assert refusal() == RESTRICTED  # The same place.
    assert refusal(region="eu") == RESTRICTED  # Would take h100 in eu from (h100, *).
    add_price(published.pk, sku="a100", region="eu")
    assert refusal(sku="a100", region="eu") == RESTRICTED
    add_price(published.pk, region="*", sku="*")  # The more specific rows keep their usage.
    assert refusal(sku="*", region="eu") == RESTRICTED  # Would take usage of other SKUs from (*, *).
    add_price(published.pk, sku="*", meter="instance_hours")


def test_a_price_moves_to_no_other_version(published: PriceBookVersion, draft: Any) -> None:
    assert (
        refused("UPDATE pricing_price SET version_id = %s WHERE version_id = %s", published.pk, draft)
        == RESTRICTED
    )


def test_one_row_per_place_and_key(draft: Any) -> None:
    key_id = uuid7()
    add_price(draft, sku="*", key_id=key_id)

    assert refused(INSERT_PRICE, *price(draft)) == UNIQUE
    assert refused(INSERT_PRICE, *price(draft, sku="*", meter="tokens", key_id=key_id)) == UNIQUE


@pytest.mark.parametrize(
    "columns",
    [
        {"unit_price": None},
        {"unit_price": "-0.0000000001"},
        {"unit_price": "NaN"},
        {"model": "free"},
        {"tiers": '[{"up_to": null, "unit_price": "1", "flat_fee": "0"}]'},
        {"free_units": "0"},
        {
            "model": "package",
            "unit_price": None,
            "package_size": "0",
            "package_price": "1",
            "free_units": "0",
        },
        {
            "model": "package",
            "unit_price": None,
            "package_size": "NaN",
            "package_price": "1",
            "free_units": "0",
        },
        {
            "model": "package",
            "unit_price": None,
            "package_size": "1",
            "package_price": "-1",
            "free_units": "0",
        },
        {
            "model": "package",
            "unit_price": None,
            "package_size": "1",
            "package_price": "1",
            "free_units": "-1",
        },
        {"model": "package", "unit_price": None, "package_size": "1", "package_price": "1"},
        {"model": "graduated", "unit_price": None},
        {"model": "graduated", "unit_price": None, "tiers": "[]"},
        {"model": "graduated", "unit_price": None, "tiers": "null"},
        {"model": "graduated", "unit_price": None, "tiers": '[{"up_to": null, "unit_price": "1"}]'},
        {
            "model": "volume",
            "unit_price": None,
            "tiers": '[{"up_to": "5", "unit_price": "1", "flat_fee": "0"}]',
        },
        {
            "model": "volume",
            "unit_price": None,
            "tiers": '[{"up_to": null, "unit_price": "-1", "flat_fee": "0"}]',
        },
        {
            "model": "volume",
            "unit_price": None,
            "tiers": '[{"up_to": null, "unit_price": null, "flat_fee": "0"}]',
        },
        {
            "model": "graduated",
            "unit_price": None,
            "tiers": '[{"up_to": "5", "unit_price": "1", "flat_fee": "0"},'
            ' {"up_to": "5", "unit_price": "1", "flat_fee": "0"},'
            ' {"up_to": null, "unit_price": "1", "flat_fee": "0"}]',
        },
        {
            "model": "graduated",
            "unit_price": None,
            "tiers": '[{"up_to": null, "unit_price": "1", "flat_fee": "0"},'
            ' {"up_to": null, "unit_price": "1", "flat_fee": "0"}]',
        },
    ],
)
def test_model_and_columns_agree(draft: Any, columns: dict[str, Any]) -> None:
    assert refused(INSERT_PRICE, *price(draft, sku="*", **columns)) == CHECKED


@pytest.mark.parametrize(
    "columns",
    [
        {
            "model": "package",
            "unit_price": None,
            "package_size": "0.5",
            "package_price": "0",
            "free_units": "0",
        },
        {
            "model": "volume",
            "unit_price": None,
            "tiers": '[{"up_to": "0.000001", "unit_price": "1.0000000001", "flat_fee": "0"},'
            ' {"up_to": null, "unit_price": "0", "flat_fee": "3"}]',
        },
    ],
)
def test_sound_rows_are_stored(draft: Any, columns: dict[str, Any]) -> None:
    add_price(draft, sku="*", **columns)


@pytest.mark.parametrize("columns", [{"sku": "nobody"}, {"region": "nowhere"}, {"meter": "nothing"}])
def test_a_price_names_what_exists(draft: Any, columns: dict[str, Any]) -> None:
    assert refused(INSERT_PRICE, *price(draft, **{"sku": "*", **columns})) == REFERRED


@pytest.mark.parametrize("table", ["pricing_sku", "pricing_region"])
@pytest.mark.parametrize("code", ["*", "", " a", "a/b", "a ", "a\tb", "é"])
def test_codes_have_a_form(table: str, code: str) -> None:
    columns = "id, code, name" + (", family, attributes" if table == "pricing_sku" else "")
    values = "%s, %s, ''" + (", '', '{}'" if table == "pricing_sku" else "")

    assert refused(f"INSERT INTO {table} ({columns}) VALUES ({values})", uuid7(), code) == CHECKED


def test_a_published_book_keeps_its_currency(published: PriceBookVersion) -> None:
    assert (
        refused("UPDATE pricing_pricebook SET currency = 'EUR' WHERE id = %s", published.book_id)
        == RESTRICTED
    )
    assert (
        refused("UPDATE pricing_pricebook SET is_demonstration = true WHERE id = %s", published.book_id)
        == RESTRICTED
    )
    run("UPDATE pricing_pricebook SET name = 'Renamed' WHERE id = %s", published.book_id)


def test_a_meter_keeps_its_unit() -> None:
    assert refused("UPDATE pricing_meter SET unit_seconds = 1 WHERE code = 'gpu_hours'") == RESTRICTED
    assert refused("UPDATE pricing_meter SET code = 'gpu' WHERE code = 'gpu_hours'") == RESTRICTED


def test_assignments_never_overlap_and_only_end(published: PriceBookVersion) -> None:
    organization, other = build.organization(), build.organization()
    assign = (
        "INSERT INTO pricing_bookassignment (id, organization_id, book_id, effective_from, effective_to, created_at)"
        " VALUES (%s, %s, %s, %s, %s, now())"
    )
    first = uuid7()
    run(assign, first, organization.pk, published.book_id, "2026-01-01T00:00:00Z", None)

    again = (uuid7(), organization.pk, published.book_id, "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z")
    assert refused(assign, *again) == EXCLUDED
    run(assign, uuid7(), other.pk, *again[2:])
    assert refused("DELETE FROM pricing_bookassignment WHERE id = %s", first) == RESTRICTED
    change = "UPDATE pricing_bookassignment SET effective_from = '2025-01-01T00:00:00Z' WHERE id = %s"
    assert refused(change, first) == RESTRICTED
    end = "UPDATE pricing_bookassignment SET effective_to = %s WHERE id = %s"
    assert refused(end, "2025-12-01T00:00:00Z", first) == CHECKED
    run(end, "2026-02-01T00:00:00Z", first)
    assert refused(end, "2026-01-02T00:00:00Z", first) == RESTRICTED
    run(assign, *again)


def test_the_orm_sees_the_same_refusals(published: PriceBookVersion) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        published.prices.update(unit_price=1)
    with pytest.raises(IntegrityError), transaction.atomic():
        published.prices.all().delete()
    with pytest.raises(IntegrityError), transaction.atomic():
        published.delete()
    assert not BookAssignment.objects.exists()
