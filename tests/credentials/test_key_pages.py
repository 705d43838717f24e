"""The pages of API keys: the secret once, and only what the person could do themselves."""

from __future__ import annotations

import html
import re
from collections import Counter
from datetime import timedelta
from functools import partial

import pytest
from django.utils import timezone

from apps.core.ids import uuid7
from apps.core.permissions import Permission, Role
from apps.credentials.models import ApiKey
from apps.credentials.scopes import PEOPLE_ONLY, SCOPE_PURPOSES
from tests import build
from tests.threads import at_once

SECRET = re.compile(r"ch_live_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}")
SENT = {"name": "training", "scopes": ["usage.read", "billing.read"], "days": "30", "allowed_ips": ""}


@pytest.fixture
def lab(db):
    return build.organization("lab", name="Bright Lab")


@pytest.fixture
def owner(lab):
    return build.member(lab, Role.OWNER, user=build.user("owner@example.com", name="Olga Owner"))


def made(client, **changes):
    return client.post("/app/lab/keys/new", {**SENT, "attempt": uuid7(), **changes})


def offered(page):
    return re.findall(r'name="scopes" value="([\w.]+)"', page)


def test_a_key_is_made_and_its_secret_shown_once(lab, owner):
    client = build.browser(owner)

    page = made(client)
    secret = SECRET.search(page.text)[0]
    key = ApiKey.objects.get()

    assert page.status_code == 200
    assert "You will not see this again." in page.text
    assert f"/api/v1/me \\\n  -H 'Authorization: Bearer {secret}'" in html.unescape(page.text)
    assert "no-store" in page.headers["Cache-Control"]
    assert build.client(secret).get("/api/v1/me").status_code == 200
    assert (key.created_by, key.scopes) == (owner, ["billing.read", "usage.read"])
    assert timedelta(days=29) < key.expires_at - timezone.now() <= timedelta(days=30)
    for path in ("/app/lab/keys", f"/app/lab/keys/{key.pk}"):
        assert secret not in client.get(path).text
        assert key.masked in client.get(path).text


def test_loading_the_answer_again_makes_and_rotates_nothing(lab, owner):
    client = build.browser(owner)
    attempt = client.get("/app/lab/keys/new").context["form"]["attempt"].value()

    made(client, attempt=attempt)
    again = made(client, attempt=attempt)
    key = ApiKey.objects.get()
    rotate = f"/app/lab/keys/{key.pk}/rotate"
    sent = {"hours": "24", "attempt": client.get(rotate).context["form"]["attempt"].value()}
    secret = SECRET.search(client.post(rotate, sent).text)[0]
    twice = client.post(rotate, sent, follow=True)

    assert again.headers["Location"] == twice.redirect_chain[0][0] == f"/app/lab/keys/{key.pk}"
    assert "The secret was shown once, so it is not shown again." in twice.text
    assert build.client(secret).get("/api/v1/me").status_code == 200
    assert made(client).status_code == 200, "another form makes another key"


def test_one_form_sent_at_once_makes_or_rotates_one_key_whatever_the_session_knows(transactional_db):
    lab = build.organization("lab")
    owner = build.member(lab, Role.OWNER)
    attempt = uuid7()

    answers = at_once(*[partial(made, build.browser(owner), attempt=attempt) for _each in range(4)])
    key = ApiKey.objects.get()
    shown = [SECRET.search(answer.text)[0] for answer in answers if answer.status_code == 200]
    assert Counter(answer.status_code for answer in answers) == {200: 1, 302: 3}
    assert build.client(shown[0]).get("/api/v1/me").status_code == 200

    path, sent = f"/app/lab/keys/{key.pk}/rotate", {"hours": "24", "attempt": uuid7()}
    answers = at_once(*[partial(build.browser(owner).post, path, sent) for _each in range(4)])
    rotated = [SECRET.search(answer.text)[0] for answer in answers if answer.status_code == 200]
    assert Counter(answer.status_code for answer in answers) == {200: 1, 302: 3}
    for secret in shown + rotated:
        assert build.client(secret).get("/api/v1/me").status_code == 200

    late = [made(build.browser(owner), attempt=attempt), build.browser(owner).post(path, sent)]
    assert {answer.headers["Location"] for answer in late} == {f"/app/lab/keys/{key.pk}"}
    assert ApiKey.objects.count() == 1


