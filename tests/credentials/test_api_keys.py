"""Keys over REST: made, shown once, rotated, switched off, revoked, and never more than their maker."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.permissions import Permission, Role
from apps.credentials.models import ApiKey, Integration
from apps.idempotency.models import StoredAnswer
from apps.organizations.models import Membership
from apps.outbox.models import OutboxEvent
from tests import build

pytestmark = pytest.mark.django_db
KEYS = "/api/v1/orgs/lab/api-keys"
LEAKS = "/api/v1/credentials/leaks"


@pytest.fixture
def lab():
    return build.organization("lab")


@pytest.fixture
def developer(lab):
    return build.member(lab, Role.DEVELOPER, user=build.user("dev@example.com", name="Dev"))


def code(answer):
    return answer.status_code, answer.json()["code"]


def works(secret):
    return build.client(secret).get("/api/v1/me").status_code == 200


def test_a_key_is_shown_once_and_kept_nowhere(lab, developer):
    build.project(lab, "training")
    client = build.person_client(developer)

    answer = client.post(
        KEYS,
        {"name": "ci", "scopes": ["usage.read"], "project": "training", "allowed_ips": ["127.0.0.1"]},
    )

    assert answer.status_code == 201
    made = answer.json()
    secret = made.pop("secret")
    key = ApiKey.objects.get()
    assert made == {
        "id": str(key.id),
        "public_id": key.public_id,
        "masked": f"ch_live_{key.public_id}_…",
        "name": "ci",
        "scopes": ["usage.read"],
        "project": "training",
        "allowed_ips": ["127.0.0.1/32"],
        "is_active": True,
        "expires_at": None,
        "revoked_at": None,
        "previous_expires_at": None,
        "last_used_at": None,
        "created_by": {"id": str(developer.pk), "email": "dev@example.com", "name": "Dev"},
        "created_at": made["created_at"],
    }
    assert works(secret)
    assert secret not in client.get(KEYS).text
    assert client.get(f"{KEYS}/{key.id}").json()["public_id"] == key.public_id
    for table in (ApiKey, AuditEvent, OutboxEvent):
        assert secret.rpartition("_")[2] not in str(list(table.objects.values()))


def test_a_repeated_request_gets_the_key_with_its_secret_masked(lab, developer):
    client = build.person_client(developer, X_Idempotency_Key="once")
    body = {"name": "ci", "scopes": ["usage.read"]}

    first, again = client.post(KEYS, body), client.post(KEYS, body)

    assert (again.status_code, again["Idempotent-Replayed"]) == (201, "true")
    assert again.json() == first.json() | {"secret": first.json()["masked"]}
    assert first.json()["secret"].encode() not in bytes(StoredAnswer.objects.get().body)
    assert ApiKey.objects.count() == 1


def test_a_person_steps_up_before_touching_keys_but_reads_them_without(lab, developer):
    build.api_key(lab, ["usage.read"])
    key = ApiKey.objects.get()
    client = build.person_client(developer, stepped_up=False)

    assert client.get(KEYS).status_code == 200
    assert code(client.post(KEYS, {"name": "x", "scopes": ["usage.read"]})) == (403, "step_up_required")
    assert code(client.delete(f"{KEYS}/{key.id}")) == (403, "step_up_required")
    assert code(client.post(f"{KEYS}/{key.id}/rotate")) == (403, "step_up_required")


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.ADMIN])
def test_nobody_makes_a_key_that_can_do_more_than_they(lab, role):
    client = build.person_client(build.member(lab, role))

    refused = client.post(KEYS, {"name": "x", "scopes": ["usage.read", "organization.delete"]})

    assert code(refused) == (403, "insufficient_permissions")
    assert refused.json()["details"]["permissions"] == ["organization.delete"]
    assert not ApiKey.objects.exists()


def test_a_key_makes_keys_within_itself_only(lab):
    project, other = build.project(lab, "training"), build.project(lab, "other")
    ends = timezone.now() + timedelta(days=3)
    secret = build.api_key(
        lab,
        ["api_keys.create", "usage.read"],
        project=project,
        expires_at=ends,
        allowed_addresses=["127.0.0.0/8"],
    )
    client = build.client(secret)

    def make(**fields):
        return client.post(KEYS, {"name": "child", "scopes": ["usage.read"], **fields})

    assert make(scopes=["billing.read"]).status_code == 403
    assert make(project=other.slug).status_code == 403
    assert make(allowed_ips=["0.0.0.0/0"]).status_code == 403
    assert make(allowed_ips=["::1"]).status_code == 403
    child = make(expires_at=(ends + timedelta(days=9)).isoformat()).json()
    assert child["expires_at"] == ends.isoformat().replace("+00:00", "Z")
    assert (child["project"], child["allowed_ips"]) == ("training", ["127.0.0.0/8"])
    narrow = make(allowed_ips=["127.0.0.1"], project=str(project.id)).json()
    assert narrow["allowed_ips"] == ["127.0.0.1/32"]


def test_nobody_gets_the_secret_of_a_key_that_can_do_more_than_they(lab, developer):
    build.api_key(lab, ["billing.manage"])
    key = ApiKey.objects.get()

    for client in (
        build.person_client(developer),
        build.client(build.api_key(lab, ["api_keys.manage", "usage.read"])),
    ):
        assert code(client.post(f"{KEYS}/{key.id}/rotate")) == (403, "insufficient_permissions")
        assert code(client.patch(f"{KEYS}/{key.id}", {"is_active": False})) == (
            403,
            "insufficient_permissions",
        )
        assert code(client.delete(f"{KEYS}/{key.id}")) == (403, "insufficient_permissions")
    key.refresh_from_db()
    assert key.works(timezone.now())


def test_a_key_that_ends_handles_none_that_lasts_longer(lab):
    build.api_key(lab, ["usage.read"])
    forever = ApiKey.objects.get()
    client = build.client(
        build.api_key(lab, ["api_keys.manage", "usage.read"], expires_at=timezone.now() + timedelta(days=1))
    )

    assert code(client.post(f"{KEYS}/{forever.id}/rotate")) == (403, "insufficient_permissions")


def test_a_demoted_maker_takes_permissions_from_their_keys(lab, developer):
    secret = build.api_key(lab, ["projects.manage", "projects.read"], actor=build.user_actor(developer, lab))
    client = build.client(secret)
    assert client.post("/orgs/lab/projects", {"slug": "one"}).status_code == 201

    Membership.objects.update(role=Role.VIEWER)

    assert client.post("/orgs/lab/projects", {"slug": "two"}).status_code == 403
    assert client.get("/orgs/lab/projects").status_code == 200


def test_a_rotated_secret_overlaps_and_then_ends(lab, developer):
    secret = build.api_key(lab, ["usage.read"])
    key = ApiKey.objects.get()
    client = build.person_client(developer)

    answer = client.post(f"{KEYS}/{key.id}/rotate", {"overlap_seconds": 3600})

    assert answer.status_code == 200
    new = answer.json()["secret"]
    assert answer.json()["previous_expires_at"] is not None
    assert works(secret)
    assert works(new)
    ApiKey.objects.update(previous_expires_at=timezone.now())
    assert not works(secret)
    newest = client.post(f"{KEYS}/{key.id}/rotate").json()["secret"]
    assert not works(new)
    assert works(newest)


@pytest.mark.parametrize("overlap", [-1, 7 * 86_400 + 1, "60", 10**18])
def test_an_overlap_is_at_most_seven_days(lab, developer, overlap):
    build.api_key(lab, ["usage.read"])
    key = ApiKey.objects.get()

    answer = build.person_client(developer).post(f"{KEYS}/{key.id}/rotate", {"overlap_seconds": overlap})

    assert answer.json()["details"]["fields"][0]["path"] == "overlap_seconds"


def test_a_key_is_renamed_switched_off_and_on_and_revoked(lab, developer):
    secret = build.api_key(lab, ["usage.read"], name="ci")
    path = f"{KEYS}/{ApiKey.objects.get().id}"
    client = build.person_client(developer)

    assert client.patch(path, {"name": "nightly", "is_active": False}).json()["name"] == "nightly"
    assert not works(secret)
    assert client.patch(path, {"is_active": True}).json()["is_active"] is True
    assert works(secret)
    assert client.delete(path).status_code == 204
    assert not works(secret)
    assert client.get(KEYS, {"revoked": "true"}).json()["data"][0]["revoked_at"] is not None
    assert client.get(KEYS, {"revoked": "false"}).json()["data"] == []
    assert code(client.post(f"{path}/rotate")) == (409, "credential_revoked")
    actions = AuditEvent.objects.filter(action__startswith="api_key.").values_list("action", flat=True)
    assert set(actions) == {
        "api_key.created",
        "api_key.renamed",
        "api_key.deactivated",
        "api_key.activated",
        "api_key.revoked",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"scopes": []},
        {"scopes": ["everything"]},
        {"scopes": ["usage:write"]},
        {"project": "none"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"allowed_ips": ["nowhere"]},
    ],
)
def test_what_is_wrong_is_named(lab, wrong):
    client = build.client(build.api_key(lab))

    answer = client.post(KEYS, {"name": "x", "scopes": ["usage.read"], **wrong})

    assert answer.status_code == 422
    assert answer.json()["details"]["fields"][0]["path"].split(".")[0] == next(iter(wrong))
    assert ApiKey.objects.count() == 1


def test_keys_and_projects_of_others_look_like_none(lab):
    other = build.organization("other")
    build.api_key(other, ["usage.read"])
    foreign = ApiKey.objects.get()
    project = build.project(other, "theirs")
    client = build.client(build.api_key(lab))

    for method, path in (("get", ""), ("patch", ""), ("delete", ""), ("post", "/rotate")):
        assert getattr(client, method)(f"{KEYS}/{foreign.id}{path}").status_code == 404
    for reference in (project.slug, str(project.id)):
        answer = client.post(KEYS, {"name": "x", "scopes": ["usage.read"], "project": reference})
        assert answer.json()["details"]["fields"][0]["path"] == "project"


def test_leaked_secrets_are_revoked_and_their_owners_told(lab):
    leaked, kept = build.api_key(lab, ["usage.read"]), build.api_key(lab, ["usage.read"])
    integration = build.integration()
    wrong = leaked[:-1] + ("a" if leaked[-1] != "a" else "b")
    public_id = kept.split("_")[2]

    answer = build.client().post(
        LEAKS, {"tokens": [f" {leaked} ", leaked, integration, wrong, public_id, "x"]}
    )

    assert (answer.status_code, answer.content) == (202, b"")
    assert not works(leaked)
    assert not works(integration)
    assert works(kept)
    assert Integration.objects.get().revoked_at is not None
    event = OutboxEvent.objects.get(event_type="credentials.api_key_leaked")
    assert event.organization_id == lab.id
    assert AuditEvent.objects.get(action="api_key.leaked").address == "127.0.0.1"
    assert leaked not in str(list(AuditEvent.objects.values()))


def test_reporting_what_is_not_ours_is_answered_alike(lab):
    answer = build.client().post(LEAKS, {"tokens": ["ghp_nothing", "ch_live_nonsense"]})

    assert (answer.status_code, answer.content) == (202, b"")
    assert build.client().post(LEAKS, {"tokens": ["x"] * 101}).status_code == 422
    assert not AuditEvent.objects.filter(action__endswith=".leaked").exists()


def test_every_permission_can_be_a_scope(lab):
    owner = build.person_client(build.member(lab, Role.OWNER))

    answer = owner.post(KEYS, {"name": "all", "scopes": list(Permission)})

    assert answer.json()["scopes"] == sorted(Permission)
