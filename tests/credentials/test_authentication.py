"""Who gets in: the two headers, every way a credential can fail, and what a failure looks like."""

from __future__ import annotations

import copy
import hashlib
from datetime import timedelta
from uuid import UUID

import pytest
from django.contrib.auth import hashers
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core.errors import PermissionDenied, ValidationFailed
from apps.core.ids import uuid7
from apps.core.permissions import Permission, Role
from apps.credentials import secrets, services
from apps.credentials.models import ApiKey, Integration
from apps.organizations.models import Membership, Organization, OrganizationStatus
from tests import build

pytestmark = pytest.mark.django_db
VALIDATE = "/api/v1/auth/api-keys/validate"


@pytest.mark.parametrize("path", ["/api/v1/me", "/v1/me"])
def test_a_key_says_who_it_is(path):
    organization = build.organization("lab", name="The lab")
    secret = build.api_key(organization, ["billing.read"], name="ci")
    key = ApiKey.objects.get()

    answer = build.client(secret).get(path)

    assert answer.status_code == 200
    assert answer.json() == {
        "user": None,
        "memberships": [],
        "credential": {
            "kind": "api_key",
            "id": str(key.id),
            "public_id": key.public_id,
            "name": "ci",
            "scopes": ["billing.read"],
            "expires_at": None,
            "organization": {"id": str(organization.id), "slug": "lab", "name": "The lab"},
            "project": None,
        },
    }
    assert UUID(answer["X-Correlation-Id"]).version == 7
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", [VALIDATE, "/v1/auth/api-keys/validate", "/auth/api-keys/validate"])
def test_an_integration_is_validated_under_every_path(path):
    answer = build.client(build.integration()).post(path)

    assert answer.status_code == 200
    assert answer.json()["valid"] is True
    assert answer.json()["credential"]["kind"] == "integration"
    assert answer.json()["credential"]["organization"] is None


def test_the_secret_has_the_documented_form_and_is_not_stored():
    secret = build.api_key(build.organization())
    key = ApiKey.objects.get()

    prefix, marker, public_id, rest = secret.split("_")

    assert (prefix, marker, public_id) == ("ch", "live", key.public_id)
    assert len(public_id) == 8
    assert rest.isalnum()
    assert secret not in str(ApiKey.objects.values())
    assert len(bytes(key.digest)) == 32


def test_a_wrong_checksum_costs_no_query(django_assert_num_queries):
    secret = build.api_key(build.organization())
    mistyped = secret[:-1] + ("a" if secret[-1] != "a" else "b")

    with django_assert_num_queries(0):
        answer = build.client(mistyped).get("/api/v1/me")

    assert answer.status_code == 401
    assert answer.json()["code"] == "token_invalid"


def test_a_made_up_secret_with_a_right_checksum_is_refused():
    answer = build.client(secrets.generate("live").text).get("/api/v1/me")

    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")


def test_no_credential_is_a_401_that_says_how():
    answer = build.client().get("/api/v1/me")

    assert (answer.status_code, answer.json()["code"]) == (401, "token_missing")
    assert answer["WWW-Authenticate"].startswith("Bearer realm=")


def test_both_headers_must_agree():
    organization = build.organization()
    one, other = build.api_key(organization), build.api_key(organization)

    assert build.client(one, X_API_Key=one).get("/api/v1/me").status_code == 200
    assert build.client("", X_API_Key=one).get("/api/v1/me").status_code == 200
    assert build.client(one, X_API_Key=other).get("/api/v1/me").status_code == 401


@pytest.mark.parametrize("name", ["api_key", "access_token", "anything"])
def test_a_secret_in_the_address_is_refused_even_if_it_holds(name):
    secret = build.api_key(build.organization())

    answer = build.client(secret).get("/api/v1/me", {name: secret})

    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")


@pytest.mark.parametrize("header", ["Basic dTpw", "Bearer", "Bearer ", "Token x"])
def test_other_schemes_are_refused(header):
    answer = build.client(Authorization=header).get("/api/v1/me")

    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")