def test_the_attempt_of_another_organizations_form_is_unknown_here(lab, owner):
    attempt = uuid7()
    build.api_key(build.organization("other"), attempt_id=attempt)

    assert made(build.browser(owner), attempt=attempt).status_code == 200
    assert ApiKey.objects.filter(organization=lab).count() == 1


def test_every_scope_is_explained_and_those_of_people_are_not_offered(lab, owner):
    page = build.browser(owner).get("/app/lab/keys/new").text

    assert set(SCOPE_PURPOSES) == set(Permission)
    assert sorted(offered(page)) == sorted(set(Permission) - PEOPLE_ONLY)


def test_a_developer_is_offered_their_own_scopes_and_gets_no_more(lab):
    client = build.browser(build.member(lab, Role.DEVELOPER))

    assert "audit.read" not in offered(client.get("/app/lab/keys/new").text)
    assert made(client, scopes=["audit.read"]).status_code == 422
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "Fill this in."),
        ({"scopes": []}, "Choose at least one."),
        ({"allowed_ips": "203.0.113.0/24\nnowhere"}, "This is no address or network"),
        ({"days": "31"}, "Choose one of those that are offered now."),
        ({"project": "foreign"}, "Choose one of those that are offered now."),
    ],
)
def test_what_is_wrong_stands_beside_its_field_and_the_rest_stays(lab, owner, changes, said):
    build.project(build.organization("other"), "foreign")

    answer = made(build.browser(owner), **changes)

    assert answer.status_code == 422
    assert said in answer.text
    assert not ApiKey.objects.exists()
    if "scopes" not in changes:
        assert 'value="usage.read" checked' in answer.text


def test_project_addresses_and_no_end(lab, owner):
    project = build.project(lab, "training")

    made(build.browser(owner), project="training", days="", allowed_ips="203.0.113.7\n2001:db8::/32")

    key = ApiKey.objects.get()
    assert (key.project, key.expires_at) == (project, None)
    assert key.allowed_addresses == ["2001:db8::/32", "203.0.113.7/32"]


def test_making_and_rotating_ask_for_a_proof_before_the_form(lab, owner):
    client = build.browser(owner, stepped_up=False)
    build.api_key(lab)

    for path in ("/app/lab/keys/new", f"/app/lab/keys/{ApiKey.objects.get().pk}/rotate"):
        assert client.get(path).headers["Location"].startswith("/accounts/reauthenticate/?next=")


def test_a_rotated_key_has_two_secrets_for_a_while(lab, owner):
    old = build.api_key(lab, ["usage.read"])
    key = ApiKey.objects.get()

    page = build.browser(owner).post(f"/app/lab/keys/{key.pk}/rotate", {"hours": "24", "attempt": uuid7()})
    new = SECRET.search(page.text)[0]

    assert new != old
    assert "The secret before this one works until" in page.text
    assert [build.client(secret).get("/api/v1/me").status_code for secret in (old, new)] == [200, 200]


def test_a_key_is_renamed_switched_off_and_on(lab, owner):
    secret = build.api_key(lab, ["usage.read"])
    client, path = build.browser(owner), f"/app/lab/keys/{ApiKey.objects.get().pk}"

    client.post(path, {"name": "renamed"})
    assert build.client(secret).get("/api/v1/me").status_code == 401
    assert ">off<" in client.get("/app/lab/keys").text
    client.post(path, {"name": "renamed", "is_active": "on"})
    assert build.client(secret).get("/api/v1/me").status_code == 200
    assert ApiKey.objects.get().name == "renamed"


