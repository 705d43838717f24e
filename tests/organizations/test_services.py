"""Making organizations and projects, finding them, and which one a request is about."""

from __future__ import annotations

from functools import partial

import pytest
from django.db import IntegrityError, connection, transaction
from django.urls import path
from django.utils import timezone
from rest_framework.response import Response

from apps.audit.models import AuditEvent
from apps.core.errors import NotFound, ValidationFailed
from apps.core.http.views import PUBLIC, ApiView, OptionalOrganizationView, OrganizationView
from apps.core.permissions import Permission, Role
from apps.organizations import services as organizations
from apps.organizations.models import Membership, Organization, OrganizationSlug, OrganizationStatus, Project
from apps.organizations.selectors import find_organizations
from apps.organizations.services.checks import RESERVED_SLUGS
from apps.outbox.models import OutboxEvent
from config.urls import urlpatterns as ours
from tests import build
from tests.threads import at_once


class Which(OrganizationView):
    permission = Permission.BILLING_READ

    def get(self, request, **_path):
        return Response({"slug": self.organization.slug, "id": self.organization_id})


class Maybe(OptionalOrganizationView):
    permission = PUBLIC

    def get(self, request, **_path):
        return Response({"slug": self.organization.slug if self.organization else None})


class AnyOf(ApiView):
    permission = {"GET": frozenset({Permission.USAGE_READ, Permission.BILLING_READ})}

    def get(self, request):
        return Response({})


urlpatterns = [
    path("api/v1/test/orgs/<slug:slug>/which", Which.as_view()),
    path("api/v1/test/which", Which.as_view()),
    path("api/v1/test/maybe", Maybe.as_view()),
    path("api/v1/test/any", AnyOf.as_view()),
    *ours,
]
pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db]
PATH, WHICH = "/api/v1/test/orgs/{}/which", "/api/v1/test/which"


def test_a_new_organization_has_its_slug_period_owner_and_traces():
    owner = build.user("owner@example.com")

    organization = organizations.create_organization(
        actor=build.actor(), name="Ärzte & Co", owner=owner, now=build.NOW
    )

    assert (organization.slug, organization.currency, organization.timezone) == ("arzte-co", "USD", "UTC")
    assert organization.billing_email == "owner@example.com"
    assert Membership.objects.values_list("role", "is_default").get() == ("owner", True)
    assert organization.periods.values_list("label", flat=True).get() == "2026-05"
    actions = set(AuditEvent.objects.exclude(action="user.created").values_list("action", "organization_id"))
    assert actions == {("organization.created", organization.id), ("member.added", organization.id)}
    assert OutboxEvent.objects.filter(organization_id=organization.id).count() == 2


def test_slugs_made_from_names_never_collide_and_are_never_issued_twice():
    names = ["Lab", "lab", "LAB", "", "!!!", "Lab 2", "x" * 150, "0190c9a0-0000-7000-8000-000000000000"]
    made = []
    for name in names:
        try:
            made.append(organizations.create_organization(actor=build.actor(), name=name, now=build.NOW).slug)
        except ValidationFailed:
            made.append(None)

    assert made == [
        "lab",
        "lab-2",
        "lab-3",
        None,
        "organization",
        "lab-2-2",
        "x" * 58,
        "organization-0190c9a0-0000-7000-8000-000000000000",
    ]


def test_a_slug_that_was_ever_used_is_taken_and_still_finds_its_organization():
    organization = build.organization("old")
    OrganizationSlug.objects.update(retired_at=timezone.now())
    Organization.objects.update(slug="current")
    OrganizationSlug.objects.create(slug="current", organization=organization)

    for slug in ("old", "current"):
        with pytest.raises(organizations.SlugTaken):
            build.organization(slug)

    assert Organization.objects.count() == 1
    for reference in ("old", "current", str(organization.id), str(organization.id).upper()):
        assert organizations.resolve_organization(reference) == organization
    for reference in ("none", "OLD", "", "\x00", "0190c9a0-0000-7000-8000-000000000000"):
        with pytest.raises(NotFound):
            organizations.resolve_organization(reference)


