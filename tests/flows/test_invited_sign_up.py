"""With sign-up closed, whoever was invited makes the account that the invite needs, and nobody else."""

from __future__ import annotations

import re

import pytest
from django.core import mail
from django.test import Client
from django.utils import timezone

from apps.core.permissions import Role
from apps.identity.models import SignUp, User
from apps.organizations import services as organizations
from apps.organizations.models import Membership, Organization
from tests import build

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
FRIEND = "friend@example.com"


@pytest.fixture
def invite(settings):
    settings.SIGNUP_OPEN = False
    lab = build.organization("lab")
    owner = build.member(lab, Role.OWNER)
    return organizations.invite(
        actor=build.user_actor(owner, lab),
        organization=lab,
        email=FRIEND,
        role=Role.VIEWER,
        now=timezone.now(),
    )


def sign_up(browser, target, email=FRIEND):
    page = browser.get("/accounts/signup/", {"next": target})
    fields = {"email": email, "password1": PASSWORD, "name": "A Friend", "next": target}
    return page, browser.post("/accounts/signup/", fields)


def test_the_invited_person_signs_up_and_joins(invite, run_jobs):
    browser = Client()
    target = f"/app/invites/{organizations.token_of(invite)}"
    assert "/accounts/signup/?next=" in browser.get(target).text

    page, answer = sign_up(browser, target)
    assert "Signing up is closed" not in page.text
    assert answer.headers["Location"] == "/accounts/confirm-email/"
    run_jobs()
    confirm = [re.search(r"(/accounts/confirm/\S+)", message.body) for message in mail.outbox]
    came = browser.post(next(found[1] for found in confirm if found))

    assert came.headers["Location"] == target
    joined = browser.post(target, {"answer": "accept"})
    assert joined.headers["Location"] == "/app/lab"
    (membership,) = Membership.objects.filter(user__email=FRIEND)
    assert (membership.organization.slug, membership.role) == ("lab", "viewer")
    assert Organization.objects.count() == 1, "nobody was promised one of their own"


def test_over_rest_the_token_comes_along(invite):
    body = {"email": FRIEND, "password": PASSWORD}
    token = organizations.token_of(invite)

    assert build.client().post("/auth/signup", body | {"invite": token}).status_code == 202
    for wrong in ("", "x", token[:-1]):
        refusal = build.client().post("/auth/signup", body | {"invite": wrong})
        assert (refusal.status_code, refusal.json()["code"]) == (403, "signup_closed")


def test_an_invite_makes_no_account_for_another_address(invite):
    target = f"/app/invites/{organizations.token_of(invite)}"

    _page, answer = sign_up(Client(), target, email="mallory@example.com")

    assert "Sign up with the address that the invite was sent to." in answer.text
    body = {"email": "mallory@example.com", "password": PASSWORD, "invite": organizations.token_of(invite)}
    assert build.client().post("/auth/signup", body).status_code == 422
    assert not SignUp.objects.exists()


@pytest.mark.parametrize("over", ["revoked", "resent", "expired", "none", "elsewhere"])
def test_without_an_open_invite_the_door_stays_closed(invite, over):
    now = timezone.now()
    token = organizations.token_of(invite)
    target = f"/app/invites/{token}"
    if over == "revoked":
        organizations.revoke_invite(actor=build.actor(), invite=invite, now=now)
    elif over == "resent":
        organizations.resend(actor=build.actor(), invite=invite, now=now)
    elif over == "expired":
        type(invite).objects.update(expires_at=now)
    else:
        target = "" if over == "none" else f"//evil.example/app/{token}"

    page, answer = sign_up(Client(), target)

    assert "Signing up is closed" in page.text
    assert "Signing up is closed" in answer.text
    assert not SignUp.objects.exists()
    assert not User.objects.filter(email=FRIEND).exists()
