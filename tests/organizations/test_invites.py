"""Invites: one address, one role, once, and nothing learned by whoever they are not for."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from functools import partial

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.db import connection
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.permissions import Role
from apps.core.redaction import redact, redact_text
from apps.organizations import services as organizations
from apps.organizations.models import Invite, Membership, Organization, OrganizationStatus
from apps.outbox.models import OutboxEvent
from tests import build
from tests.threads import at_once

pytestmark = pytest.mark.django_db
INVITES = "/api/v1/orgs/lab/invites"
BOB = "bob@example.com"


@pytest.fixture
def lab():
    return build.organization("lab", name="The lab")


@pytest.fixture
def owner(lab):
    return build.member(lab, Role.OWNER)


@pytest.fixture
def send(lab, owner, run_jobs):
    """Return the function that invites an address and returns the token of the mail."""

    def invite(email=BOB, role="developer", path=INVITES, sender=None):
        answer = build.person_client(sender or owner).post(path, {"email": email, "role": role})
        assert answer.status_code == 201, answer.json()
        run_jobs()
        return token()

    return invite


def token():
    return re.search(r"/app/invites/(\S+)", mail.outbox[-1].body)[1]


def bob(**fields):
    return build.user(BOB, **fields)


def code(answer):
    return answer.status_code, answer.json()["code"]


def without_id(answer):
    return answer.status_code, {**answer.json(), "correlation_id": ""}


@pytest.mark.parametrize("path", [INVITES, "/orgs/lab/members"])
def test_an_invited_person_becomes_a_member_once(lab, send, path):
    found = send("Bob@Example.com", path=path)

    assert (mail.outbox[0].to, mail.outbox[0].subject) == ([BOB], "Join The lab on Countinghouse")
    assert build.client().get(f"/invites/{found}").json() == {"organization": {"name": "The lab"}}
    client = build.person_client(bob())
    shown = client.get(f"/invites/{found}").json()
    assert (shown["organization"], shown["email"], shown["role"]) == ({"name": "The lab"}, BOB, "developer")
    accepted = client.post(f"/api/v1/invites/{found}/accept")
    assert (accepted.status_code, accepted.json()["organization"], accepted.json()["role"]) == (
        200,
        "lab",
        "developer",
    )
    assert client.get("/orgs/lab/projects").status_code == 200
    again = client.post(f"/invites/{found}/accept")
    assert code(again) == (404, "not_found")
    assert Membership.objects.filter(user__email=BOB).count() == 1
    assert {"invite.created", "invite.accepted", "member.added"} <= set(
        AuditEvent.objects.values_list("action", flat=True)
    )


def test_two_who_accept_one_invite_at_once_make_one_membership(transactional_db, run_jobs):
    lab = build.organization("lab")
    owner = build.member(lab, Role.OWNER)
    build.person_client(owner).post(INVITES, {"email": BOB, "role": "viewer"})
    run_jobs()
    person = bob()

    results = at_once(*[partial(build.person_client(person).post, f"/invites/{token()}/accept")] * 2)

    assert sorted(answer.status_code for answer in results) == [200, 404]
    assert Membership.objects.filter(user=person).count() == 1


def test_two_who_accept_the_last_seat_at_once_get_one(transactional_db, run_jobs):
    lab = build.organization("lab")
    owner = build.member(lab, Role.OWNER)
    people = []
    for email in (BOB, "eve@example.com"):
        build.person_client(owner).post(INVITES, {"email": email, "role": "viewer"})
        run_jobs()
        people.append((build.user(email), token()))
    build.limit(lab, "members", 2)

    results = at_once(
        *(partial(build.person_client(person).post, f"/invites/{own}/accept") for person, own in people)
    )

    assert sorted(answer.status_code for answer in results) == [200, 409]
    assert Membership.objects.filter(organization=lab).count() == 2


@pytest.mark.parametrize(
    "spoil",
    [
        "unknown",
        "resent",
        "revoked",
        "expired",
        "wrong person",
        "unverified",
        "deleted",
        "suspended",
        "inviter",
    ],
)
def test_what_cannot_be_accepted_is_the_same_404(lab, owner, send, run_jobs, spoil):
    found, person, other_owner = send(), bob(verified=spoil != "unverified"), build.member(lab, Role.OWNER)
    invite = Invite.objects.get()
    client = build.person_client(person)
    if spoil == "unknown":
        found = found[::-1]
    elif spoil == "resent":
        build.person_client(owner).post(f"{INVITES}/{invite.id}/resend")
        run_jobs()
    elif spoil == "revoked":
        assert build.person_client(owner).delete(f"{INVITES}/{invite.id}").status_code == 204
    elif spoil == "expired":
        Invite.objects.update(expires_at=timezone.now())
    elif spoil == "wrong person":
        client = build.person_client(build.user("eve@example.com"))
    elif spoil in ("deleted", "suspended"):
        Organization.objects.update(status=OrganizationStatus(spoil))
    elif spoil == "inviter":
        member = Membership.objects.get(user=owner)
        changed = build.person_client(other_owner).patch(f"/orgs/lab/members/{member.id}", {"role": "viewer"})
        assert changed.status_code == 200

    nothing = without_id(client.post("/invites/nonsense/accept"))
    assert nothing[0] == 404
    assert without_id(client.get(f"/invites/{found}")) == nothing
    assert without_id(client.post(f"/invites/{found}/accept")) == nothing
    assert without_id(client.post(f"/invites/{found}/decline")) == nothing
    assert not Membership.objects.filter(user__email__in=[BOB, "eve@example.com"]).exists()


def test_answering_needs_a_person(lab, send):
    found = send()

    assert code(build.client().post(f"/invites/{found}/accept")) == (401, "token_missing")
    assert code(build.client(build.api_key(lab)).post(f"/invites/{found}/accept")) == (
        403,
        "insufficient_permissions",
    )
    assert build.client(build.api_key(lab)).get(f"/invites/{found}").json() == {
        "organization": {"name": "The lab"}
    }


def test_a_resent_invite_has_a_new_link_and_time(lab, owner, send, run_jobs):
    old = send()
    Invite.objects.update(expires_at=timezone.now())

    answer = build.person_client(owner).post(f"{INVITES}/{Invite.objects.get().id}/resend")
    run_jobs()

    assert answer.json()["state"] == "pending"
    assert token() != old
    assert len(mail.outbox) == 2
    assert build.client().get(f"/invites/{old}").status_code == 404
    assert build.person_client(bob()).post(f"/invites/{token()}/accept").status_code == 200


def test_a_second_verified_address_counts(lab, send):
    found = send()
    person = build.user("robert@example.com")
    EmailAddress.objects.create(user=person, email=BOB, verified=True)

    assert build.person_client(person).post(f"/invites/{found}/accept").status_code == 200


def test_ones_own_invites_are_listed_accepted_and_declined(lab, send):
    send()
    other = build.organization("other", name="Other")
    send(path="/orgs/other/invites", sender=build.member(other, Role.OWNER))
    send("eve@example.com")
    client = build.person_client(bob())

    rows = client.get("/invites/mine").json()["data"]

    assert [row["organization"]["name"] for row in rows] == ["Other", "The lab"]
    assert client.post(f"/invites/mine/{rows[1]['id']}/accept").status_code == 200
    assert client.post(f"/invites/mine/{rows[0]['id']}/decline").status_code == 204
    assert client.get("/invites/mine").json()["data"] == []
    foreign = Invite.objects.get(email="eve@example.com")
    assert client.post(f"/invites/mine/{foreign.id}/accept").status_code == 404
    assert Invite.objects.get(organization=other).state(timezone.now()) == "declined"


@pytest.mark.parametrize("role", Role)
def test_nobody_invites_to_more_than_they_have(lab, owner, role):
    client = build.person_client(build.member(lab, Role.ADMIN))

    answer = client.post(INVITES, {"email": BOB, "role": role})

    assert answer.status_code == (403 if role == Role.OWNER else 201)


def test_members_and_invited_addresses_are_not_invited_again(lab, owner, send):
    send()
    client = build.person_client(owner)

    assert code(client.post(INVITES, {"email": "BOB@example.com", "role": "viewer"})) == (
        409,
        "already_invited",
    )
    assert code(client.post(INVITES, {"email": owner.email, "role": "viewer"})) == (409, "already_member")
    Invite.objects.update(expires_at=timezone.now())
    assert client.post(INVITES, {"email": BOB, "role": "viewer"}).status_code == 201
    states = [row["state"] for row in client.get(INVITES).json()["data"]]
    assert states == ["pending", "revoked"]


def test_seats_are_those_of_the_plan(lab, owner):
    build.limit(lab, "members", 2)
    client = build.person_client(owner)
    assert client.post(INVITES, {"email": BOB, "role": "viewer"}).status_code == 201

    refused = client.post(INVITES, {"email": "eve@example.com", "role": "viewer"})

    assert code(refused) == (409, "quota_exceeded")
    assert refused.json()["details"].items() >= {"quota": "members", "limit": 2, "used": 2}.items()
    assert Invite.objects.count() == 1
    build.limit(lab, "members", None)
    assert client.post(INVITES, {"email": "eve@example.com", "role": "viewer"}).status_code == 201


def test_the_token_is_in_the_mail_and_nowhere_else(lab, send, captured_jobs, caplog):
    with caplog.at_level(logging.DEBUG):
        found = send()
        build.person_client(bob()).post(f"/invites/{found}/accept")

    assert found in mail.outbox[0].body
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT count(*) FROM "{table}" AS row WHERE row::text LIKE %s', [f"%{found}%"])
            assert cursor.fetchone()[0] == 0, table
    for record in caplog.records:
        logged = record.msg if isinstance(record.msg, dict) else {"event": record.getMessage()}
        assert found not in str(redact(None, "", dict(logged)))
    assert OutboxEvent.objects.filter(event_type="organizations.invite_created").count() == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET /invites/abc-DEF_1/accept?x=1", "GET /invites/…/accept?x=1"),
        ("/app/invites/abc", "/app/invites/…"),
        ("GET /invites/mine", "GET /invites/mine"),
        ("GET /invites/mine/1/accept", "GET /invites/mine/1/accept"),
        ("GET /orgs/lab/invites", "GET /orgs/lab/invites"),
        (f"key ch_live_abcdefgh_{'x' * 49} sent", "key ch_live_abcdefgh_… sent"),
        ("Bearer eyJhbGciOiJ9.e30.c2ln", "Bearer …"),
    ],
)
def test_logs_show_no_tokens(text, shown):
    assert redact_text(text) == shown


def test_a_mail_that_a_crash_lost_is_sent_once(lab, owner, captured_jobs):
    build.person_client(owner).post(INVITES, {"email": BOB, "role": "viewer"})
    captured_jobs.queued.clear()
    later = timezone.now() + timedelta(minutes=5)

    lost = organizations.unmailed(now=later)
    for _twice in range(2):
        for invite_id in lost:
            organizations.mail_invite(invite_id=invite_id, now=later)

    assert len(mail.outbox) == 1
    assert organizations.unmailed(now=later) == []


def test_markup_in_a_name_is_text(lab, send):
    Organization.objects.update(name="<a href=x>Lab</a>\nBcc: x")

    send()

    assert "\n" not in mail.outbox[0].subject
    assert "<a href=x>Lab</a>" in mail.outbox[0].body
    assert mail.outbox[0].content_subtype == "plain"


def test_invites_of_others_look_like_none(lab, owner, send):
    other = build.organization("other")
    send(path="/orgs/other/invites", sender=build.member(other, Role.OWNER))
    foreign = Invite.objects.get()
    client = build.person_client(owner)

    assert client.get(f"{INVITES}/{foreign.id}").status_code == 404
    assert client.delete(f"{INVITES}/{foreign.id}").status_code == 404
    assert client.post(f"{INVITES}/{foreign.id}/resend").status_code == 404
    assert client.get(INVITES).json()["data"] == []