def test_the_first_words_of_other_pages_are_no_slugs():
    for slug in RESERVED_SLUGS:
        with pytest.raises(ValidationFailed):
            build.organization(slug)

    made = organizations.create_organization(actor=build.actor(), name="Account", now=timezone.now())
    assert made.slug == "organization-account"


def test_many_references_cost_two_queries(django_assert_num_queries):
    made = [build.organization() for _each in range(3)]

    with django_assert_num_queries(2):
        found = find_organizations([made[0].slug, made[1].slug, str(made[2].id), "none"])

    assert found == {made[0].slug: made[0], made[1].slug: made[1], str(made[2].id): made[2]}


@pytest.mark.parametrize("slug", ["", "A", "a_b", "-a", "a-", "a--b", "a b", "x" * 64, "a\n"])
def test_what_cannot_be_a_slug_is_refused_by_service_and_database(slug):
    with pytest.raises(ValidationFailed):
        organizations.create_organization(actor=build.actor(), name="Lab", slug=slug, now=build.NOW)
    organization = build.organization()
    with pytest.raises((IntegrityError, Exception)), transaction.atomic():
        Organization.objects.filter(pk=organization.pk).update(slug=slug)


def test_what_is_wrong_is_named_field_by_field():
    with pytest.raises(ValidationFailed) as refusal:
        organizations.create_organization(
            actor=build.actor(), name="a\x07", slug="B", currency="XYZ", timezone="Mars/Base", now=build.NOW
        )

    assert [field.path for field in refusal.value.fields] == ["name", "slug", "currency", "timezone"]


def test_project_slugs_are_unique_within_an_organization_only():
    one, other = build.organization(), build.organization()
    build.project(one, "training")
    build.project(other, "training")

    with pytest.raises(organizations.SlugTaken):
        build.project(one, "training")

    assert Project.objects.count() == 2


def test_postgresql_refuses_another_tenants_project(transactional_db):
    one, other = build.organization(), build.organization()
    project = build.project(other)
    build.api_key(one)

    with pytest.raises(IntegrityError, match="credentials_apikey_project"), connection.cursor() as cursor:
        cursor.execute("UPDATE credentials_apikey SET project_id = %s", [project.id])


def test_two_who_make_periods_at_once_make_each_once(transactional_db):
    organization = build.organization(now=build.NOW)

    def make(month):
        covering = build.NOW.replace(month=month)
        return organizations.ensure_periods(
            organization_id=organization.id, covering=covering, now=build.NOW
        ).label

    made = at_once(*(partial(make, month) for month in (1, 1, 9, 12)))

    assert made == ["2026-01", "2026-01", "2026-09", "2026-12"]
    labels = list(organization.periods.order_by("starts_at").values_list("label", flat=True))
    assert labels == [f"2026-{month:02d}" for month in range(1, 13)]


# The organization of a request


def test_a_key_is_of_its_own_organization_and_sees_no_other():
    own, other = build.organization("own"), build.organization("other")
    client = build.client(build.api_key(own))

    assert client.get(WHICH).json() == {"slug": "own", "id": str(own.id)}
    assert client.get(PATH.format("own")).json()["slug"] == "own"
    assert client.get(WHICH, headers={"X-Org-Slug": "own"}).status_code == 200
    hidden = client.get(PATH.format("other"))
    nowhere = client.get(PATH.format("nowhere"))
    assert (hidden.status_code, nowhere.status_code) == (404, 404)
    assert hidden.json()["message"] == nowhere.json()["message"]
    assert client.get(WHICH, headers={"X-Org-Slug": "other"}).status_code == 404
    assert other.slug == "other"


@pytest.mark.parametrize("header", ["other", "nowhere"])
def test_a_header_that_contradicts_the_path_says_so_whatever_it_names(header):
    build.organization("own")
    build.organization("other")
    client = build.client(build.integration(["billing.read"]), X_Org_Slug=header)

    answer = client.get(PATH.format("own"))

    assert (answer.status_code, answer.json()["code"]) == (400, "organization_mismatch")


