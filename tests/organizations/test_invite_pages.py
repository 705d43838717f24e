"""The pages with which a person answers an invite."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone

from apps.core.permissions import Role
from apps.organizations import services as organizations
from apps.organizations.models import Invite, Membership
from tests import build


@pytest.fixture
def lab(db):
    return build.organization("lab", name="Bright Lab")


@pytest.fixture
def invite(lab):
    owner = build.member(lab, Role.OWNER, user=build.user("owner@example.com", name="Olga Owner"))
    return organizations.invite(
        actor=build.user_actor(owner, lab),
        organization=lab,
        email="ada@example.com",
        role=Role.DEVELOPER,
        now=timezone.now(),
    )


def link(invite):
    return f"/app/invites/{organizations.token_of(invite)}"


def test_signed_out_it_tells_the_name_only_and_how_to_come_back(invite):
    page = Client().get(link(invite))

    assert page.status_code == 200
    assert "Bright Lab invites you" in page.text
    assert f'href="/accounts/login/?next={link(invite)}"' in page.text
    assert not any(told in page.text for told in ("ada@example.com", "Olga", "Developer"))


def test_the_person_accepts_and_works_there(invite, lab):
    client = build.browser(build.user("ada@example.com"))
    page = client.get(link(invite))
    assert all(told in page.text for told in ("ada@example.com", "Olga Owner", "Developer"))
    assert not Membership.objects.filter(user__email="ada@example.com").exists(), "looking changes nothing"

    answer = client.post(link(invite), {"answer": "accept"})

    assert answer.headers["Location"] == "/app/lab"
    assert Membership.objects.get(user__email="ada@example.com").role == Role.DEVELOPER
    assert client.get(link(invite)).status_code == 404, "it works once"


def test_the_person_declines(invite):
    client = build.browser(build.user("ada@example.com"))

    answer = client.post(link(invite), {"answer": "decline"})

    assert answer.headers["Location"] == "/app/invites/mine"
    assert Invite.objects.get().declined_at is not None
    assert not Membership.objects.filter(user__email="ada@example.com").exists()


def test_every_invite_that_is_not_theirs_is_the_same_404(invite):
    ada, other = build.user("ada@example.com"), build.user("bob@example.com")
    unverified = build.user("eve@example.com", verified=False)
    old = link(invite)
    invite.refresh_from_db()
    organizations.resend(actor=build.actor(invite.organization), invite=invite, now=timezone.now())
    invite.refresh_from_db()
    answers = [
        build.browser(other).get(link(invite)),
        build.browser(other).post(link(invite), {"answer": "accept"}),
        build.browser(unverified).get(link(invite)),
        build.browser(ada).get(old),
        build.browser(ada).post(old, {"answer": "accept"}),
        build.browser(ada).get("/app/invites/nonsense"),
        Client().get(old),
    ]
    organizations.revoke_invite(actor=build.actor(invite.organization), invite=invite, now=timezone.now())
    answers.append(build.browser(ada).get(link(invite)))

    assert {answer.status_code for answer in answers} == {404}
    assert {"Bright Lab" in answer.text for answer in answers} == {False}
    assert {"This invite does not open" in answer.text for answer in answers} == {True}


def test_ones_own_invites_are_listed_and_answered_there(invite):
    client = build.browser(build.user("ada@example.com"))
    stranger = build.browser(build.user("bob@example.com"))
    path = f"/app/invites/mine/{invite.id}"

    assert "Bright Lab" in client.get("/app/invites/mine").text
    assert "Bright Lab" in client.get("/app/new").text
    assert "No invites" in stranger.get("/app/invites/mine").text
    assert stranger.post(path, {"answer": "accept"}).status_code == 404
    assert client.post(path, {"answer": "accept"}).headers["Location"] == "/app/lab"


def test_a_refusal_is_read_on_the_page_of_ones_invites(invite):
    build.limit(invite.organization, "members", 1)
    client = build.browser(build.user("ada@example.com"))

    answer = client.post(link(invite), {"answer": "accept"}, follow=True)

    assert answer.redirect_chain == [("/app/invites/mine", 302)]
    assert "Members: the limit is 1." in answer.text