def test_an_expired_key_says_so():
    now = timezone.now()
    secret = build.api_key(
        build.organization(), expires_at=now - timedelta(seconds=1), now=now - timedelta(days=1)
    )

    answer = build.client(secret).get("/api/v1/me")

    assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")


def test_a_revoked_key_stays_out_and_a_switched_off_one_comes_back():
    organization = build.organization()
    secret = build.api_key(organization)
    key = ApiKey.objects.get()
    services.change(actor=build.actor(organization), credential=key, is_active=False)
    assert build.client(secret).get("/api/v1/me").status_code == 401
    services.change(actor=build.actor(organization), credential=key, is_active=True)
    assert build.client(secret).get("/api/v1/me").status_code == 200

    services.revoke(actor=build.actor(organization), credential=key, now=timezone.now())

    assert (build.client(secret).get("/api/v1/me").json()["code"]) == "token_invalid"


def test_the_allow_list_is_looked_at_after_the_secret():
    organization = build.organization()
    secret = build.api_key(organization, allowed_addresses=["198.51.100.0/24", "2001:db8::/32"])
    client = build.client(secret)

    assert client.get("/api/v1/me", REMOTE_ADDR="198.51.100.7").status_code == 200
    assert client.get("/api/v1/me", REMOTE_ADDR="2001:db8::1").status_code == 200
    assert client.get("/api/v1/me", REMOTE_ADDR="::ffff:198.51.100.7").status_code == 200
    refused = client.get("/api/v1/me", REMOTE_ADDR="203.0.113.1")
    assert (refused.status_code, refused.json()["code"]) == (403, "ip_not_allowed")
    key = ApiKey.objects.get()
    guess = secrets.generate("live", key.public_id).text
    assert build.client(guess).get("/api/v1/me", REMOTE_ADDR="203.0.113.1").json()["code"] == "token_invalid"


def test_suspending_the_creator_blocks_the_key_until_it_is_lifted():
    organization = build.organization()
    person = build.member(organization, Role.ADMIN)
    secret = build.api_key(organization, ["billing.read"], actor=build.user_actor(person, organization))
    membership = Membership.objects.get()
    client = build.client(secret)
    assert client.get("/api/v1/me").status_code == 200

    Membership.objects.update(suspended_at=timezone.now())
    assert client.get("/api/v1/me").json()["code"] == "token_invalid"
    Membership.objects.update(suspended_at=None)
    assert client.get("/api/v1/me").status_code == 200
    type(person).objects.update(is_active=False)
    assert client.get("/api/v1/me").json()["code"] == "token_invalid"
    type(person).objects.update(is_active=True)
    membership.delete()
    assert client.get("/api/v1/me").json()["code"] == "token_invalid"


def test_a_suspended_organization_stops_its_keys_but_not_the_operator():
    organization = build.organization()
    secret = build.api_key(organization)
    Organization.objects.update(status=OrganizationStatus.SUSPENDED)

    answer = build.client(secret).get("/api/v1/me")

    assert (answer.status_code, answer.json()["code"]) == (403, "organization_suspended")
    assert build.client(build.integration()).get("/api/v1/me").status_code == 200


def test_the_last_use_is_written_once_a_minute(django_assert_num_queries):
    secret = build.api_key(build.organization())
    client = build.client(secret)
    client.get("/api/v1/me", REMOTE_ADDR="198.51.100.7")
    first = ApiKey.objects.get()
    assert (first.last_used_address, first.last_used_at is not None) == ("198.51.100.7", True)

    with django_assert_num_queries(1):  # The key with its creator's role and its organization.
        client.get("/api/v1/me")

    assert ApiKey.objects.get().last_used_at == first.last_used_at


def _crowd(key, number):
    """Store `number` more keys like `key`."""
    rows = []
    for index in range(number):
        row = copy.copy(key)
        row.id, row.public_id = uuid7(), f"{index:08}"
        rows.append(row)
    ApiKey.objects.bulk_create(rows)


