"""Plans, limits and requests in the staff admin: every page opens, every change goes through its service."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.permissions import Role
from apps.quotas import services as quotas
from apps.quotas.models import LimitOverride, Plan, PlanLimit, QuotaRequest, RequestState
from tests import build
from tests.staff import staff_client, staff_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff():
    return staff_client()


@pytest.fixture
def asked(lab):
    return quotas.request_quota(
        actor=build.user_actor(build.member(lab, Role.DEVELOPER), lab),
        organization=lab,
        quota="members",
        requested=25,
        reason="We grow <b>fast</b>.",
        now=timezone.now(),
    )


def messages_of(answer):
    return [str(message) for message in answer.context["messages"]]


def test_every_list_and_every_row_opens_and_can_be_searched(staff, lab, asked):
    build.limit(lab, "members", 3)
    for model in (Plan, LimitOverride, QuotaRequest):
        name = f"quotas_{model._meta.model_name}"
        row = model._default_manager.order_by("pk").first()
        for query in ("lab", str(lab.id)):
            assert staff.get(reverse(f"admin:{name}_changelist"), {"q": query}).status_code == 200, name
        answer = staff.get(reverse(f"admin:{name}_change", args=[row.pk]))
        assert answer.status_code == 200, name
        assert "<b>fast" not in answer.text
    assert staff.get(reverse("admin:quotas_limitoverride_add")).status_code == 200
    assert staff.get(reverse("admin:quotas_plan_add")).status_code == 200
    assert "Quota requests" in staff.get(reverse("admin:index")).text


def plan_form(plan, **changes):
    rows = list(PlanLimit.objects.filter(plan=plan).order_by("pk"))
    data = {
        "code": plan.code, "name": plan.name, "description": plan.description, "position": plan.position,
        "is_public": "on", "limits-TOTAL_FORMS": len(rows) + 1, "limits-INITIAL_FORMS": len(rows),
        f"limits-{len(rows)}-family": "*", f"limits-{len(rows)}-region": "*",
    }  # fmt: skip
    for place, row in enumerate(rows):
        data |= {
            f"limits-{place}-{name}": "" if getattr(row, name) is None else getattr(row, name)
            for name in ("id", "quota", "family", "region", "value")
        }
    return data | changes


def test_a_plan_is_edited_with_its_limits_in_one_page(staff, sold):
    plan = Plan.objects.get(code="free")
    answer = staff.post(
        reverse("admin:quotas_plan_change", args=[plan.pk]),
        plan_form(
            plan,
            name="Trial",
            **{
                "limits-3-value": "20", "limits-4-DELETE": "on", "limits-6-value": "",
                "limits-9-quota": "concurrent_gpus", "limits-9-family": "h100", "limits-9-value": "2",
            },
        ),
        follow=True,
    )  # fmt: skip

    assert answer.status_code == 200
    assert Plan.objects.get(code="free").name == "Trial"
    found = {(row.quota, row.family): row.value for row in PlanLimit.objects.filter(plan=plan)}
    assert found[("gpu_hours_per_month", "*")] == 20
    assert ("data_gb_per_month", "*") not in found
    assert found[("members", "*")] is None
    assert found[("concurrent_gpus", "h100")] == 2
    assert AuditEvent.objects.get(action="plan.limits_changed").diff == {
        "data_gb_per_month:*:*": [5, None],
        "gpu_hours_per_month:*:*": [10, 20],
        "members:*:*": [10, None],
        "concurrent_gpus:h100:*": [None, 2],
    }
    assert AuditEvent.objects.get(action="plan.changed").diff == {"name": ["Free", "Trial"]}


def test_a_wrong_limit_changes_nothing(staff):
    plan = Plan.objects.get(code="free")
    answer = staff.post(
        reverse("admin:quotas_plan_change", args=[plan.pk]),
        plan_form(plan, name="Trial", **{"limits-0-value": "0"}),
        follow=True,
    )

    assert "from 1 on" in answer.text or "violated" in answer.text
    assert Plan.objects.get(code="free").name == "Free"
    assert PlanLimit.objects.get(plan=plan, quota="requests_per_minute").value == 100


def test_an_organization_changes_its_plan_beside_what_it_uses(staff, lab):
    url = reverse("admin:quotas_assign_plan", args=[lab.id])
    assert "GPU-hours a month" in staff.get(url).text

    answer = staff.post(url, {"plan": "enterprise", "reason": "Contract 7"}, follow=True)

    assert messages_of(answer) == ["lab is on Enterprise now."]
    row = AuditEvent.objects.get(action="plan.assigned")
    assert (row.actor_kind, row.reason, row.diff) == ("staff", "Contract 7", {"plan": ["free", "enterprise"]})
    assert url in staff.get(reverse("admin:organizations_organization_change", args=[lab.id])).text


def test_a_limit_is_given_and_ended_with_a_reason(staff, lab, sold):
    data = {
        "organization": lab.id, "quota": "concurrent_gpus", "family": "h100", "region": "*", "value": "16",
        "reason": "Pilot", "expires_at_0": "", "expires_at_1": "",
    }  # fmt: skip
    assert staff.post(reverse("admin:quotas_limitoverride_add"), data).status_code == 302
    made = LimitOverride.objects.get()
    assert (made.value, made.family, made.created_by_label) == (16, "h100", "staff@example.com")

    listed = reverse("admin:quotas_limitoverride_changelist")
    action = {"action": "end_selected", "_selected_action": [made.pk]}
    assert "Say why" in staff.post(listed, action).text
    staff.post(listed, action | {"reason": "Over"})

    made.refresh_from_db()
    assert made.ended_at is not None
    assert AuditEvent.objects.get(action="limit_override.ended").reason == "Over"


def test_a_place_that_no_quota_has_is_told_on_the_form(staff, lab, sold):
    data = {"organization": lab.id, "quota": "members", "family": "h100", "region": "*", "reason": "x"}

    answer = staff.post(reverse("admin:quotas_limitoverride_add"), data)

    assert "Only GPUs at once are limited by family and region; leave both at every one (*)." in answer.text
    assert not LimitOverride.objects.exists()


def test_a_request_is_approved_with_its_own_number_and_end(staff, asked):
    url = reverse("admin:quotas_decide_request", args=[asked.pk])
    page = staff.get(url).text
    assert "asks for 25 instead of 10" in page
    until = timezone.now() + timedelta(days=30)

    staff.post(
        url,
        {
            "decision": "approve", "granted": "20", "message": "Some.",
            "expires_at_0": f"{until:%Y-%m-%d}", "expires_at_1": "00:00",
        },
    )  # fmt: skip

    asked.refresh_from_db()
    assert (asked.state, asked.granted, asked.decided_by_label) == (
        RequestState.APPROVED, 20, "staff@example.com",
    )  # fmt: skip
    assert LimitOverride.objects.get().value == 20
    again = staff.post(url, {"decision": "deny", "message": "No."})
    assert "This request has been decided already." in again.text


def test_a_denial_needs_its_message(staff, asked):
    url = reverse("admin:quotas_decide_request", args=[asked.pk])

    assert "Say why; the customer reads it." in staff.post(url, {"decision": "deny"}).text
    asked.refresh_from_db()
    assert asked.state == RequestState.SUBMITTED
    staff.post(url, {"decision": "deny", "message": "Not yet."})
    asked.refresh_from_db()
    assert (asked.state, asked.message) == (RequestState.DENIED, "Not yet.")


def test_who_may_only_look_decides_nothing(lab, asked):
    support = staff_user("support@example.com")
    support.is_superuser = False
    support.save()
    support.user_permissions.set(
        Permission.objects.filter(codename__in=["view_quotarequest", "view_plan", "view_limitoverride"])
    )
    client = staff_client(support)

    assert client.get(reverse("admin:quotas_quotarequest_changelist")).status_code == 200
    assert client.post(reverse("admin:quotas_decide_request", args=[asked.pk]), {}).status_code == 403
    assert client.post(reverse("admin:quotas_assign_plan", args=[lab.id]), {}).status_code == 403
    assert client.get(reverse("admin:quotas_limitoverride_add")).status_code == 403
