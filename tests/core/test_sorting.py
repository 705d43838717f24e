"""A short list is sorted by its header's links, the same rows always, and nonsense in the address changes nothing."""

from __future__ import annotations

from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from apps.core.http.pages import slice_of
from apps.core.http.sorting import RowOrder, Sorting
from apps.core.permissions import Role
from apps.organizations.models import Project
from tests import build

ROWS = st.lists(st.tuples(st.none() | st.integers(-3, 3), st.text("ab", max_size=2)), max_size=12)


def sorting(query: str) -> Sorting:
    values = {"number": lambda row: row[0], "text": lambda row: row[1]}
    return Sorting(RequestFactory().get(f"/x?{query}"), values)


@given(ROWS, st.booleans())
def test_every_row_stays_in_order_and_what_has_no_value_comes_last(rows, is_descending):
    found = sorting(f"sort={'-' * is_descending}number").of(rows)

    assert sorted(map(repr, found)) == sorted(map(repr, rows))
    known = [row for row in found if row[0] is not None]
    assert found[: len(known)] == known
    numbers = [row[0] for row in known]
    assert numbers == sorted(numbers, reverse=is_descending)
    for number in set(numbers):
        assert [row for row in known if row[0] == number] == [row for row in rows if row[0] == number]


@given(ROWS, st.sampled_from(["", "sort=", "sort=secret", "sort=--number", "sort=number%00"]))
def test_anything_else_changes_nothing(rows, query):
    assert sorting(query).of(rows) == rows


def test_a_link_turns_its_column_round_and_keeps_the_rest_of_the_address():
    asked = sorting("revoked=1&sort=number")

    assert (asked.direction("number"), asked.direction("text")) == ("ascending", "none")
    assert asked.url("number") == "?revoked=1&sort=-number"
    assert asked.url("text") == "?revoked=1&sort=text"


def test_a_page_shows_its_list_as_asked(db):
    lab = build.organization("lab", name="Bright Lab")
    client = build.browser(build.member(lab, Role.OWNER))
    for slug in ("beta", "alpha", "gamma"):
        build.project(lab, slug)

    page = client.get("/app/lab/projects?sort=-name")

    assert [row.slug for row in page.context["projects"]] == ["gamma", "beta", "alpha"]
    assert 'aria-sort="descending"><a class="sort" href="?sort=name">Name</a>' in page.text
    for path in ("members?sort=-role", "keys?sort=used", "budgets?sort=-spent"):
        assert client.get(f"/app/lab/{path}").status_code == 200


def test_a_long_list_is_walked_in_its_order_every_row_once(db):
    lab = build.organization()
    for number, name in enumerate("abacabc"):
        build.project(lab, f"p{number}", name=name)
    rows = Project.objects.filter(organization=lab)
    orders = {
        "": ["-pk"], "nonsense": ["-pk"], "made": ["pk"], "-made": ["-pk"], "name": ["name", "pk"],
        "-name": ["-name", "-pk"],
    }  # fmt: skip
    for asked, expected in orders.items():
        found, path = [], f"/x?sort={asked}"
        while path:
            request = RequestFactory().get(path)
            order = RowOrder(request, {"name": "name", "made": "pk"})
            page = slice_of(request, rows, size=2, order=order)
            found += page.rows
            path = f"/x{page.older}" if page.older else ""

        assert found == list(rows.order_by(*expected)), asked