def test_an_owner_id_must_be_that_of_the_resource():
    own, other = build.organization("own"), build.organization("other")
    client = build.client(build.api_key(own))

    assert client.get(WHICH, headers={"X-Owner-ID": str(own.id)}).status_code == 200
    for wrong in (str(other.id), "own", "nonsense"):
        answer = client.get(WHICH, headers={"X-Owner-ID": wrong})
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_permissions")


def test_an_integration_acts_where_it_is_told():
    build.organization("own")
    other = build.organization("other")
    client = build.client(build.integration(["billing.read"]))

    assert client.get(PATH.format("own")).json()["slug"] == "own"
    assert client.get(WHICH, headers={"X-Org-Slug": "other"}).json()["slug"] == "other"
    assert client.get(WHICH, headers={"X-Owner-ID": str(other.id)}).json()["slug"] == "other"
    assert client.get(WHICH, headers={"X-Owner-ID": "other"}).status_code == 404
    nowhere = client.get(WHICH)
    assert (nowhere.status_code, nowhere.json()["code"]) == (400, "invalid_request")


def test_the_checks_answer_in_their_order():
    organization = build.organization("own")
    poor = build.client(build.api_key(organization, ["usage.read"]))

    assert build.client().get(PATH.format("nowhere")).status_code == 401
    assert poor.get(PATH.format("nowhere")).status_code == 404
    Organization.objects.update(status=OrganizationStatus.SUSPENDED)
    assert poor.get(PATH.format("own")).json()["code"] == "organization_suspended"
    Organization.objects.update(status=OrganizationStatus.ACTIVE)
    refused = poor.get(PATH.format("own"))
    assert (refused.status_code, refused.json()["details"]) == (403, {"permissions": ["billing.read"]})
    Organization.objects.update(status=OrganizationStatus.DELETED)
    assert poor.get(PATH.format("own")).status_code == 404


def test_one_of_several_permissions_is_enough():
    organization = build.organization()

    assert (
        build.client(build.api_key(organization, ["usage.read"])).get("/api/v1/test/any").status_code == 200
    )
    assert (
        build.client(build.api_key(organization, ["audit.read"])).get("/api/v1/test/any").status_code == 403
    )
    assert (
        build.client(build.api_key(organization, ["usage.read"])).post("/api/v1/test/any").status_code == 405
    )


def test_a_public_view_knows_the_organization_of_whoever_says_who_they_are():
    organization = build.organization("own")

    assert build.client().get("/api/v1/test/maybe").json() == {"slug": None}
    assert build.client(build.integration()).get("/api/v1/test/maybe").json() == {"slug": None}
    assert build.client(build.api_key(organization, ["usage.read"])).get("/api/v1/test/maybe").json() == {
        "slug": "own"
    }
    assert build.client("nonsense").get("/api/v1/test/maybe").status_code == 401


def test_a_member_acts_with_the_role_in_the_organization_named_or_the_default():
    first, second = build.organization("first"), build.organization("second")
    person = build.member(first, Role.VIEWER)
    build.member(second, Role.BILLING, user=person)
    actor = build.user_actor(person, first).__class__(kind="user", id=person.pk, label=person.email)

    def resolve(**named):
        return organizations.resolve_for_actor(
            actor=actor, **{"path": None, "header": None, "owner": None, **named}
        )

    assert resolve()[0] == first
    organization, inside = resolve(header="second")
    assert (organization, inside.organization_id) == (second, second.id)
    assert inside.can("billing.manage")
    assert not resolve(path="first")[1].can("billing.manage")
    Membership.objects.filter(organization=second).update(suspended_at=timezone.now())
    with pytest.raises(NotFound):
        resolve(path="second")
    Membership.objects.filter(organization=second).update(suspended_at=None, expires_at=timezone.now())
    with pytest.raises(NotFound):
        resolve(path="second")
