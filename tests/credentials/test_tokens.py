"""Tokens of people: login, rotation, theft, forgeries, step-up, and everything that ends them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import timedelta
from functools import partial

import jwt
import pytest
from allauth.mfa.adapter import get_adapter
from allauth.mfa.models import Authenticator
from django.contrib.auth import hashers
from django.core import mail
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_otp.oath import TOTP

from apps.audit.models import AuditEvent
from apps.core.permissions import Role
from apps.credentials.models import KeyState, RefreshToken, SigningKey, TokenFamily
from apps.credentials.services import signing
from apps.credentials.services.signing import private_pem
from apps.identity import services as identity
from apps.organizations.models import Membership, Organization
from tests import build
from tests.threads import at_once

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse"
ADA = "ada@example.com"


@pytest.fixture
def ada():
    return build.user(ADA, password=PASSWORD, name="Ada")


def login(password=PASSWORD, email=ADA, path="/auth/login", **fields):
    return build.client().post(path, {"email": email, "password": password, **fields})


def code(answer):
    return answer.status_code, answer.json()["code"]


def me(access_token):
    return build.client(access_token).get("/api/v1/me")


def totp_code(user, offset=0):
    stored = Authenticator.objects.get(user=user, type="totp")
    secret = get_adapter().decrypt(stored.data["secret"])
    generator = TOTP(base64.b32decode(secret))
    generator.time = time.time() + offset
    return f"{generator.token():06d}"


@pytest.mark.parametrize("path", ["/api/v1/auth/login", "/v1/auth/login", "/auth/login", "/auth/token"])
def test_a_login_gives_tokens_that_say_who_one_is(ada, path):
    lab = build.organization("lab", owner=ada)

    answer = login(path=path, email="Ada@Example.com")

    assert answer.status_code == 200
    assert {**answer.json(), "access_token": "", "refresh_token": ""} == {
        "access_token": "",
        "refresh_token": "",
        "token_type": "Bearer",
        "expires_in": 600,
    }
    assert "sessionid" not in answer.cookies
    shown = me(answer.json()["access_token"]).json()
    assert shown["user"] == {"id": str(ada.pk), "email": ADA, "name": "Ada"}
    assert shown["memberships"] == [
        {
            "organization": {"id": str(lab.id), "slug": "lab", "name": "lab"},
            "role": "owner",
            "is_default": True,
        }
    ]
    assert shown["credential"]["kind"] == "access_token"
    assert build.client(answer.json()["access_token"]).get("/orgs/lab").status_code == 200


def test_the_default_organization_is_chosen(ada):
    build.organization("lab", owner=ada)
    build.organization("second", owner=ada)
    build.organization("foreign")
    client = build.client(login().json()["access_token"])

    changed, again = [
        client.patch("/api/v1/me", {"default_organization": "second"}, headers={"X-Idempotency-Key": "once"})
        for _time in "ab"
    ]

    assert [row["is_default"] for row in changed.json()["memberships"]] == [False, True]
    assert (again.json(), again["Idempotent-Replayed"]) == (changed.json(), "true")
    assert client.patch("/api/v1/me", {"default_organization": "foreign"}).status_code == 404
    key = build.client(build.api_key(Organization.objects.get(slug="lab")))
    assert key.patch("/api/v1/me", {"default_organization": "lab"}).status_code == 403


def test_every_refusal_looks_the_same_and_costs_the_same(ada, monkeypatch):
    build.user("unverified@example.com", password=PASSWORD, verified=False)
    inactive = build.user("inactive@example.com", password=PASSWORD)
    inactive.is_active = False
    inactive.save()
    hashed = []
    original = hashers.MD5PasswordHasher.encode
    monkeypatch.setattr(
        hashers.MD5PasswordHasher, "encode", lambda *given: (hashed.append(1), original(*given))[1]
    )
    seen = set()

    for email, password in (
        (ADA, "wrong"),
        ("nobody@example.com", PASSWORD),
        ("unverified@example.com", PASSWORD),
        ("inactive@example.com", PASSWORD),
    ):
        hashed.clear()
        with CaptureQueriesContext(connection) as queries:
            answer = login(email=email, password=password)
        body = {**answer.json(), "correlation_id": ""}
        seen.add((answer.status_code, json.dumps(body), len(queries), len(hashed)))

    assert len(seen) == 1, seen
    status, body, queries, hashes = seen.pop()
    assert (status, json.loads(body)["code"], queries, hashes) == (401, "token_invalid", 1, 1)


def test_a_second_factor_is_asked_for_and_its_code_works_once(ada):
    identity.create_staff(email=ADA, password=PASSWORD, now=timezone.now())

    asked = login()
    assert code(asked) == (401, "mfa_required")
    assert asked.json()["details"]["methods"] == ["totp"]
    right = totp_code(ada)
    wrong = f"{(int(right) + 1) % 1_000_000:06d}"
    assert code(login(otp=wrong, password="wrong")) == (401, "token_invalid")
    spaced = f"{right[:3]} {right[3:]}"
    assert login(otp=spaced).status_code == 200
    assert code(login(otp=right)) == (401, "token_invalid")
    assert TokenFamily.objects.count() == 1


def test_refreshing_rotates(ada):
    first = login().json()

    second = build.client().post("/auth/refresh", {"refresh_token": first["refresh_token"]})

    assert second.status_code == 200
    assert second.json()["refresh_token"] != first["refresh_token"]
    assert me(first["access_token"]).status_code == 200
    assert me(second.json()["access_token"]).status_code == 200
    tables = str(list(RefreshToken.objects.values())) + str(list(AuditEvent.objects.values()))
    assert second.json()["refresh_token"] not in tables


def test_a_refresh_token_that_comes_twice_ends_the_login_and_is_told(ada, run_jobs):
    first = login().json()
    second = build.client().post("/auth/refresh", {"refresh_token": first["refresh_token"]}).json()

    again = build.client().post("/auth/refresh", {"refresh_token": first["refresh_token"]})

    assert code(again) == (401, "token_invalid")
    assert me(second["access_token"]).status_code == 401
    assert build.client().post("/auth/refresh", {"refresh_token": second["refresh_token"]}).status_code == 401
    run_jobs()
    assert mail.outbox[0].to == [ADA]
    assert AuditEvent.objects.filter(action="token.reused").count() == 1


def test_two_who_refresh_at_once_get_one_pair_and_lose_the_login(transactional_db):
    ada = build.user(ADA, password=PASSWORD)
    token = build.tokens(ada).refresh_token

    results = at_once(*[partial(build.client().post, "/auth/refresh", {"refresh_token": token})] * 2)

    assert sorted(answer.status_code for answer in results) == [200, 401]
    assert TokenFamily.objects.get().revoked_at is not None


@pytest.mark.parametrize(
    ("age", "expected"),
    [({"idle": 6}, 200), ({"idle": 7}, 401), ({"login": 29}, 200), ({"login": 30}, 401)],
)
def test_refresh_tokens_end_after_seven_idle_days_and_thirty_in_all(ada, age, expected):
    token = login().json()["refresh_token"]
    if "idle" in age:
        RefreshToken.objects.update(created_at=timezone.now() - timedelta(days=age["idle"]))
    else:
        TokenFamily.objects.update(expires_at=timezone.now() + timedelta(days=30 - age["login"]))

    answer = build.client().post("/auth/refresh", {"refresh_token": token})

    assert answer.status_code == expected


def test_logging_out_ends_both_tokens(ada):
    tokens = login().json()

    assert build.client(tokens["access_token"]).post("/auth/logout").status_code == 204

    assert code(me(tokens["access_token"])) == (401, "token_invalid")
    assert build.client().post("/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status_code == 401


def end_by_user(ada):
    ada.is_active = False
    ada.save()


def end_by_password(ada):
    identity.set_password(email=ADA, password="another horse")


@pytest.mark.parametrize("end", [end_by_user, end_by_password])
def test_what_ends_a_person_ends_their_tokens_at_once(ada, end):
    tokens = login().json()

    end(ada)

    assert me(tokens["access_token"]).status_code == 401
    assert build.client().post("/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status_code == 401


def test_a_suspended_membership_ends_what_the_token_could_do_there(ada):
    build.organization("lab", owner=ada)
    client = build.client(login().json()["access_token"])
    assert client.get("/orgs/lab").status_code == 200

    Membership.objects.update(suspended_at=timezone.now())

    assert client.get("/orgs/lab").status_code == 404
    assert me(login().json()["access_token"]).json()["memberships"] == []


def forged(ada, *, header=None, key=None, algorithm="RS256", **claims):
    token = build.tokens(ada).access_token
    signing = SigningKey.objects.get(state=KeyState.ACTIVE)
    own = jwt.decode(token, options={"verify_signature": False})
    own = {name: value for name, value in (own | claims).items() if value is not None}
    headers = {"typ": "at+jwt", "kid": signing.kid, **(header or {})}
    return jwt.encode(own, private_pem(signing) if key is None else key, algorithm=algorithm, headers=headers)


def b64(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "other"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": 1},
        {"exp": None},
        {"nbf": 4_000_000_000},
        {"iat": 4_000_000_000},
        {"sub": "0190c9a0-0000-7000-8000-000000000000"},
        {"sid": "0190c9a0-0000-7000-8000-000000000000"},
        {"sid": "nonsense"},
        {"sub": None},
        {"header": {"typ": "JWT"}},
        {"header": {"kid": "foreign"}},
        {"header": {"crit": ["x"], "x": 1}},
        {"algorithm": "RS512"},
    ],
    ids=str,
)
def test_forged_tokens_are_refused(ada, changes):
    assert me(forged(ada)).status_code == 200

    answer = me(forged(ada, **changes))

    assert answer.status_code == 401
    assert answer.json()["code"] == ("token_expired" if changes == {"exp": 1} else "token_invalid")
    assert answer["WWW-Authenticate"].startswith("Bearer")


def test_tokens_of_other_making_are_refused(ada):
    tokens = build.tokens(ada)
    good, public = tokens.access_token, SigningKey.objects.get(state=KeyState.ACTIVE).public_jwk
    head, claims, signature = good.split(".")
    headers = {"typ": "at+jwt", "kid": public["kid"]}
    unsigned = f"{b64({'alg': 'HS256', **headers})}.{claims}"
    mac = hmac.new(json.dumps(public).encode(), unsigned.encode(), hashlib.sha256).digest()
    by_hmac = f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    next_key = SigningKey.objects.get(state=KeyState.NEXT)
    for token in (
        f"{b64({'alg': 'none', **headers})}.{claims}.",
        f"{b64({'alg': 'none', **headers})}.{claims}.{signature}",
        by_hmac,
        f"{head}.{b64({'sub': str(ada.pk)})}.{signature}",
        forged(ada, key=private_pem(next_key)),
        forged(ada, key=private_pem(next_key), header={"kid": next_key.kid}),
        tokens.refresh_token,
        "a.b.c",
        "..",
    ):
        assert code(me(token)) == (401, "token_invalid"), token
    answer = build.client().get(f"/api/v1/me?token={good}")
    assert code(answer) == (401, "token_invalid")


def test_rotated_signing_keys_go_on_verifying_for_a_while(ada, capsys, monkeypatch):
    token = build.tokens(ada).access_token
    published = build.client().get("/.well-known/jwks.json")
    kids = [key["kid"] for key in published.json()["keys"]]

    call_command("rotate_signing_keys")

    assert published["Access-Control-Allow-Origin"] == "*"
    assert all(set(key) == {"kty", "n", "e", "kid", "alg", "use"} for key in published.json()["keys"])
    assert SigningKey.objects.get(state=KeyState.ACTIVE).kid == kids[1]
    assert kids[1] in capsys.readouterr().out
    assert me(token).status_code == 200
    assert me(build.tokens(ada).access_token).status_code == 200
    SigningKey.objects.filter(state=KeyState.RETIRED).update(
        retired_at=timezone.now() - timedelta(minutes=16)
    )
    monkeypatch.setattr(signing, "KEY_KEPT", timedelta(0))  # What the process kept of the key is old by now.
    assert me(token).status_code == 401
    assert kids[0] not in [key["kid"] for key in build.client().get("/.well-known/jwks.json").json()["keys"]]
    assert "PRIVATE" not in str(list(SigningKey.objects.values()))


def test_stepping_up_takes_the_password_only_where_no_factor_exists(ada):
    build.organization("lab", owner=ada)
    client = build.client(login().json()["access_token"])
    new_key = {"name": "ci", "scopes": ["usage.read"]}
    assert client.post("/orgs/lab/api-keys", new_key).status_code == 201
    TokenFamily.objects.update(stepped_up_at=timezone.now() - timedelta(minutes=10))

    assert code(client.post("/orgs/lab/api-keys", new_key)) == (403, "step_up_required")
    assert code(client.post("/auth/step-up", {"password": "wrong"})) == (422, "validation_error")
    assert client.post("/auth/step-up", {"password": PASSWORD}).status_code == 204
    assert client.post("/orgs/lab/api-keys", new_key).status_code == 201
    identity.create_staff(email=ADA, password=PASSWORD, now=timezone.now())
    used = totp_code(ada)
    client = build.client(login(otp=used).json()["access_token"])
    assert code(client.post("/auth/step-up", {"password": PASSWORD})) == (422, "validation_error")
    assert code(client.post("/auth/step-up", {"otp": used})) == (422, "code_refused")


def test_a_key_logs_nobody_out(ada):
    client = build.client(build.api_key(build.organization("lab")))

    assert code(client.post("/auth/logout")) == (403, "insufficient_permissions")
    assert code(client.post("/auth/step-up", {"otp": "1"})) == (403, "insufficient_permissions")


def test_a_request_with_an_access_token_costs_one_query_wherever_it_goes(ada, django_assert_num_queries):
    lab, other = build.organization("lab", owner=ada), build.organization("other", owner=ada)
    client = build.client(build.tokens(ada).access_token)
    assert client.get("/orgs/lab").status_code == 200  # Now the process knows the signing key.
    default = ada.memberships.get(is_default=True).organization.slug

    for path, headers, slug in (
        ("/api/v1/orgs/other", {}, "other"),
        ("/api/v1/orgs/other", {"X-Org-Slug": str(other.id)}, "other"),
        (f"/api/v1/orgs/{lab.id}", {"X-Owner-ID": str(lab.id)}, "lab"),
    ):
        with django_assert_num_queries(1):  # Login, person, membership, organization.
            assert client.get(path, headers=headers).json()["slug"] == slug
    for headers, slug in (
        ({"X-Org-Slug": "other"}, "other"),
        ({"X-Owner-ID": str(lab.id)}, "lab"),
        ({}, default),
    ):
        with django_assert_num_queries(2):  # And the rows.
            (row,) = client.get("/api/v1/audit/events", {"limit": 1}, headers=headers).json()["data"]
        assert slug in str(row), (headers, row)
    with django_assert_num_queries(2):  # Nothing names an organization that she has a part in.
        assert client.get("/api/v1/orgs/nobodys").status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"suspended_at": timezone.now()},
        {"expires_at": timezone.now()},
        {"user__is_active": False},
        {"organization__status": "deleted"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_membership_out_of_force_opens_nothing_however_it_was_read(ada, change):
    build.organization("lab", owner=ada)
    client = build.client(build.tokens(ada).access_token)
    mine = Membership.objects.filter(user=ada, organization__slug="lab")
    assert client.get("/orgs/lab").status_code == 200
    assert mine.get().is_in_force(timezone.now())

    ((path, value),) = change.items()
    *related, field = path.split("__")
    row = getattr(mine.get(), related[0]) if related else mine.get()
    type(row).objects.filter(pk=row.pk).update(**{field: value})

    assert client.get("/orgs/lab").status_code == (401 if path == "user__is_active" else 404)
    assert not mine.get().is_in_force(timezone.now())
    assert not mine.in_force(timezone.now()).exists()


def test_a_retired_slug_still_finds_the_organization(ada):
    build.organization("lab", owner=ada)
    client = build.client(build.tokens(ada).access_token)
    renamed = client.patch("/orgs/lab", {"slug": "labs"}, content_type="application/json")
    assert renamed.status_code == 200, renamed.json()

    assert client.get("/orgs/lab").json()["slug"] == "labs"
    assert client.get("/orgs/labs", headers={"X-Org-Slug": "lab"}).status_code == 200


def test_roles_come_from_the_row_not_from_the_token(ada):
    lab = build.organization("lab", owner=build.user())
    build.member(lab, Role.VIEWER, user=ada)
    client = build.client(build.tokens(ada).access_token)
    assert client.post("/orgs/lab/projects", {"slug": "one"}).status_code == 403

    Membership.objects.filter(user=ada).update(role=Role.DEVELOPER)

    assert client.post("/orgs/lab/projects", {"slug": "one"}).status_code == 201
