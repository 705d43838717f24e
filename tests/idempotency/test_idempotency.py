"""A request sent again has no second effect: answers are replayed, conflicts are named, crashes leave nothing."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connections
from django.urls import path
from django.utils import timezone
from rest_framework.response import Response

from apps.core.errors import Conflict, ValidationFailed
from apps.core.http.views import AUTHENTICATED, OrganizationView
from apps.core.permissions import Permission
from apps.idempotency import services
from apps.idempotency.mixins import IdempotentMixin
from apps.idempotency.models import StoredAnswer
from apps.organizations.models import Project
from config.urls import urlpatterns as ours
from tests import build
from tests.threads import PATIENCE_SECONDS

entered = threading.Event()
proceed = threading.Event()


class MakeProject(IdempotentMixin, OrganizationView):
    permission = Permission.PROJECTS_MANAGE

    def post(self, request):
        project = build.project(self.organization, request.data["slug"])
        if request.data.get("slow"):
            entered.set()
            assert proceed.wait(PATIENCE_SECONDS)
        match request.data.get("fail"):
            case "conflict":
                raise Conflict
            case "invalid":
                raise ValidationFailed
            case "bug":
                raise RuntimeError
        return Response({"id": project.id, "secret": "s3cret"}, status=201, headers={"Location": "/there"})

    def mask_replay(self, data):
        return data | {"secret": "•••"} if "secret" in data else data


class Pay(IdempotentMixin, OrganizationView):
    permission = AUTHENTICATED
    idempotency_required = True

    def post(self, request):
        return Response(status=204)


urlpatterns = [
    path("api/v1/test/projects", MakeProject.as_view()),
    path("api/v1/test/pay", Pay.as_view()),
    *ours,
]
pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db]
PROJECTS = "/api/v1/test/projects"


@pytest.fixture
def client(db):
    return build.client(build.api_key(build.organization()))


def post(client, body, key="one", **headers):
    return client.post(PROJECTS, body, headers={"X-Idempotency-Key": key, **headers})


def test_the_same_again_is_answered_from_the_store_with_the_secret_masked(client):
    first = post(client, {"slug": "a"})
    again = post(client, {"slug": "a"})

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == {"id": first.json()["id"], "secret": "•••"}
    assert again["Location"] == "/there"
    assert (again["Idempotent-Replayed"], "Idempotent-Replayed" in first) == ("true", False)
    assert again["X-Correlation-Id"] != first["X-Correlation-Id"]
    assert Project.objects.count() == 1
    assert b"s3cret" not in bytes(StoredAnswer.objects.get().body)


def test_the_alias_is_the_same_header_and_quotes_do_not_count(client):
    post(client, {"slug": "a"}, key='"one"')

    again = client.post(PROJECTS, {"slug": "a"}, headers={"Idempotency-Key": "one"})

    assert again["Idempotent-Replayed"] == "true"


def test_how_the_body_is_spelled_does_not_matter_but_what_it_says_does(client):
    client.post(
        PROJECTS,
        b'{"slug": "a", "n": 1}',
        content_type="application/json",
        headers={"X-Idempotency-Key": "one"},
    )

    spelled = client.post(
        PROJECTS,
        b'{ "n":1,"slug":"a" }',
        content_type="application/json",
        headers={"X-Idempotency-Key": "one"},
    )
    other = post(client, {"slug": "a", "n": 2})

    assert spelled["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert Project.objects.count() == 1


def test_a_refusal_that_is_a_fact_is_kept_and_its_writes_are_not(client):
    first = post(client, {"slug": "a", "fail": "conflict"})
    again = post(client, {"slug": "a", "fail": "conflict"})

    assert (first.status_code, again.status_code, again["Idempotent-Replayed"]) == (409, 409, "true")
    assert again.json() == first.json()
    assert not Project.objects.exists()


@pytest.mark.parametrize(("fail", "status"), [("invalid", 422), ("bug", 500)])
def test_what_another_try_could_change_is_not_kept(client, fail, status):
    client.raise_request_exception = False

    first = post(client, {"slug": "a", "fail": fail})

    assert first.status_code == status
    assert not Project.objects.exists()
    assert not StoredAnswer.objects.exists()


def test_keys_belong_to_an_organization_and_a_principal():
    organization, other = build.organization(), build.organization()
    clients = [build.client(build.api_key(organization)) for _each in range(2)]
    integration = build.integration(["projects.manage"])
    clients += [build.client(integration, X_Org_Slug=each.slug) for each in (organization, other)]

    answers = [post(client, {"slug": f"p-{number}"}) for number, client in enumerate(clients)]

    assert [answer.status_code for answer in answers] == [201] * 4
    assert StoredAnswer.objects.count() == 4


def test_permission_is_checked_before_an_answer_is_replayed():
    organization = build.organization()
    secret = build.api_key(organization)
    client = build.client(secret)
    post(client, {"slug": "a"})
    organization.api_keys.update(scopes=["usage.read"])

    again = post(client, {"slug": "a"})

    assert (again.status_code, again.json()["code"]) == (403, "insufficient_permissions")


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "ümlaut"])
def test_a_key_that_cannot_be_one_is_refused(client, key):
    answer = client.post(PROJECTS, {"slug": "a"}, HTTP_X_IDEMPOTENCY_KEY=key)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert not Project.objects.exists()


def test_two_headers_that_differ_are_refused(client):
    answer = post(client, {"slug": "a"}, **{"Idempotency-Key": "two"})

    assert answer.status_code == 400


def test_money_needs_a_key(client):
    answer = client.post("/api/v1/test/pay", {})

    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_required")
    paid = [client.post("/api/v1/test/pay", {}, headers={"X-Idempotency-Key": "1"}) for _twice in range(2)]
    assert [(answer.status_code, answer.content) for answer in paid] == [(204, b""), (204, b"")]


def test_old_answers_are_purged(client):
    post(client, {"slug": "a"})
    now = timezone.now()

    assert services.purge(now=now + timedelta(hours=71)) == 0
    assert services.purge(now=now + timedelta(hours=73)) == 1


def test_many_at_once_have_one_effect(transactional_db):
    """The first is held inside its transaction, so that the others certainly meet it."""
    organization = build.organization()
    secret = build.api_key(organization)
    entered.clear()
    proceed.clear()
    answers = []

    def send():
        try:
            answers.append(post(build.client(secret), {"slug": "a", "slow": True}))
        finally:
            connections.close_all()

    first = threading.Thread(target=send)
    first.start()
    assert entered.wait(PATIENCE_SECONDS)
    others = [threading.Thread(target=send) for _each in range(10)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join(PATIENCE_SECONDS)
    proceed.set()
    first.join(PATIENCE_SECONDS)
    again = post(build.client(secret), {"slug": "a", "slow": True})

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 10
    assert {answer["Retry-After"] for answer in answers if answer.status_code == 409} == {"1"}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {
        "idempotency_in_flight"
    }
    assert (again.status_code, again["Idempotent-Replayed"]) == (201, "true")
    assert Project.objects.count() == 1