@pytest.mark.parametrize("kind", ["known", "another secret", "unknown"])
def test_authenticating_costs_one_indexed_query_and_no_slow_hash(monkeypatch, kind):
    organization = build.organization()
    now = timezone.now()
    own = build.api_key(
        organization, actor=build.user_actor(build.member(organization, Role.OWNER), organization)
    )
    services.authenticate_secret(own, address="192.0.2.7", now=now)  # Notes the use, at most once a minute.
    public_id = ApiKey.objects.get().public_id
    other = secrets.generate("live", public_id if kind == "another secret" else None).text
    compared = []
    compare = secrets.matches
    monkeypatch.setattr(secrets, "matches", lambda *pair: compared.append(pair) or compare(*pair))
    for slow in ("pbkdf2_hmac", "scrypt"):
        monkeypatch.setattr(hashlib, slow, None)
    for hasher in (hashers.BasePasswordHasher, hashers.MD5PasswordHasher):
        monkeypatch.setattr(hasher, "encode", None)

    with CaptureQueriesContext(connection) as queries:
        if kind == "known":
            services.authenticate_secret(own, address="192.0.2.7", now=now)
        else:
            with pytest.raises(services.TokenInvalid):
                services.authenticate_secret(other, address="192.0.2.7", now=now)

    (query,) = queries.captured_queries
    assert len(compared) == (0 if kind == "unknown" else 1)
    _crowd(ApiKey.objects.get(), 2_000)
    with connection.cursor() as cursor:
        # A plan follows from what the tables hold, and nobody else says when statistics are taken: so many
        # keys that any other way costs a hundred times as much, counted here and now.
        cursor.execute(f"ANALYZE {ApiKey._meta.db_table}")
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {query['sql']}")
        plan = "\n".join(row for (row,) in cursor.fetchall())
    assert "Index Scan using credentials_apikey_public_id" in plan
    assert "Seq Scan" not in plan


def test_a_rotated_secret_works_beside_the_old_one_for_the_overlap():
    organization = build.organization()
    old = build.api_key(organization)
    key = ApiKey.objects.get()
    now = timezone.now()

    key, new = services.rotate(
        actor=build.actor(organization), credential=key, overlap=timedelta(hours=1), now=now
    )

    assert new.split("_")[2] == old.split("_")[2]
    for secret in (old, new):
        assert services.authenticate_secret(secret, address="", now=now)[0] == key
    assert services.authenticate_secret(new, address="", now=now + timedelta(hours=1))[0] == key
    with pytest.raises(services.TokenInvalid):
        services.authenticate_secret(old, address="", now=now + timedelta(hours=1))


def test_nobody_grants_more_than_they_have():
    organization = build.organization()
    developer = build.member(organization, Role.DEVELOPER)
    actor = build.user_actor(developer, organization)

    with pytest.raises(PermissionDenied) as refusal:
        build.api_key(organization, ["usage.read", "members.manage"], actor=actor)

    assert refusal.value.details["permissions"] == ["members.manage"]
    assert not ApiKey.objects.exists()


def test_a_key_made_by_a_key_ends_with_it():
    organization = build.organization()
    now = timezone.now()
    build.api_key(
        organization, [Permission.API_KEYS_CREATE, Permission.USAGE_READ], expires_at=now + timedelta(days=1)
    )
    parent = ApiKey.objects.get()

    build.api_key(organization, ["usage.read"], actor=parent.actor(""), expires_at=now + timedelta(days=9))

    child = ApiKey.objects.exclude(pk=parent.pk).get()
    assert child.expires_at == parent.expires_at


def test_what_cannot_be_a_credential_is_named_field_by_field():
    with pytest.raises(ValidationFailed) as refusal:
        build.api_key(
            build.organization(), ["nonsense"], name=" ", expires_at=timezone.now() - timedelta(days=1)
        )

    assert [field.path for field in refusal.value.fields] == ["name", "scopes", "expires_at"]
    with pytest.raises(ValidationFailed) as refusal:
        build.integration(allowed_addresses=["10.0.0.0/8", "nowhere"])
    assert [field.path for field in refusal.value.fields] == ["allowed_ips.1"]
    assert not Integration.objects.exists()
