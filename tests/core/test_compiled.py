"""Queries that are compiled once answer as the queries they were made from."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models.functions import Upper

from apps.core.compiled import CompiledQuery
from apps.organizations.models import Organization, OrganizationSlug
from tests import build


@pytest.fixture
def by_name():
    return CompiledQuery(
        lambda name, status: Organization.objects.filter(name=name).exclude(status=status).order_by("pk"),
        name="example name",
        status="example status",
    )


def test_finds_the_first_row_with_all_its_fields(db, by_name, django_assert_num_queries):
    first, second = build.organization("one"), build.organization("two")
    Organization.objects.update(name="Same")

    with django_assert_num_queries(3):
        assert by_name.find(name="Same", status="deleted") == first
        assert by_name.find(name="Same", status="active") is None
        found = by_name.find(name="Same", status="suspended")
    assert found.slug == "one" != second.slug
    assert found.created_at == first.created_at


def test_finds_every_row_in_order(db, by_name, django_assert_num_queries):
    first, second, other = (build.organization(slug) for slug in ("one", "two", "three"))
    Organization.objects.exclude(pk=other.pk).update(name="Same")

    with django_assert_num_queries(2):
        assert by_name.all(name="Same", status="deleted") == sorted([first, second], key=lambda one: one.pk)
        assert by_name.all(name="Same", status="active") == []


def test_related_objects_and_annotations_come_along(db, django_assert_num_queries):
    organization = build.organization("one")
    slugs = CompiledQuery(
        lambda slug: (
            OrganizationSlug.objects.filter(slug=slug)
            .select_related("organization")
            .annotate(shown=Upper("organization__name"))
        ),
        slug="example",
    )
    Organization.objects.update(name="First")

    with django_assert_num_queries(1):
        found = slugs.find(slug="one")
        assert (found.organization, found.organization.name, found.shown) == (organization, "First", "FIRST")
    assert found.organization.created_at == organization.created_at


def test_the_query_is_built_once(db):
    built = []

    def make(slug):
        built.append(slug)
        return Organization.objects.filter(slug=slug)

    query = CompiledQuery(make, slug="example")
    build.organization("one")

    assert (query.find(slug="one").slug, query.find(slug="two")) == ("one", None)
    assert built == ["example"]


def test_a_value_is_a_parameter_whatever_it_holds(db):
    query = CompiledQuery(lambda slug: Organization.objects.filter(slug=slug), slug="example")

    assert query.find(slug="100%s'; DROP TABLE organizations_organization; --") is None
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM organizations_organization")
        assert cursor.fetchone() == (0,)


def test_a_parameter_without_a_place_is_a_bug(db):
    query = CompiledQuery(lambda slug, other: Organization.objects.filter(slug=slug), slug="a", other="b")  # noqa: ARG005

    with pytest.raises(AssertionError):
        query.find(slug="one", other="two")
