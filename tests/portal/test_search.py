"""The search finds what somebody may read, in their own organization, by any part of its name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from apps.core.permissions import Role
from tests import build

APRIL = datetime(2026, 4, 10, tzinfo=UTC)


@pytest.fixture
def lab(db):
    """Two organizations that have the same of everything."""
    for slug in ("other", "lab"):
        organization = build.organization(slug, name=slug, now=datetime(2026, 4, 1, tzinfo=UTC))
        build.member(
            organization, Role.VIEWER, user=build.user(f"zeta-{slug}@example.com", name=f"Zeta {slug}")
        )
        build.project(organization, "zeta")
        build.api_key(organization, ["usage.read"], name="zeta cluster")
        build.budget(organization, "40", name="Zeta launch")
    return organization


@pytest.fixture
def invoice(lab):
    build.price_book({"unit_price": "2.50"})
    build.usage(lab, APRIL, APRIL + timedelta(hours=4))
    return build.closed(lab, "2026-04").invoice


def search_of(client, text):
    page = client.get("/app/lab/search", {"q": text})
    assert page.status_code == 200
    return page.context["hits"]


def found(client, text):
    return [(str(hit.kind), hit.title) for hit in search_of(client, text)]


def test_everything_with_the_text_in_its_name_and_nothing_of_others(lab, invoice):
    client = build.browser(build.member(lab, Role.OWNER))

    assert found(client, "ZETA") == [
        ("Member", "Zeta lab"), ("Project", "zeta"), ("API key", "zeta cluster"), ("Budget", "Zeta launch"),
    ]  # fmt: skip
    assert found(client, "2026-04") == found(client, invoice.number) == [("Invoice", invoice.number)]
    assert found(client, "zeta-other") == []
    assert ("Page", "Budgets") in found(client, "budg")
    for hostile in ("%", "_", "\\", "'"):
        assert found(client, hostile) == []


def test_without_a_text_it_is_the_pages_that_the_person_may_open(lab):
    owner, viewer = (
        found(build.browser(build.member(lab, role)), "") for role in (Role.OWNER, Role.DEVELOPER)
    )

    assert {kind for kind, _title in owner} == {"Page"}
    assert set(viewer) < set(owner)


def test_every_hit_leads_to_a_page_that_its_finder_may_open(lab, invoice):
    for role in Role:
        client = build.browser(build.member(lab, role))
        hits = [hit for text in ("zeta", "2026") for hit in search_of(client, text) if hit.kind != "Page"]
        assert len({str(hit.kind) for hit in hits}) > 1
        for hit in hits:
            assert client.get(hit.url).status_code == 200, (role, hit)


def test_go_leads_to_the_first_and_says_when_there_is_none(lab):
    client = build.browser(build.member(lab, Role.OWNER))

    assert client.get("/app/lab/search?go=on&q=members").headers["Location"] == "/app/lab/members"
    assert "Nothing has this in its name" in client.get("/app/lab/search?go=on&q=nowhere").text
    assert client.get("/app/lab/search", {"q": "x" * 101}).status_code == 422
    assert client.get("/app/lab/search", {"q": "a\x00b"}).status_code == 422


def test_ones_other_organizations_are_found_and_nobody_elses(lab):
    person = build.member(lab, Role.VIEWER)
    build.member(build.organization("other-works", name="Other Works"), Role.VIEWER, user=person)

    hits = search_of(build.browser(person), "OTHER")

    assert [(str(hit.kind), hit.title, hit.url) for hit in hits] == [
        ("Organization", "Other Works", "/app/other-works")
    ]


def test_it_costs_a_fixed_number_of_queries(lab, django_assert_num_queries):
    client = build.browser(build.member(lab, Role.OWNER))
    client.get("/app/lab/search")

    with django_assert_num_queries(10):  # Session, user, memberships, billing; seven kinds of things.
        client.get("/app/lab/search", {"q": "zeta"})
