"""Lists: every row once whatever is added meanwhile, and nothing that is not understood is ignored."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core import signing
from django.urls import path
from django_filters import rest_framework as filters
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework import serializers

from apps.core.http.filters import CreatedFilterSet
from apps.core.http.views import ListView
from apps.core.permissions import Permission
from apps.organizations.models import Project
from config.urls import urlpatterns as ours
from tests import build


class ProjectFilters(CreatedFilterSet):
    slug = filters.CharFilter()
    archived = filters.BooleanFilter(field_name="archived_at", lookup_expr="isnull", exclude=True)


class ProjectOutput(serializers.Serializer):
    slug = serializers.CharField()


class Projects(ListView):
    permission = Permission.PROJECTS_READ
    serializer_class = ProjectOutput
    filterset_class = ProjectFilters
    sortable = {"name": ("name", "-created_at", "id")}

    def get_queryset(self):
        return Project.objects.visible_to(self.actor)


urlpatterns = [path("api/v1/test/projects", Projects.as_view()), *ours]
pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db]
LIST = "/api/v1/test/projects"


@pytest.fixture
def organization(db):
    return build.organization()


@pytest.fixture
def client(organization):
    return build.client(build.api_key(organization))


def fill(organization, times, names=()):
    for number, minutes in enumerate(times):
        Project.objects.create(
            organization=organization,
            slug=f"p{number}",
            name=names[number] if names else "same",
            created_at=build.NOW + timedelta(minutes=minutes),
        )


def walk(client, **query):
    slugs, pages, cursor = [], 0, None
    while pages == 0 or cursor:
        answer = client.get(LIST, query | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.json()
        body = answer.json()
        assert set(body) == {"data", "has_more", "next_cursor"}
        assert body["has_more"] is (body["next_cursor"] is not None)
        slugs += [row["slug"] for row in body["data"]]
        cursor, pages = body["next_cursor"], pages + 1
    return slugs, pages


def test_newest_first_fifty_a_page(client, organization):
    fill(organization, range(101))

    slugs, pages = walk(client)

    assert slugs == [f"p{number}" for number in reversed(range(101))]
    assert pages == 3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    times=st.lists(st.integers(0, 3), max_size=12),
    limit=st.integers(1, 5),
    sort=st.sampled_from(["", "name", "-name"]),
    data=st.data(),
)
def test_every_row_is_seen_once_in_the_order_of_the_database(client, organization, times, limit, sort, data):
    Project.objects.all().delete()
    names = data.draw(st.lists(st.sampled_from("abÄ"), min_size=len(times), max_size=len(times)))
    fill(organization, times, names)
    orders = {
        "": ("-created_at", "-id"),
        "name": ("name", "-created_at", "id"),
        "-name": ("-name", "created_at", "-id"),
    }

    slugs, pages = walk(client, limit=limit, **({"sort": sort} if sort else {}))

    assert slugs == list(Project.objects.order_by(*orders[sort]).values_list("slug", flat=True))
    assert pages == max(1, -(-len(times) // limit))


def test_rows_added_meanwhile_shift_nothing(client, organization):
    fill(organization, range(4))
    first = client.get(LIST, {"limit": 2}).json()
    fill_later = Project(
        organization=organization, slug="later", name="l", created_at=build.NOW + timedelta(days=1)
    )
    fill_later.save()

    second = client.get(LIST, {"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [row["slug"] for row in first["data"] + second["data"]] == ["p3", "p2", "p1", "p0"]


def test_another_tenants_rows_are_not_there(client):
    fill(build.organization(), range(3))

    assert client.get(LIST).json() == {"data": [], "has_more": False, "next_cursor": None}


def test_filters_are_half_open(client, organization):
    fill(organization, range(4))

    def slugs(**query):
        return [row["slug"] for row in client.get(LIST, query).json()["data"]]

    assert slugs(created_from="2026-05-15T12:01:00Z", created_to="2026-05-15T12:03:00Z") == ["p2", "p1"]
    assert slugs(created_from="2026-05-15T14:01:00+02:00", slug="p3") == ["p3"]
    # PostgreSQL would not read such an offset.
    assert slugs(created_from="2026-05-16T08:01:00+20:00", slug="p3") == ["p3"]
    assert slugs(archived="False", slug="p3") == ["p3"]
    assert slugs(archived="true") == []


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "-1"},
        {"limit": "ten"},
        {"limit": "²"},
        {"cursor": "nonsense"},
        {"cursor": "x" * 5000},
        {"cursor": signing.dumps([["-id"], ["x"]], salt="other")},
        {"cursor": signing.dumps([["-id"], ["x"]], salt="apps.core.http.pagination")},
        {"sort": "password"},
        {"sort": "--name"},
        {"creatd_from": "2026-05-15T12:01:00Z"},
        {"created_from": "yesterday"},
        {"created_from": "0001-01-01T00:00:00+14:00"},
        {"created_to": "9999-12-31T23:59:59-12:00"},
        {"created_to": ""},
        {"created_to": " "},
        {"slug": ""},
        {"archived": ""},
        {"archived": "yes"},
        {"archived": "2"},
        {"limit": ""},
        {"sort": ""},
    ],
)
def test_what_is_not_understood_is_refused(client, query):
    answer = client.get(LIST, query)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_a_cursor_of_another_order_is_refused(client, organization):
    fill(organization, range(3))
    cursor = client.get(LIST, {"limit": 1}).json()["next_cursor"]

    assert client.get(LIST, {"limit": 1, "cursor": cursor, "sort": "name"}).status_code == 400


def test_a_page_costs_two_queries(client, organization, django_assert_num_queries):
    fill(organization, range(60))
    client.get(LIST)

    with django_assert_num_queries(2):  # The key with its organization, the rows.
        client.get(LIST)
