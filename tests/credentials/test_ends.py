"""What ends somebody ends everything that speaks for them, at the next request."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from django.core import mail
from django.db import connection
from django.test import Client
from django.utils import timezone

from apps.core.actor import system_actor
from apps.core.permissions import Role
from apps.credentials import services as credentials
from apps.credentials.models import ApiKey
from apps.identity import services as identity
from apps.organizations import services as organizations
from apps.organizations.models import Membership
from tests import build
from tests.identity.codes import code_at

PASSWORD = "correct horse battery"
ADA = "ada@example.com"


@dataclass
class Doors:
    """Four ways in that all work: a key, an access token, a refresh token and a session."""

    key: str
    access: str
    refresh: str
    browser: Client

    def through_key(self) -> int:
        return build.client(self.key).get("/orgs/lab").status_code

    def through_access(self) -> int:
        return build.client(self.access).get("/orgs/lab").status_code

    def through_session(self) -> int:
        return self.browser.get("/app/lab").status_code

    def through_refresh(self) -> int:
        """Refresh, and use what comes of it."""
        answer = build.client().post("/auth/refresh", {"refresh_token": self.refresh})
        if answer.status_code != 200:
            return answer.status_code
        return build.client(answer.json()["access_token"]).get("/orgs/lab").status_code

    def all(self) -> dict[str, int]:
        return {
            "key": self.through_key(),
            "access": self.through_access(),
            "session": self.through_session(),
            "refresh": self.through_refresh(),
        }


@pytest.fixture
def lab(db):
    found = build.organization("lab")
    build.member(found, Role.OWNER)
    return found


@pytest.fixture
def doors(lab):
    ada = build.member(lab, Role.ADMIN, user=build.user(ADA, password=PASSWORD))
    key = build.api_key(lab, ["organization.read"], actor=build.user_actor(ada, lab))
    tokens = build.tokens(ada, PASSWORD)
    browser = Client()
    browser.post("/accounts/login/", {"login": ADA, "password": PASSWORD})
    found = Doors(key=key, access=tokens.access_token, refresh=tokens.refresh_token, browser=browser)
    assert (found.through_key(), found.through_access(), found.through_session()) == (200, 200, 200)
    return found


def suspend_user(lab, ada):
    identity.change_user(actor=system_actor("tests"), user_id=ada.pk, changes={"is_active": False})


def suspend_membership(lab, ada):
    membership = Membership.objects.get(user=ada, organization=lab)
    organizations.change_member(
        actor=build.actor(lab), membership=membership, suspended=True, now=timezone.now()
    )


def end_membership(lab, ada):
    membership = Membership.objects.get(user=ada, organization=lab)
    organizations.remove_member(actor=build.actor(lab), membership=membership, now=timezone.now())


def suspend_organization(lab, ada):
    organizations.suspend_organization(
        actor=build.actor(lab), organization=lab, suspended=True, reason="tests"
    )


def disable_key(lab, ada):
    key = ApiKey.objects.get(organization=lab)
    credentials.change(actor=build.actor(lab), credential=key, is_active=False)


def change_password(lab, ada):
    identity.set_password(email=ADA, password="another horse battery")


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (suspend_user, {"key": 401, "access": 401, "session": 302, "refresh": 401}),
        (suspend_membership, {"key": 401, "access": 404, "session": 404, "refresh": 404}),
        (end_membership, {"key": 401, "access": 404, "session": 404, "refresh": 404}),
        (suspend_organization, {"key": 403, "access": 403, "session": 403, "refresh": 403}),
        (disable_key, {"key": 401, "access": 200, "session": 200, "refresh": 200}),
        # A key is the organization's: it outlives the password of whoever made it.
        (change_password, {"key": 200, "access": 401, "session": 302, "refresh": 401}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_ends_is_refused_at_the_next_request(lab, doors, end, expected):
    ada = Membership.objects.get(user__email=ADA).user

    end(lab, ada)

    assert doors.all() == expected


def everything_stored() -> str:
    """Return every row of every table as text, as a stolen dump would have it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        dump = []
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT string_agg(t::text, E'\\n') FROM \"{table}\" AS t")
            dump.append(f"{table}\n{cursor.fetchone()[0]}")
    return "\n".join(dump)


def test_no_table_and_no_log_holds_what_opens_a_door(lab, doors, run_jobs, caplog):
    ada = Membership.objects.get(user__email=ADA).user
    client = build.client(doors.access)
    secret = client.post("/api/v1/mfa/totp").json()["secret"]
    verified = client.post("/api/v1/mfa/totp/verify", {"code": code_at(secret, timezone.now())})
    recovery = verified.json()["recovery_codes"]
    build.client().post("/auth/signup", {"email": "new@example.com", "password": "a new horse battery"})
    Client().post("/accounts/password/reset/", {"email": ADA})
    organizations.invite(
        actor=build.user_actor(ada, lab),
        organization=lab,
        email="friend@example.com",
        role=Role.VIEWER,
        now=timezone.now(),
    )
    run_jobs()
    paths = [
        re.search(r"https?://[^/\s]+(/\S+)", message.body)[1]
        for message in mail.outbox
        if re.search(r"/(confirm|key|invites)/", message.body)
    ]
    assert len(paths) == 3
    for path in paths:
        Client().get(path)
        build.client(doors.key).get(path)
    refreshed = build.client().post("/auth/refresh", {"refresh_token": doors.refresh}).json()

    tokens = [path.strip("/").rpartition("/")[2] for path in paths]
    secrets = [
        doors.key,
        doors.key.rpartition("_")[2],
        doors.access,
        doors.refresh,
        refreshed["access_token"],
        refreshed["refresh_token"],
        secret,
        *recovery,
        *tokens,
        PASSWORD,
        "a new horse battery",
    ]
    assert all(len(one) >= 8 for one in secrets)
    dump, log = everything_stored(), caplog.text
    assert ADA in dump
    assert "/accounts/confirm/…" in log
    for place, text in (("dump", dump), ("log", log)):
        for one in secrets:
            assert one not in text, f"{one[:6]}… in the {place}"
            assert one.encode().hex() not in text, f"{one[:6]}… in the {place}, as bytes"
