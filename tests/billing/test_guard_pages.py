"""What staff decide about spending in the admin, and what members see of it above every page."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.billing import services as billing
from apps.billing.models import BillingTransition, Hold, SpendGuard
from apps.core.periods import floor_hour
from apps.core.permissions import Role
from tests import build
from tests.metering.events import heartbeat, started
from tests.staff import staff_client

pytestmark = pytest.mark.django_db


@pytest.fixture
def lab():
    build.price_book({"unit_price": "1"})
    return build.organization("lab", plan="enterprise")


@pytest.fixture
def staff() -> Client:
    return staff_client()


def test_staff_decide_limit_warning_and_block_in_one_step_with_a_reason(staff, lab):
    page = reverse("admin:billing_spendguard_decide", args=[lab.id])
    assert "Decide what it may spend" in staff.get(page).text
    sent = {"credit_limit": "250", "warn_below": "10", "blocked": "on", "reason": "Contract 7"}

    without = staff.post(page, {**sent, "reason": ""})
    done = staff.post(page, sent)

    assert without.status_code == 200
    assert done.status_code == 302
    guard = SpendGuard.objects.get()
    assert (guard.credit_limit_micros, guard.warn_below_micros, guard.reason) == (
        250_000_000,
        10_000_000,
        "Contract 7",
    )
    lab.refresh_from_db()
    assert lab.billing_state == "suspended"


def test_what_the_service_refuses_is_said_on_the_form(staff, lab):
    lab.plan = "free"
    lab.save()
    page = reverse("admin:billing_spendguard_decide", args=[lab.id])

    answer = staff.post(page, {"credit_limit": "250", "warn_below": "0", "reason": "Contract 7"})

    assert "paid in advance" in answer.text
    assert not SpendGuard.objects.exists()


def test_every_list_and_row_of_the_guard_opens(staff, lab):
    build.credit(lab, "10", now=timezone.now())
    hold = build.hold(lab, "a", "1", now=timezone.now())
    billing.suspend_spending(
        actor=build.actor(lab), organization=lab, suspended=True, reason="tests", now=timezone.now()
    )
    for model in (Hold, SpendGuard, BillingTransition):
        name = f"admin:billing_{model._meta.model_name}"
        assert staff.get(reverse(f"{name}_changelist"), {"q": "lab"}).status_code == 200
        assert staff.get(reverse(f"{name}_change", args=[model.objects.get().pk])).status_code == 200
        assert not admin.site._registry[model].has_delete_permission(None)

    chosen = {"action": "release_selected", "_selected_action": [hold.pk]}
    staff.post(reverse("admin:billing_hold_changelist"), chosen)
    assert Hold.objects.get().release == ""
    staff.post(reverse("admin:billing_hold_changelist"), {**chosen, "reason": "Asked by mail"})
    assert Hold.objects.get().release == "cancelled"


def banner(organization, role=Role.OWNER) -> str:
    page = build.browser(build.member(organization, role)).get(f"/app/{organization.slug}")
    return page.text.partition('<div class="banner')[2].partition("</div>")[0]


def test_members_who_see_the_money_are_told_when_it_ends(lab):
    now = floor_hour(timezone.now())
    build.credit(lab, "10", now=now - timedelta(hours=1))
    build.events(
        started("a", now - timedelta(hours=1), gpus=1, organization="lab"),
        heartbeat("a", now, organization="lab"),
        now=now,
    )
    assert banner(lab) == ""

    build.metered(lab, now)

    ends = now + timedelta(hours=9)
    shown = banner(lab)
    assert f"The credit lasts until {ends.day} {ends:%B, %H:%M} at the current rate." in shown
    assert 'href="/app/lab/payments"' in shown
    assert 'href="/app/lab"' in banner(lab, Role.VIEWER), "who may not pay"


def test_without_credit_the_banner_says_what_happens_next(lab):
    now = floor_hour(timezone.now())
    build.credit(lab, "1", now=now - timedelta(hours=1))
    build.usage(lab, now - timedelta(hours=1), now, now=now)
    build.metered(lab, now)

    stops = now + timedelta(hours=72)
    assert f"what runs is stopped on {stops.day} {stops:%B, %H:%M}" in banner(lab)


def test_a_block_by_staff_is_told(lab):
    billing.suspend_spending(
        actor=build.actor(lab), organization=lab, suspended=True, reason="tests", now=timezone.now()
    )

    assert "We blocked new usage" in banner(lab)
