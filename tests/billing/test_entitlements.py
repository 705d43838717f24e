"""May this start: every refusal with its code and remedy, the cost, and the hold under the same lock."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from apps.billing import entitlements, selectors
from apps.billing import services as billing
from apps.billing.entitlements import Launch
from apps.billing.models import BudgetAction, BudgetScope, Hold, Pot
from apps.ledger.models import Wallet
from apps.pricing import services as pricing
from apps.pricing.models import PriceBook
from apps.quotas import services as quotas
from apps.quotas.models import Quota
from apps.quotas.selectors import Target
from tests import build
from tests.billing.runs import HOUR, at, run, stop
from tests.threads import at_once


@pytest.fixture(autouse=True)
def prices(db):
    return build.price_book(
        {"sku": "h100", "unit_price": "2.4"},
        {"sku": "free", "unit_price": "0"},
        {"meter": "instance_hours", "unit_price": "0.5"},
    )


def allow_gpus(lab, number, quota=Quota.CONCURRENT_GPUS):
    quotas.override_limit(
        actor=build.actor(lab),
        organization=lab,
        target=Target(quota),
        value=number,
        reason="tests",
        now=at(9),
    )


@pytest.fixture
def lab(lab):
    build.credit(lab, "24", now=at(9))
    allow_gpus(lab, 1_000)
    allow_gpus(lab, None, Quota.GPU_HOURS_PER_MONTH)
    return lab


def launch(gpus="1", sku="h100", **fields) -> Launch:
    return Launch(sku=sku, region="eu", gpus=Decimal(gpus), **fields)


def codes(lab, now=None, **fields) -> list[str]:
    lab.refresh_from_db()
    return [reason.code for reason in entitlements.check(lab, launch(**fields), now=now or at(9)).reasons]


def hold(lab, subject, now=None, **fields):
    return billing.check_and_hold(
        actor=build.actor(lab),
        organization=lab,
        launch=launch(**fields),
        source="",
        subject=subject,
        expires_at=(now or at(9)) + timedelta(hours=2),
        now=now or at(9),
    )


def test_what_credit_covers_may_start_and_its_cost_and_end_are_told(lab):
    found = entitlements.check(lab, launch("2", hours=Decimal(3)), now=at(9))

    assert (found.allowed, found.cost_micros) == (True, 14_400_000)
    assert found.runway_ends_at == at(9) + 5 * HOUR


def test_the_end_counts_what_runs_already(lab):
    run(lab, "a", at(8.5), at(10))
    build.metered(lab, at(9))

    found = entitlements.check(lab, launch(), now=at(9))

    # 22.80 are left for two.
    assert found.runway_ends_at == at(9) + 22.8 / 4.8 * HOUR


def test_an_hour_must_be_covered_even_of_a_shorter_launch(lab):
    assert codes(lab, gpus="10", hours=Decimal("0.1")) == []
    assert codes(lab, gpus="10.001", hours=Decimal("0.1")) == ["insufficient_credit"]
    assert codes(lab, gpus="1", hours=Decimal(10)) == []
    assert codes(lab, gpus="1", hours=Decimal("10.001")) == ["insufficient_credit"]


def test_the_remedy_says_what_is_missing(lab):
    (reason,) = entitlements.check(lab, launch("11"), now=at(9)).reasons

    assert reason.remedy == "2.40 USD more is needed. Top up, or ask for less."


def test_the_cost_follows_the_tier_that_the_month_has_reached(lab):
    tiers = [
        {"up_to": "3", "unit_price": "1", "flat_fee": "0"},
        {"up_to": None, "unit_price": "4", "flat_fee": "0"},
    ]
    build.price_book({"sku": "tiered", "model": "graduated", "tiers": tiers}, name="Own", currency="USD")
    pricing.assign_book(
        actor=build.actor(),
        organization=lab,
        book=PriceBook.objects.get(name="Own"),
        effective_from=at(0),
        now=at(0),
    )
    build.usage(lab, at(7), at(9), sku="tiered", now=at(9))
    build.metered(lab, at(9))

    found = entitlements.check(lab, launch("2", sku="tiered"), now=at(9))

    # Two of three cheap hours are used.
    assert found.cost_micros == 5_000_000


def test_instances_without_a_gpu_are_priced_as_such(lab):
    assert entitlements.check(lab, launch("0", sku="cpu"), now=at(9)).cost_micros == 500_000


def test_what_has_no_price_does_not_start(lab):
    found = entitlements.check(lab, launch(sku="b200"), now=at(9))

    assert ([reason.code for reason in found.reasons], found.cost_micros) == (["sku_unpriced"], None)


def test_a_suspended_organization_or_blocked_spending_starts_nothing(lab):
    lab.status = "suspended"
    lab.save()
    assert codes(lab) == ["organization_suspended"]

    lab.status = "active"
    lab.save()
    billing.suspend_spending(
        actor=build.actor(lab), organization=lab, suspended=True, reason="tests", now=at(9)
    )
    assert codes(lab) == ["spending_suspended"]


def test_quotas_count_what_runs_and_what_is_held(lab):
    allow_gpus(lab, 4)
    run(lab, "a", at(8.5), at(10))
    build.metered(lab, at(9))
    hold(lab, "b", gpus="2")

    assert codes(lab, gpus="1") == []
    assert codes(lab, gpus="2") == ["quota_exceeded"]

    # Once it runs it is counted as running, not twice.
    run(lab, "b", at(8.9), at(10), gpus=2)
    build.metered(lab, at(9))
    assert codes(lab, gpus="1") == []


def test_a_budget_that_blocks_refuses_what_it_covers(lab):
    train, other = build.project(lab, "train"), build.project(lab, "other")
    blocking = {"action": BudgetAction.BLOCK_NEW, "scope": BudgetScope.PROJECT, "project": train}
    build.budget(lab, "2.4", **blocking, name="Training")
    build.budget(lab, "1", **{**blocking, "action": BudgetAction.NOTIFY})
    build.usage(lab, at(8), at(9), project="train", now=at(9))
    build.metered(lab, at(9))

    assert codes(lab, project=train) == ["budget_exceeded"]
    assert codes(lab, project=other) == codes(lab) == []
    build.budget(lab, "2.4", action=BudgetAction.BLOCK_NEW)
    assert codes(lab) == ["budget_exceeded"]


def test_every_reason_is_told_at_once(lab):
    allow_gpus(lab, 4)
    build.budget(lab, "2.4", action=BudgetAction.BLOCK_NEW)
    build.usage(lab, at(8), at(9), now=at(9))
    build.metered(lab, at(9))

    assert codes(lab, gpus="100") == ["quota_exceeded", "insufficient_credit", "budget_exceeded"]


# --- with a hold


def test_what_is_allowed_is_held_for_an_hour_at_least(lab):
    found, held = hold(lab, "a", gpus="2", hours=Decimal("0.5"))

    assert found.allowed
    assert (held.amount_micros, held.sku, held.gpus) == (4_800_000, "h100", Decimal(2))
    assert codes(lab, gpus="9") == ["insufficient_credit"]


def test_asking_again_finds_the_same_hold_although_nothing_else_is_left(lab):
    _found, first = hold(lab, "a", gpus="10")

    found, again = hold(lab, "a", gpus="10")

    assert (found.allowed, again.pk) == (True, first.pk)
    assert Hold.objects.count() == 1


def test_what_is_refused_is_not_held(lab):
    found, held = hold(lab, "a", gpus="11")

    assert (found.allowed, held) == (False, None)
    assert not Hold.objects.exists()


def test_what_costs_nothing_needs_no_hold_and_no_credit(lab):
    poor = build.organization("poor", now=at(1))

    found, held = hold(poor, "a", sku="free")

    assert (found.allowed, found.cost_micros, held) == (True, 0, None)
    assert not Wallet.objects.filter(organization_id=poor.id).exists()


def test_a_hold_without_a_source_is_used_up_and_ended_by_the_allocation_of_its_name(lab):
    hold(lab, "a", gpus="2")
    run(lab, "a", at(9), at(12), gpus=2)
    build.metered(lab, at(9.5))
    (held,) = Hold.objects.all()

    (row,) = selectors.hold_rows(lab, [held], now=at(9.5))
    assert row["remaining"] == "2.400000"

    stop(lab, "a", at(9.75))
    build.metered(lab, at(10))
    assert Hold.objects.get().release == "stopped"


@pytest.mark.django_db(transaction=True)
def test_launches_at_once_spend_neither_the_same_credit_nor_the_same_gpus():
    build.price_book({"unit_price": "2.4"})
    rich, poor = build.organization("rich", now=at(1)), build.organization("poor", now=at(1))
    build.credit(rich, "1000", now=at(9), pot=Pot.PROMO)
    build.credit(poor, "9.6", now=at(9))
    allow_gpus(rich, 5)
    allow_gpus(poor, 100)

    found = at_once(
        *(
            lambda lab=lab, number=number: hold(lab, f"a{number}")[1]
            for lab in (rich, poor)
            for number in range(8)
        )
    )

    assert [type(one).__name__ for one in found].count("Hold") == 9
    assert Hold.objects.filter(organization=rich).count() == 5
    assert Hold.objects.filter(organization=poor).count() == 4


# --- over HTTP


def test_over_http_a_check_holds_when_asked(lab):
    build.credit(lab, "100")
    client = build.client(build.integration(["entitlements:check", "holds:write"]))
    sent = {"sku": "h100", "region": "eu", "gpus": "1", "hours": "2"}

    plain = client.post("/orgs/lab/entitlements/check", sent)
    held = client.post(
        "/orgs/lab/entitlements/check", {**sent, "hold": {"allocation": "a", "expires_in": 600}}
    )

    assert (plain.status_code, plain.json()["allowed"], plain.json()["reasons"]) == (200, True, [])
    assert (plain.json()["estimated_cost"], "hold_id" in plain.json()) == ("4.800000", False)
    assert held.json()["hold_id"] == str(Hold.objects.get().id)


def test_over_http_a_refusal_is_an_answer_and_holding_needs_its_scope(lab):
    client = build.client(build.integration(["entitlements:check"]))
    sent = {"sku": "h100", "region": "eu", "gpus": "1000"}

    refused = client.post("/orgs/lab/entitlements/check", sent)
    held = client.post(
        "/orgs/lab/entitlements/check", {**sent, "hold": {"allocation": "a", "expires_in": 600}}
    )
    unknown = client.post("/orgs/lab/entitlements/check", {**sent, "project": "nowhere"})

    assert refused.status_code == 200
    assert refused.json()["allowed"] is False
    assert "insufficient_credit" in [row["code"] for row in refused.json()["reasons"]]
    assert held.status_code == 403
    assert unknown.json()["details"]["fields"][0]["path"] == "project"
