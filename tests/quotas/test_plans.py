"""Plans: what everybody sees, what holds for an organization, and a change that acts at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.errors import ValidationFailed
from apps.core.permissions import Role
from apps.credentials.models import ApiKey
from apps.organizations.models import Organization, Project
from apps.outbox.models import OutboxEvent
from apps.quotas import selectors
from apps.quotas import services as quotas
from apps.quotas.models import Plan, PlanLimit, Target
from apps.quotas.selectors import Rates
from tests import build
from tests.threads import at_once

PLANS = "/api/v1/pricing/plans"


def assign(organization, code, **more):
    return quotas.assign_plan(
        actor=build.actor(),
        organization=organization,
        plan_code=code,
        reason="tests",
        now=timezone.now(),
        **more,
    )


def test_everybody_sees_the_plans_with_the_limits_of_the_seeds(db):
    answer = build.client().get(PLANS).json()

    quotas_of_seeds = ("requests_per_minute", "request_burst", "gpu_hours_per_month", "data_gb_per_month")
    shown = [
        (plan["code"], plan["negotiated"], *(plan["limits"][quota] for quota in quotas_of_seeds))
        for plan in answer["data"]
    ]
    assert shown == [
        ("free", False, 100, 50, 10, 5),
        ("professional", False, 1_000, 500, 500, 50),
        ("enterprise", False, 10_000, 5_000, None, 500),
        ("sovereign", True, 10_000, 5_000, None, 500),
        ("classified", True, 10_000, 5_000, None, 500),
    ]
    assert answer["data"][0]["limits"]["writes_per_minute"] == 30


def test_a_plan_is_found_by_id_and_code_unless_it_is_hidden(db):
    plan = Plan.objects.get(code="professional")
    client = build.client()

    assert client.get(f"{PLANS}/{plan.id}").json() == client.get(f"{PLANS}/professional").json()
    assert client.get(f"{PLANS}/nothing").status_code == 404
    Plan.objects.update(is_public=False)
    assert client.get(f"{PLANS}/professional").status_code == 404
    assert client.get(PLANS).json()["data"] == []


def test_another_plan_acts_now_and_is_told(lab):
    now = timezone.now()
    assert selectors.rates(organization_id=lab.id, now=now) == Rates(
        requests_per_minute=100, request_burst=50, writes_per_minute=30
    )

    assign(lab, "enterprise")

    assert selectors.rates(organization_id=lab.id, now=now).requests_per_minute == 10_000
    row = AuditEvent.objects.get(action="plan.assigned")
    assert (row.organization_id, row.diff, row.reason) == (lab.id, {"plan": ["free", "enterprise"]}, "tests")
    assert OutboxEvent.objects.get(event_type="quotas.plan_assigned").payload["plan"] == "enterprise"
    assign(lab, "enterprise")
    assert AuditEvent.objects.filter(action="plan.assigned").count() == 1, "nothing changed"


def test_there_is_no_organization_without_a_plan(lab):
    with pytest.raises(quotas.UnknownPlan):
        assign(lab, "gold")
    Organization.objects.update(plan="gold")
    with pytest.raises(IntegrityError):
        connection.check_constraints()


def test_limits_of_a_plan_hold_for_whoever_is_on_it(lab, sold):
    plan = Plan.objects.get(code="free")
    quotas.set_plan_limits(
        actor=build.actor(),
        plan=plan,
        limits={Target("members"): 3, Target("concurrent_gpus", "h100", "eu"): 4, Target("projects"): None},
    )

    found = selectors.limits(organization_id=lab.id, now=timezone.now())
    assert {target: limit.value for target, limit in found.items() if limit.value is not None} == {
        Target("members"): 3,
        Target("concurrent_gpus", "h100", "eu"): 4,
    }
    diff = AuditEvent.objects.get(action="plan.limits_changed").diff
    assert diff["members:*:*"] == [10, 3]
    assert diff["projects:*:*"] == [10, None]
    assert diff["concurrent_gpus:h100:eu"] == [None, 4]
    assert diff["requests_per_minute:*:*"] == [100, None]
    assert build.client().get(f"{PLANS}/free").json()["place_limits"] == [
        {"quota": "concurrent_gpus", "family": "h100", "region": "eu", "limit": 4}
    ]


@pytest.mark.parametrize(
    ("target", "value", "path"),
    [
        (Target("gold"), 1, "quota"),
        (Target("members", "h100"), 1, "quota"),
        (Target("concurrent_gpus", "h900"), 1, "family"),
        (Target("concurrent_gpus", "*", "moon"), 1, "region"),
        (Target("members"), -1, "value"),
        (Target("requests_per_minute"), 0, "value"),
    ],
)
def test_a_limit_that_could_not_be_one_is_refused(lab, sold, target, value, path):
    with pytest.raises(ValidationFailed) as refusal:
        quotas.set_plan_limits(
            actor=build.actor(), plan=Plan.objects.get(code="free"), limits={target: value}
        )

    assert [field.path for field in refusal.value.fields] == [path]
    assert not AuditEvent.objects.filter(action="plan.limits_changed").exists()


@pytest.mark.parametrize("place", [{"family": "h100"}, {"region": "eu"}])
def test_the_database_knows_that_only_gpus_are_limited_by_place(lab, place):
    plan = Plan.objects.get(code="free")
    with pytest.raises(IntegrityError), transaction.atomic():
        PlanLimit.objects.create(plan=plan, quota="members", value=1, **place)


def test_an_own_limit_wins_over_every_plan_until_it_ends(lab):
    now = timezone.now()
    later = now + timedelta(hours=1)
    made = build.limit(lab, "members", 2, expires_at=later, now=now)

    def limit(at):
        found = selectors.limits(organization_id=lab.id, now=at)[Target("members")]
        return found.value, found.is_own

    assert limit(now) == (2, True)
    assign(lab, "enterprise")
    assert limit(now) == (2, True)
    assert limit(later) == (None, False), "over at its very moment"
    quotas.end_limit_override(actor=build.actor(), override=made, reason="enough", now=now)
    quotas.end_limit_override(actor=build.actor(), override=made, reason="again", now=later)
    assert limit(now) == (None, False)
    made.refresh_from_db()
    assert made.ended_at == now
    assert AuditEvent.objects.filter(action="limit_override.ended").count() == 1


def test_a_new_own_limit_replaces_the_one_before(lab):
    first = build.limit(lab, "members", 2)
    second = build.limit(lab, "members", 5)

    first.refresh_from_db()
    assert first.ended_at == second.created_at
    assert AuditEvent.objects.filter(action="limit_override.created").latest("pk").diff["value"] == [2, 5]


@pytest.mark.parametrize(
    ("quota", "path", "body"),
    [
        ("projects", "/api/v1/orgs/lab/projects", {"slug": "b"}),
        ("api_keys", "/api/v1/orgs/lab/api-keys", {"name": "b", "scopes": ["usage.read"]}),
    ],
)
def test_counted_things_end_at_their_limit(lab, quota, path, body):
    owner = build.member(lab, Role.OWNER)
    build.project(lab)
    build.api_key(lab)
    build.limit(lab, quota, 1)

    refused = build.person_client(owner).post(path, body)

    assert (refused.status_code, refused.json()["code"]) == (409, "quota_exceeded")
    assert refused.json()["details"].items() >= {"quota": quota, "limit": 1, "used": 1}.items()
    assert "ask for more" in refused.json()["details"]["remedy"]
    assert (Project.objects.count(), ApiKey.objects.count()) == (1, 1)
    build.limit(lab, quota, 2)
    assert build.person_client(owner).post(path, body).status_code == 201


def test_an_archived_project_needs_room_to_come_back(lab):
    client = build.person_client(build.member(lab, Role.OWNER))
    first = client.post("/api/v1/orgs/lab/projects", {"slug": "a"}).json()["id"]
    client.patch(f"/api/v1/orgs/lab/projects/{first}", {"archived": True})
    build.limit(lab, "projects", 1)
    client.post("/api/v1/orgs/lab/projects", {"slug": "b"})

    assert client.patch(f"/api/v1/orgs/lab/projects/{first}", {"archived": False}).status_code == 409
    assert client.patch(f"/api/v1/orgs/lab/projects/{first}", {"name": "renamed"}).status_code == 200


def test_the_operators_own_commands_are_not_bound(lab):
    build.limit(lab, "projects", 0)

    build.project(lab)

    assert Project.objects.count() == 1


def test_of_two_who_take_the_last_place_at_once_one_gets_it(transactional_db):
    lab = build.organization("lab")
    owner = build.member(lab, Role.OWNER)
    build.limit(lab, "api_keys", 3)

    def make(number):
        return build.person_client(owner).post(
            "/api/v1/orgs/lab/api-keys", {"name": f"key {number}", "scopes": ["usage.read"]}
        )

    answers = at_once(*(lambda number=number: make(number) for number in range(6)))

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 3
    assert ApiKey.objects.count() == 3
