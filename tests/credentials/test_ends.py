"""What ends somebody ends everything that speaks for them, at the next request."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
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


def let_membership_expire(lab, ada):
    Membership.objects.filter(user=ada, organization=lab).update(expires_at=timezone.now())


def delete_user(lab, ada):
    identity.delete_account(actor=build.person(ada), now=timezone.now())


def delete_organization(lab, ada):
    organizations.delete_organization(actor=build.actor(lab), organization=lab, now=timezone.now())


def suspend_organization(lab, ada):
    organizations.suspend_organization(
        actor=build.actor(lab), organization=lab, suspended=True, reason="tests"
    )


def disable_key(lab, ada):
    key = ApiKey.objects.get(organization=lab)
    credentials.change(actor=build.actor(lab), credential=key, is_active=False)


def revoke_key(lab, ada):
    key = ApiKey.objects.get(organization=lab)
    credentials.revoke(actor=build.actor(lab), credential=key, now=timezone.now())


def let_key_expire(lab, ada):
    ApiKey.objects.filter(organization=lab).update(expires_at=timezone.now())


def change_password(lab, ada):
    new = "another horse battery"
    browser = Client()
    browser.post("/accounts/login/", {"login": ADA, "password": PASSWORD})
    fields = {"oldpassword": PASSWORD, "password1": new, "password2": new}
    assert browser.post("/accounts/password/change/", fields).status_code == 302


def set_password(lab, ada):
    identity.set_password(email=ADA, password="another horse battery")


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (suspend_user, {"key": 401, "access": 401, "session": 302, "refresh": 401}),
        (suspend_membership, {"key": 401, "access": 404, "session": 404, "refresh": 404}),
        (end_membership, {"key": 401, "access": 404, "session": 404, "refresh": 404}),
        (let_membership_expire, {"key": 401, "access": 404, "session": 404, "refresh": 404}),
        (delete_user, {"key": 401, "access": 401, "session": 302, "refresh": 401}),
        (delete_organization, {"key": 401, "access": 404, "session": 404, "refresh": 404}),
        (suspend_organization, {"key": 403, "access": 403, "session": 403, "refresh": 403}),
        (disable_key, {"key": 401, "access": 200, "session": 200, "refresh": 200}),
        (revoke_key, {"key": 401, "access": 200, "session": 200, "refresh": 200}),
        (let_key_expire, {"key": 401, "access": 200, "session": 200, "refresh": 200}),
        # A key is the organization's (ADR 0056): it outlives the password of whoever made it.
        (change_password, {"key": 200, "access": 401, "session": 302, "refresh": 401}),
        (set_password, {"key": 200, "access": 401, "session": 302, "refresh": 401}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_ends_is_refused_at_the_next_request(lab, doors, end, expected):
    ada = Membership.objects.get(user__email=ADA).user

    end(lab, ada)

    assert doors.all() == expected
