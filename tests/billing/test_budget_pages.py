"""The pages of budgets: made, seen, changed and ended by who may, seen by who reads the money."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine

from apps.billing.models import Budget, BudgetAction, BudgetScope
from apps.core.permissions import Role
from tests import build

SENT = {"name": "Training", "about": "", "amount": "250.00", "thresholds": "50, 80 100%", "blocks": "on"}


@pytest.fixture
def lab(db):
    return build.organization("lab", name="Bright Lab", now=build.NOW - timedelta(days=14))


@pytest.fixture
def owner(lab):
    return build.browser(build.member(lab, Role.OWNER))


def test_without_budgets_the_page_offers_the_first(lab, owner):
    page = owner.get("/app/lab/budgets")

    assert "No budgets yet" in page.text
    assert 'href="/app/lab/budgets/new"' in page.text


def test_a_budget_of_a_project_is_made_shown_changed_and_ended(lab, owner):
    project = build.project(lab, "train")
    assert "the whole organization" in owner.get("/app/lab/budgets/new").text

    made = owner.post("/app/lab/budgets/new", {**SENT, "about": f"project:{project.pk}"}, follow=True)

    budget = Budget.objects.get()
    assert (budget.scope, budget.project, budget.amount_micros, budget.thresholds, budget.action) == (
        BudgetScope.PROJECT,
        project,
        250_000_000,
        [50, 80, 100],
        BudgetAction.BLOCK_NEW,
    )
    assert "The budget Training is watched." in made.text
    assert "project train · blocks new usage" in made.text

    page = f"/app/lab/budgets/{budget.pk}"
    assert 'value="250.00"' in owner.get(page).text
    owner.post(page, {"name": "Training", "amount": "300", "thresholds": "90"})
    budget.refresh_from_db()
    assert (budget.amount_micros, budget.thresholds, budget.action) == (300_000_000, [90], "notify")

    assert owner.post(f"{page}/end", {"typed": "training"}).status_code == 422
    assert "No budgets yet" in owner.post(f"{page}/end", {"typed": "Training"}, follow=True).text
    assert owner.get(page).status_code == 404


def test_how_far_it_is_spent_and_where_that_leads(lab, owner):
    now = build.NOW
    build.price_book({"unit_price": "30"})
    build.budget(lab, "40", now=now)
    build.usage(lab, now - timedelta(hours=1), now, now=now)
    build.metered(lab, now)

    with time_machine.travel(now, tick=False):  # Not the first hour of a month.
        page = owner.get("/app/lab/budgets").text

    assert 'value="75"' in page
    assert "past a threshold" in page
    assert ">30.00</span>" in page


@pytest.mark.parametrize(
    ("field", "wrong"), [("thresholds", "half"), ("thresholds", "0"), ("amount", "0"), ("name", " ")]
)
def test_what_is_wrong_is_said_beside_the_field_and_kept(lab, owner, field, wrong):
    answer = owner.post("/app/lab/budgets/new", {**SENT, field: wrong})

    assert answer.status_code == 422
    assert f'id="id_{field}_error"' in answer.text
    assert not Budget.objects.exists()


def test_readers_see_budgets_and_change_none(lab):
    budget = build.budget(lab, "40")
    reader = build.browser(build.member(lab, Role.VIEWER))

    page = reader.get("/app/lab/budgets")

    assert "Budget" in page.text
    assert "/budgets/new" not in page.text
    assert reader.get(f"/app/lab/budgets/{budget.pk}").status_code == 403
    assert reader.post(f"/app/lab/budgets/{budget.pk}/end").status_code == 403
