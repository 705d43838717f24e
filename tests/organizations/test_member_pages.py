"""The pages of members and invites: what they change, offer and refuse."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from apps.core.permissions import Role
from apps.credentials.models import ApiKey
from apps.organizations import services as organizations
from apps.organizations.models import Invite, Membership, Organization
from tests import build


@pytest.fixture
def lab(db):
    return build.organization("lab", name="Bright Lab")


@pytest.fixture
def owner(lab):
    return build.member(lab, Role.OWNER, user=build.user("owner@example.com", name="Olga Owner"))


def membership(person):
    return Membership.objects.get(user=person)


def page_of(person, suffix=""):
    return f"/app/lab/members/{membership(person).pk}{suffix}"


def unchanged(person):
    """Return what the form of a member sends when nothing is changed."""
    return {"role": membership(person).role, "until": ""}


def test_members_and_invites_are_one_list(lab, owner):
    build.member(lab, Role.VIEWER, user=build.user("vera@example.com", name="Vera"))
    build.member(build.organization("other"), user=build.user("foreign@example.com"))
    organizations.invite(
        actor=build.actor(lab),
        organization=lab,
        email="ada@example.com",
        role=Role.BILLING,
        now=timezone.now(),
    )

    page = build.browser(owner).get("/app/lab/members").text

    assert page.index("Olga Owner") < page.index("Vera") < page.index("ada@example.com")
    assert "foreign@example.com" not in page


def test_the_list_costs_the_same_however_long(lab, owner, django_assert_num_queries):
    for _each in range(4):
        build.member(lab)
    client = build.browser(owner)

    # Session, user, memberships, members, invites.
    with django_assert_num_queries(5):
        client.get("/app/lab/members")


def test_somebody_is_invited(lab, owner):
    answer = build.browser(owner).post(
        "/app/lab/members", {"email": "Ada@Example.com", "role": "viewer"}, follow=True
    )

    invite = Invite.objects.get()
    assert (invite.email, invite.role, invite.invited_by) == ("ada@example.com", "viewer", owner)
    assert "The invite to ada@example.com is on its way." in answer.text


@pytest.mark.parametrize(
    ("email", "role", "said"),
    [
        ("no address", "viewer", "Write an e-mail address, such as name@example.com."),
        ("owner@example.com", "viewer", "This person is a member already."),
        ("ada@example.com", "king", "Choose one of those that are offered now."),
    ],
)
def test_a_refused_invite_says_why_and_keeps_the_address(lab, owner, email, role, said):
    answer = build.browser(owner).post("/app/lab/members", {"email": email, "role": role})

    assert answer.status_code == 422
    assert said in answer.text
    assert f'value="{email}"' in answer.text
    assert not Invite.objects.exists()


def test_an_admin_is_offered_no_owner(lab):
    page = build.browser(build.member(lab, Role.ADMIN)).get("/app/lab/members").text

    assert re.findall(r'<option value="(\w+)"', page) == ["admin", "billing", "developer", "viewer"]


def test_a_viewer_sees_the_list_and_no_form(lab, owner):
    viewer = build.browser(build.member(lab, Role.VIEWER))

    assert 'name="email"' not in viewer.get("/app/lab/members").text
    assert 'name="role"' not in viewer.get(page_of(owner)).text
    assert viewer.post("/app/lab/members", {"email": "a@example.com", "role": "viewer"}).status_code == 403


def test_a_role_changes(lab, owner):
    person = build.member(lab, Role.VIEWER)

    answer = build.browser(owner).post(page_of(person), unchanged(person) | {"role": "billing"})

    assert answer.headers["Location"] == "/app/lab/members"
    assert membership(person).role == Role.BILLING


def test_a_last_day_ends_at_midnight_where_the_organization_is(lab, owner):
    Organization.objects.update(timezone="America/New_York")
    person = build.member(lab, Role.VIEWER)
    client = build.browser(owner)

    client.post(page_of(person), unchanged(person) | {"until": "2099-06-30"})

    assert membership(person).expires_at == datetime(2099, 7, 1, 4, tzinfo=UTC)
    assert 'value="2099-06-30"' in client.get(page_of(person)).text
    client.post(page_of(person), unchanged(person) | {"until": "2099-06-30", "role": "admin"})
    assert membership(person).expires_at == datetime(2099, 7, 1, 4, tzinfo=UTC)
    client.post(page_of(person), unchanged(person))
    assert membership(person).expires_at is None


def test_an_end_in_the_past_is_refused_beside_the_field(lab, owner):
    person = build.member(lab, Role.VIEWER)

    answer = build.browser(owner).post(page_of(person), unchanged(person) | {"until": "2020-01-01"})

    assert answer.status_code == 422
    assert "The end must lie in the future." in answer.text
    assert membership(person).expires_at is None


def test_suspending_and_letting_in_again(lab, owner):
    person = build.member(lab, Role.VIEWER)
    client, theirs = build.browser(owner), build.browser(person)

    client.post(page_of(person), unchanged(person) | {"suspended": "on"})
    assert theirs.get("/app/lab").status_code == 404
    client.post(page_of(person), unchanged(person))
    assert theirs.get("/app/lab").status_code == 200


def test_nobody_changes_somebody_above_them(lab, owner):
    admin = build.browser(build.member(lab, Role.ADMIN))

    assert 'name="role"' not in admin.get(page_of(owner)).text
    refused = admin.post(page_of(owner), unchanged(owner) | {"role": "viewer"})

    assert refused.status_code == 422
    assert membership(owner).role == Role.OWNER


def test_the_last_owner_stays_and_is_told_why(lab, owner):
    client = build.browser(owner)

    demoted = client.post(page_of(owner), unchanged(owner) | {"role": "admin"})
    left = client.post("/app/lab/leave", {"keys": "revoke", "typed": "Bright Lab"})

    for refused in (demoted, left):
        assert refused.status_code == 422
        assert "An organization needs an owner." in refused.text
    assert membership(owner).role == Role.OWNER


def test_removing_revokes_the_keys_or_hands_them_over(lab, owner):
    dora = build.member(lab, Role.DEVELOPER, user=build.user("dora@example.com", name="Dora"))
    dirk = build.member(lab, Role.DEVELOPER, user=build.user("dirk@example.com", name="Dirk"))
    build.member(lab, Role.VIEWER, user=build.user("vera@example.com", name="Vera"))
    for person in (dora, dirk):
        build.api_key(lab, ["usage.read"], actor=build.user_actor(person, lab))
    client = build.browser(owner)

    offered = client.get(page_of(dora, "/remove")).text
    client.post(page_of(dora, "/remove"), {"keys": str(membership(dirk).pk), "typed": "Dora"})
    assert {key.created_by for key in lab.api_keys.all()} == {dirk}
    assert client.post(page_of(dirk, "/remove"), {"keys": "revoke", "typed": "Dora"}).status_code == 422
    client.post(page_of(dirk, "/remove"), {"keys": "revoke", "typed": "Dirk"})

    assert "Hand over to Dirk" in offered
    assert "Hand over to Vera" not in offered
    assert all(key.revoked_at for key in lab.api_keys.all())
    assert not Membership.objects.filter(user__in=[dora, dirk]).exists()


@pytest.mark.parametrize("path", ["leave", "remove"])
def test_keys_are_asked_about_only_of_somebody_who_has_some(lab, owner, path):
    person = build.member(lab, Role.DEVELOPER, user=build.user("dora@example.com", name="Dora"))
    client = build.browser(person if path == "leave" else owner)
    address = "/app/lab/leave" if path == "leave" else page_of(person, "/remove")
    name = "Bright Lab" if path == "leave" else "Dora"
    soon = timezone.now() + timedelta(hours=1)
    build.api_key(lab, ["usage.read"], name="of nobody")
    build.api_key(lab, ["usage.read"], name="over", actor=build.user_actor(person, lab), expires_at=soon)
    ApiKey.objects.filter(name="over").update(expires_at=build.NOW)
    assert 'name="keys"' not in client.get(address).text

    build.api_key(lab, ["usage.read"], name="live", actor=build.user_actor(person, lab))
    assert 'name="keys"' in client.get(address).text
    assert client.post(address, {"typed": name}).status_code == 422, "made since the page was opened"
    ApiKey.objects.filter(name="live").update(revoked_at=timezone.now())
    assert client.post(address, {"typed": name}).status_code == 302

    assert not Membership.objects.filter(user=person).exists()
    in_force = ApiKey.objects.filter(revoked_at=None).values_list("name", flat=True)
    assert list(in_force) == ["of nobody"]


def test_leaving_leads_to_what_is_left(lab, owner):
    person = build.member(lab, Role.DEVELOPER)
    client = build.browser(person)
    assert "/app/lab/leave" in client.get("/app/account/profile").text
    assert "/app/lab/members" not in client.get("/app/lab/leave").text, "a developer does not see it"

    answer = client.post("/app/lab/leave", {"typed": lab.name}, follow=True)

    assert [where for where, _status in answer.redirect_chain] == ["/app/", "/app/new"]
    assert not Membership.objects.filter(user=person).exists()


def test_an_invite_is_sent_again_or_taken_back(lab, owner):
    client = build.browser(owner)
    client.post("/app/lab/members", {"email": "ada@example.com", "role": "viewer"})
    invite = Invite.objects.get()
    first = organizations.token_of(invite)

    client.post(f"/app/lab/invites/{invite.pk}", {"do": "resend"})
    invite.refresh_from_db()
    assert organizations.token_of(invite) != first
    client.post(f"/app/lab/invites/{invite.pk}", {"do": "revoke"})
    invite.refresh_from_db()
    assert invite.revoked_at is not None
    assert "ada@example.com" not in client.get("/app/lab/members").text.split("<tbody>")[1]


def test_what_another_organization_has_does_not_exist(lab, owner):
    other = build.organization("other")
    stranger = build.member(other, Role.VIEWER)
    invite = organizations.invite(
        actor=build.actor(other),
        organization=other,
        email="a@example.com",
        role=Role.VIEWER,
        now=timezone.now(),
    )
    client = build.browser(owner)

    for path in (page_of(stranger), page_of(stranger, "/remove")):
        assert client.get(path).status_code == 404
        assert client.post(path, {"role": "viewer", "keys": "revoke"}).status_code == 404
    assert client.post(f"/app/lab/invites/{invite.pk}", {"do": "revoke"}).status_code == 404
    assert Membership.objects.filter(user=stranger).exists()


def test_what_was_sent_too_late_is_done_after_the_proof(lab):
    person = build.user("ada@example.com", password="correct horse battery")
    build.member(lab, Role.OWNER, user=person)
    client = build.browser(person, stepped_up=False)

    asked = client.post("/app/lab/members", {"email": "bob@example.com", "role": "viewer"})
    assert not Invite.objects.exists()
    done = client.post(asked.headers["Location"], {"password": "correct horse battery"}, follow=True)

    assert asked.headers["Location"] == "/accounts/reauthenticate/?next=%2Fapp%2Flab%2Fmembers"
    assert Invite.objects.get().email == "bob@example.com"
    assert done.redirect_chain == [("/app/lab/members", 302)]


def test_an_old_proof_does_not_count(lab):
    person = build.member(lab, Role.OWNER)
    client = build.browser(person, at=timezone.now() - timedelta(minutes=10))

    assert client.post("/app/lab/members", {}).headers["Location"].startswith("/accounts/reauthenticate/")
    assert not Invite.objects.exists()
