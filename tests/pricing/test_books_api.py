"""Price books over REST: read with ETags, drafts edited by who saw them, published from an hour on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from rest_framework.test import APIClient

from apps.core.permissions import IntegrationScope
from apps.pricing import services
from apps.pricing.models import Price, PriceBook, PriceBookVersion, Sku
from tests import build

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("rated")]

PATH = "/api/v1/pricing/books"
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
H100 = {"meter": "gpu_hours", "sku": "h100", "region": "*", "model": "per_unit", "unit_price": "2.49"}
A100 = {
    "meter": "gpu_hours",
    "sku": "a100",
    "region": "eu",
    "model": "graduated",
    "tiers": [
        {"up_to": "10", "unit_price": "10", "flat_fee": "2"},
        {"up_to": None, "unit_price": "5", "flat_fee": "0"},
    ],
}


@pytest.fixture
def manager() -> APIClient:
    return build.client(build.integration([IntegrationScope.PRICING_MANAGE]))


@pytest.fixture
def book(manager: APIClient) -> dict[str, Any]:
    """Return a new book with a draft of one price, as the API shows it."""
    made = manager.post(PATH, {"name": "Standard", "currency": "USD", "prices": [H100]})
    assert made.status_code == 201, made.json()
    return made.json()


def read(client: APIClient, book: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    answer = client.get(f"{PATH}/{book['id']}")
    return answer["ETag"], answer.json()


def edit(
    client: APIClient, book: dict[str, Any], *prices: Any, tag: str | None, method: str = "PATCH"
) -> Any:
    headers = {"HTTP_IF_MATCH": tag} if tag is not None else {}
    return client.generic(
        method,
        f"{PATH}/{book['id']}",
        client._encode_data({"prices": list(prices)}, "json")[0],  # type: ignore[attr-defined]
        content_type="application/json",
        **headers,
    )


def publish(
    client: APIClient, book: dict[str, Any], moment: str = "2026-01-01T00:00:00Z", **headers: str
) -> Any:
    return client.post(f"{PATH}/{book['id']}/publish", {"effective_from": moment}, **headers)


def test_a_new_book_has_a_draft(manager: APIClient, book: dict[str, Any]) -> None:
    assert (book["version"], book["state"], book["prices"]) == (1, "draft", [H100])
    assert [version["effective_from"] for version in book["versions"]] == [None]
    (row,) = manager.get(PATH).json()["data"]
    assert (row["id"], row["version"]) == (book["id"], None)
    assert manager.post(PATH, {"name": "Standard", "currency": "USD"}).json()["code"] == "book_name_taken"


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_draft_is_edited_by_who_saw_it(manager: APIClient, book: dict[str, Any], method: str) -> None:
    tag, _seen = read(manager, book)
    answers = [
        edit(manager, book, A100, tag=sent, method=method)
        for sent in (None, '"other"', f"W/{tag}", "other", tag, tag)
    ]

    assert [answer.status_code for answer in answers] == [428, 412, 412, 400, 200, 412]
    assert [answers[index].json()["code"] for index in (0, 1)] == [
        "precondition_required",
        "precondition_failed",
    ]
    assert answers[4].json()["prices"] == [A100]
    assert answers[4]["ETag"] == read(manager, book)[0] != tag
    assert Sku.objects.filter(code="a100").exists()


def test_what_is_known_is_not_sent_again(manager: APIClient, book: dict[str, Any]) -> None:
    tag, _seen = read(manager, book)

    for path in (f"{PATH}/{book['id']}", f"{PATH}/{book['id']}/versions/1"):
        known = manager.get(path, HTTP_IF_NONE_MATCH=f'"x", W/{tag}')
        assert (known.status_code, known.content, known["ETag"]) == (304, b"", tag)
        assert manager.get(path, HTTP_IF_NONE_MATCH='"x"').status_code == 200


def test_wrong_rows_are_named_and_nothing_changes(manager: APIClient, book: dict[str, Any]) -> None:
    tag, seen = read(manager, book)
    answer = edit(manager, book, {**H100, "unit_price": "-1"}, "x", {**A100, "meter": "none"}, tag=tag)

    assert answer.status_code == 422
    paths = {field["path"] for field in answer.json()["details"]["fields"]}
    assert paths == {"prices.0.unit_price", "prices.1"}
    assert edit(manager, book, {**A100, "meter": "none"}, tag=tag).json()["details"]["fields"][0]["path"] == (
        "prices.0.meter"
    )
    assert read(manager, book) == (tag, seen)


def test_a_draft_is_published_and_the_next_one_starts_from_an_edit(
    manager: APIClient, book: dict[str, Any]
) -> None:
    tag, _seen = read(manager, book)
    assert publish(manager, book, HTTP_IF_MATCH='"other"').status_code == 412
    assert publish(manager, book, "2026-01-01T00:30:00Z").json()["code"] == "effective_date_refused"
    published = publish(manager, book, HTTP_IF_MATCH=tag)
    assert (published.status_code, published.json()["state"]) == (200, "published")
    assert publish(manager, book).json()["code"] == "no_draft"

    edited = edit(manager, book, H100, A100, tag=published["ETag"]).json()
    assert (edited["version"], edited["state"], len(edited["versions"])) == (2, "draft", 2)
    after = publish(manager, book, "2026-06-01T00:00:00Z").json()
    assert [version["effective_to"] for version in after["versions"]] == [None, "2026-06-01T00:00:00Z"]
    keys = Price.objects.filter(sku="h100").values_list("key_id", flat=True)
    assert len(set(keys)) == 1
    first = manager.get(f"{PATH}/{book['id']}/versions/1").json()
    assert (first["state"], first["prices"]) == ("published", [H100])


def test_a_retired_version_stays_readable(manager: APIClient) -> None:
    version = build.price_book({"sku": "h100", "unit_price": "2.49"}, effective_from=SINCE)
    services.retire_version(
        actor=build.actor(), version=version, effective_to=SINCE.replace(month=3), now=build.NOW
    )

    found = manager.get(f"{PATH}/{version.book_id}/versions/1").json()
    assert (found["state"], found["prices"]) == ("retired", [H100])


def test_a_draft_is_discarded(manager: APIClient, book: dict[str, Any]) -> None:
    tag, _seen = read(manager, book)

    path = f"{PATH}/{book['id']}"
    assert manager.delete(path).status_code == 428
    assert manager.delete(path, HTTP_IF_MATCH=tag).status_code == 204
    assert not PriceBookVersion.objects.exists()
    assert PriceBook.objects.count() == 1
    assert manager.delete(path, HTTP_IF_MATCH="*").json()["code"] == "no_draft"


def test_publishing_needs_a_date_from_somewhere(manager: APIClient, book: dict[str, Any]) -> None:
    refused = manager.post(f"{PATH}/{book['id']}/publish", {})
    assert refused.json()["details"]["fields"][0]["path"] == "effective_from"
    body = {"name": "Other", "currency": "USD", "prices": [H100], "effective_from": "2026-02-01T00:00:00Z"}
    other = manager.post(PATH, body).json()
    published = manager.post(f"{PATH}/{other['id']}/publish", {}).json()
    assert published["versions"][0]["effective_from"] == "2026-02-01T00:00:00Z"


def test_the_same_key_publishes_once(manager: APIClient, book: dict[str, Any]) -> None:
    first, again = (publish(manager, book, HTTP_X_IDEMPOTENCY_KEY="publish-1") for _try in range(2))

    assert (first.status_code, again.status_code, again["Idempotent-Replayed"]) == (200, 200, "true")
    assert again["ETag"] == first["ETag"]


def test_only_those_who_manage_prices_see_books(book: dict[str, Any]) -> None:
    others = [scope for scope in IntegrationScope if scope != IntegrationScope.PRICING_MANAGE]
    for secret in (build.integration(others), build.api_key(build.organization())):
        client = build.client(secret)
        assert client.get(PATH).status_code == 403
        assert publish(client, book).status_code == 403
    assert build.client().get(f"{PATH}/{book['id']}").status_code == 401
