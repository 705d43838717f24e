"""Members: who may change whom, the owner that always stays, and what becomes of a leaver's keys."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from itertools import product

import pytest
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.errors import NotFound
from apps.core.permissions import ROLE_PERMISSIONS, Permission, Role
from apps.credentials.models import ApiKey
from apps.organizations import services as organizations
from apps.organizations.models import Membership
from apps.outbox.models import OutboxEvent
from tests import build
from tests.threads import at_once

pytestmark = pytest.mark.django_db
MEMBERS = "/api/v1/orgs/lab/members"


@pytest.fixture
def lab():
    return build.organization("lab")


@pytest.fixture
def owner(lab):
    return build.member(lab, Role.OWNER)


def membership(person):
    return Membership.objects.get(user=person)


def path(person):
    return f"{MEMBERS}/{membership(person).id}"


def code(answer):
    return answer.status_code, answer.json()["code"]


def test_members_are_listed_with_their_role(lab, owner, django_assert_num_queries):
    developer = build.member(lab, user=build.user("dev@example.com", name="Dev"))
    client = build.person_client(owner)

    rows = client.get(MEMBERS, {"role": "developer"}).json()["data"]

    assert rows == [
        {
            "id": str(membership(developer).id),
            "user": {"id": str(developer.pk), "email": "dev@example.com", "name": "Dev"},
            "role": "developer",
            "suspended": False,
            "expires_at": None,
            "created_at": rows[0]["created_at"],
        }
    ]
    assert client.get(path(developer)).json() == rows[0]
    with django_assert_num_queries(3):  # The slug, the caller's membership, the rows.
        assert len(client.get(MEMBERS).json()["data"]) == 2


@pytest.mark.parametrize("acting", Role)
def test_nobody_gives_more_than_they_have_or_touches_somebody_above_them(lab, owner, acting):
    """The whole matrix: role of the actor × role of the member × new role."""
    client = build.person_client(build.member(lab, acting))
    others = {role: membership(build.member(lab, role)) for role in Role}
    own = ROLE_PERMISSIONS[acting]

    for target, given in product(Role, Role):
        may = Permission.MEMBERS_MANAGE in own and ROLE_PERMISSIONS[target] | ROLE_PERMISSIONS[given] <= own
        answer = client.patch(f"{MEMBERS}/{others[target].id}", {"role": given})
        others[target].refresh_from_db()
        assert answer.status_code == (200 if may else 403), (target, given)
        assert others[target].role == (given if may else target)
        Membership.objects.filter(pk=others[target].pk).update(role=target)


def test_an_admin_does_not_remove_or_suspend_an_owner(lab, owner):
    client = build.person_client(build.member(lab, Role.ADMIN))
    build.member(lab, Role.OWNER)

    assert code(client.delete(path(owner))) == (403, "insufficient_permissions")
    assert code(client.patch(path(owner), {"suspended": True})) == (403, "insufficient_permissions")


def test_a_change_is_audited_with_what_was_before(lab, owner):
    developer = build.member(lab)
    until = timezone.now() + timedelta(days=2)

    answer = build.person_client(owner).patch(
        path(developer), {"role": "viewer", "suspended": True, "expires_at": until.isoformat()}
    )

    assert (answer.json()["role"], answer.json()["suspended"]) == ("viewer", True)
    diff = AuditEvent.objects.get(action="member.changed").diff
    assert diff["role"] == ["developer", "viewer"]
    assert diff["suspended"] == [False, True]
    assert diff["expires_at"][0] is None
    assert OutboxEvent.objects.filter(event_type="organizations.member_changed").count() == 1
    cleared = build.person_client(owner).patch(path(developer), {"suspended": False, "expires_at": None})
    assert (cleared.json()["suspended"], cleared.json()["expires_at"]) == (False, None)


def test_an_end_in_the_past_is_refused(lab, owner):
    developer = build.member(lab)

    answer = build.person_client(owner).patch(path(developer), {"expires_at": "2020-01-01T00:00:00Z"})

    assert answer.json()["details"]["fields"][0]["path"] == "expires_at"


@pytest.mark.parametrize(
    "act",
    [
        lambda client, member: client.patch(member, {"role": "admin"}),
        lambda client, member: client.patch(member, {"suspended": True}),
        lambda client, member: client.patch(member, {"expires_at": "2999-01-01T00:00:00Z"}),
        lambda client, member: client.delete(member),
        lambda client, _member: client.post("/orgs/lab/leave"),
    ],
    ids=["demote", "suspend", "expire", "remove", "leave"],
)
def test_the_last_owner_stays(lab, owner, act):
    for spoilt in ({"suspended_at": timezone.now()}, {"expires_at": timezone.now() + timedelta(days=1)}):
        other = build.member(lab, Role.OWNER)
        Membership.objects.filter(user=other).update(**spoilt)
    inactive = build.member(lab, Role.OWNER)
    inactive.is_active = False
    inactive.save()

    answer = act(build.person_client(owner), path(owner))

    assert code(answer) == (409, "last_owner")
    row = membership(owner)
    assert (row.role, row.suspended_at, row.expires_at) == ("owner", None, None)


def test_two_owners_who_leave_at_once_leave_one(transactional_db):
    lab = build.organization("lab")
    both = [build.member(lab, Role.OWNER) for _each in range(2)]

    results = at_once(*(partial(build.person_client(person).post, "/orgs/lab/leave") for person in both))

    assert sorted(answer.status_code for answer in results) == [204, 409]
    assert Membership.objects.filter(role=Role.OWNER).count() == 1


def test_two_owners_who_demote_each_other_at_once_leave_one(transactional_db):
    lab = build.organization("lab")
    one, other = (build.member(lab, Role.OWNER) for _each in range(2))

    results = at_once(
        partial(build.person_client(one).patch, path(other), {"role": "viewer"}),
        partial(build.person_client(other).patch, path(one), {"role": "viewer"}),
    )

    # Whoever comes second is no owner any more, or would leave none.
    assert min(answer.status_code for answer in results) == 200
    assert Membership.objects.filter(role=Role.OWNER).count() == 1


def test_a_removed_member_is_gone_and_their_keys_are_revoked(lab, owner):
    developer = build.member(lab)
    secret = build.api_key(lab, ["usage.read"], actor=build.user_actor(developer, lab))

    assert build.person_client(owner).delete(path(developer)).status_code == 204

    assert not Membership.objects.filter(user=developer).exists()
    assert build.person_client(developer).get("/orgs/lab").status_code == 404
    assert build.client(secret).get("/api/v1/me").status_code == 401
    assert ApiKey.objects.get().revoked_at is not None
    assert AuditEvent.objects.get(action="member.removed").diff["user"] == developer.email
    assert AuditEvent.objects.filter(action="api_key.revoked").count() == 1


def test_keys_are_handed_to_a_member_who_may_do_what_they_can(lab, owner):
    developer, heir, viewer = build.member(lab), build.member(lab), build.member(lab, Role.VIEWER)
    secret = build.api_key(lab, ["projects.manage"], actor=build.user_actor(developer, lab))
    client = build.person_client(owner)

    refused = client.delete(path(developer), {"keys": str(membership(viewer).id)})
    assert code(refused) == (409, "keys_exceed_member")
    assert Membership.objects.filter(user=developer).exists()
    assert client.delete(path(developer), {"keys": str(membership(heir).id)}).status_code == 204

    assert build.client(secret).get("/api/v1/me").status_code == 200
    assert ApiKey.objects.get().created_by == heir
    assert AuditEvent.objects.filter(action="api_key.handed_over").count() == 1


@pytest.mark.parametrize("keys", ["nonsense", "stranger", "self"])
def test_keys_go_to_nobody_else(lab, owner, keys):
    developer = build.member(lab)
    stranger = build.member(build.organization("other"))
    named = {"stranger": stranger, "self": developer}.get(keys)

    answer = build.person_client(owner).delete(
        path(developer), {"keys": str(membership(named).id) if named else keys}
    )

    assert code(answer) == (422, "validation_error")
    assert Membership.objects.filter(user=developer).exists()


def test_leaving_chooses_another_default(lab, owner):
    person = build.member(lab)
    build.member(build.organization("second"), user=person)
    build.member(build.organization("third"), user=person)

    assert build.person_client(person).post("/orgs/lab/leave").status_code == 204

    assert Membership.objects.get(user=person, is_default=True).organization.slug == "second"
    assert AuditEvent.objects.get(action="member.left").actor_id == person.pk


def test_a_default_is_chosen_among_ones_own(lab):
    person = build.member(lab)
    second = build.organization("second")
    build.member(second, user=person)
    actor = build.user_actor(person, lab)

    def choose(organization):
        return organizations.choose_default(
            actor=actor, user_id=person.pk, organization=organization, now=timezone.now()
        )

    choose(second)
    assert Membership.objects.get(is_default=True).organization == second
    with pytest.raises(NotFound):
        choose(build.organization("foreign"))
    Membership.objects.filter(organization=lab).update(suspended_at=timezone.now())
    with pytest.raises(NotFound):
        choose(lab)


def test_members_of_others_look_like_none(lab, owner):
    stranger = build.member(build.organization("other"))
    client = build.person_client(owner)
    nowhere = f"{MEMBERS}/0190c9a0-0000-7000-8000-000000000000"

    for method in ("get", "patch", "delete"):
        answers = [
            {**getattr(client, method)(where).json(), "correlation_id": ""}
            for where in (path(stranger), nowhere)
        ]
        assert answers[0] == answers[1]
        assert answers[0]["code"] == "not_found"