def test_a_revoked_key_ends_and_is_listed_on_demand(lab, owner):
    secret = build.api_key(lab, ["usage.read"], name="doomed")
    client, path = build.browser(owner), f"/app/lab/keys/{ApiKey.objects.get().pk}"

    assert "Revoke doomed?" in client.get(f"{path}/revoke").text
    assert client.post(f"{path}/revoke", {"typed": "another"}).status_code == 422
    client.post(f"{path}/revoke", {"typed": "doomed"})

    assert build.client(secret).get("/api/v1/me").status_code == 401
    shown = client.get("/app/lab/keys").text
    assert f'href="{path}"' not in shown
    assert "Show 1 revoked key" in shown
    assert f'href="{path}"' in client.get("/app/lab/keys?revoked=1").text
    assert 'name="is_active"' not in client.get(path).text


def test_a_key_beyond_ones_own_permissions_is_only_looked_at(lab):
    build.api_key(lab)
    developer, path = (
        build.browser(build.member(lab, Role.DEVELOPER)),
        f"/app/lab/keys/{ApiKey.objects.get().pk}",
    )

    assert 'name="is_active"' not in developer.get(path).text
    assert developer.post(f"{path}/revoke", {"typed": ApiKey.objects.get().name}).status_code == 422
    assert ApiKey.objects.get().revoked_at is None


def test_keys_of_others_do_not_exist(lab, owner):
    build.api_key(build.organization("other"))
    client, pk = build.browser(owner), ApiKey.objects.get().pk

    for suffix in ("", "/rotate", "/revoke"):
        assert client.get(f"/app/lab/keys/{pk}{suffix}").status_code == 404
        assert (
            client.post(
                f"/app/lab/keys/{pk}{suffix}", {"name": "x", "hours": "0", "attempt": uuid7()}
            ).status_code
            == 404
        )
    assert "No keys yet" in client.get("/app/lab/keys").text


def test_the_list_costs_the_same_however_long(lab, owner, django_assert_num_queries):
    for _each in range(4):
        build.api_key(lab, ["usage.read"])
    client = build.browser(owner)

    # Session, user, memberships, keys, how many are revoked.
    with django_assert_num_queries(5):
        client.get("/app/lab/keys")


def test_the_state_says_why_a_key_does_not_work(lab, owner):
    person = build.member(lab, Role.DEVELOPER)
    build.api_key(lab, ["usage.read"], actor=build.user_actor(person, lab))
    client = build.browser(owner)
    assert ">works<" in client.get("/app/lab/keys").text

    ApiKey.objects.update(expires_at=timezone.now() + timedelta(days=2))
    assert ">expires soon<" in client.get("/app/lab/keys").text
    person.memberships.update(suspended_at=timezone.now())
    assert ">blocked with its maker<" in client.get("/app/lab/keys").text
    ApiKey.objects.update(expires_at=timezone.now())
    assert ">expired<" in client.get("/app/lab/keys").text


@pytest.mark.parametrize("sort", ["", "name", "-name", "project", "-expires", "used"])
def test_many_keys_come_a_page_at_a_time_each_once(lab, owner, sort):
    project = build.project(lab, "render")
    now = timezone.now()
    for number in range(60):
        build.api_key(
            lab,
            name=f"{'Key' if number % 2 else 'key'} {number:02}",
            project=project if number % 3 else None,
            expires_at=now + timedelta(days=number) if number % 4 else None,
        )
    client, path, seen = build.browser(owner), f"/app/lab/keys?sort={sort}", []

    while path:
        page = client.get(path)
        seen += [key.name.lower() for key, _state in page.context["keys"]]
        assert len(page.context["keys"]) <= 50
        older = page.context["slice"].older
        path = older and f"/app/lab/keys{older}"

    names = [f"key {number:02}" for number in range(60)]
    if sort in ("", "name", "-name"):
        assert seen == (names if sort == "name" else names[::-1])
    assert sorted(seen) == names
