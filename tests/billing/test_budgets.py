"""Budgets: what counts towards each, what is told once, and what is foretold."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction

from apps.audit.models import AuditEvent
from apps.billing import budgets
from apps.billing import services as billing
from apps.billing.models import Budget, BudgetNotice, BudgetScope
from apps.core.errors import ValidationFailed
from apps.credentials.models import ApiKey
from apps.metering import services as metering
from apps.notifications.models import Mail
from apps.notifications.rendering import render
from apps.organizations.models import Organization
from apps.outbox.models import OutboxEvent
from tests import build
from tests.billing.runs import HOUR, at, run
from tests.build import NOW
from tests.threads import at_once


@pytest.fixture(autouse=True)
def prices(db):
    return build.price_book({"sku": "h100", "unit_price": "2.4"})


@pytest.fixture
def lab(lab):
    lab.billing_email = "money@lab.example"
    lab.save()
    build.credit(lab, "1000", now=at(0))
    return lab


def spent(lab, *rows: Budget, now=NOW) -> list[int]:
    return [one.spent_micros for one in budgets.states(lab, rows, now=now)]


def told() -> list[tuple[int, int]]:
    return list(BudgetNotice.objects.order_by("percent").values_list("percent", "spent_micros"))


def subjects() -> list[str]:
    rows = Mail.objects.filter(template="billing/mail/budget").order_by("created_at", "pk")
    return [render(row.template, row.context).subject for row in rows]


def test_each_scope_counts_its_own_share_posted_or_not(lab):
    train = build.project(lab, "train")
    build.api_key(lab, name="ci")
    key = ApiKey.objects.get()
    whole = build.budget(lab, "100")
    of_project = build.budget(lab, "100", scope=BudgetScope.PROJECT, project=train)
    of_key = build.budget(lab, "100", scope=BudgetScope.API_KEY, credential=key)
    build.usage(lab, at(9), at(10), gpus="3", project="train")
    build.usage(lab, at(9), at(10), gpus="1", api_key=key.public_id)
    build.usage(lab, at(11), at(11.5), gpus="2", project="train")
    build.metered(lab, at(11.75))

    assert spent(lab, whole, of_project, of_key, now=at(11.75)) == [12_000_000, 9_600_000, 2_400_000]


def test_usage_of_another_period_does_not_count(lab):
    build.usage(lab, at(9), at(10))
    build.metered(lab)
    budget = build.budget(lab, "100")

    assert spent(lab, budget) == [2_400_000]
    assert spent(lab, budget, now=at(0) + 30 * 24 * HOUR) == [0]


@pytest.mark.parametrize("gpus", [1, 40_000])
def test_the_pace_so_far_is_taken_to_the_end_of_the_period(lab, gpus):
    build.usage(lab, at(9), at(10), gpus=str(gpus))
    build.metered(lab)
    budget = build.budget(lab, "100")

    (found,) = budgets.states(lab, [budget], now=NOW)
    (early,) = budgets.states(lab, [budget], now=at(-14 * 24 + 5))

    # 2.40 in 348 of 744 hours.
    assert found.forecast_micros == gpus * 2_400_000 * 744 // 348
    assert early.forecast_micros is None


def test_each_threshold_is_told_once_in_a_period_and_the_highest_is_mailed(lab):
    budget = build.budget(lab, "4.8", thresholds=[100, 50, 25])
    run(lab, "a", at(9), at(12))
    build.metered(lab, at(9.25))
    assert told() == []

    build.metered(lab, at(10))
    build.metered(lab, at(10.5))

    assert told() == [(25, 2_400_000), (50, 2_400_000)]
    assert subjects() == ["50 % of the budget Budget is spent"]
    build.metered(lab, at(11))
    assert told()[2:] == [(100, 4_800_000)]
    assert subjects()[1:] == ["100 % of the budget Budget is spent"]
    events = OutboxEvent.objects.filter(event_type="billing.budget_threshold_passed").order_by("pk")
    assert [(row.payload["id"], row.payload["percent"]) for row in events] == [
        (str(budget.id), 25),
        (str(budget.id), 50),
        (str(budget.id), 100),
    ]


def test_a_higher_amount_tells_nothing_again(lab):
    budget = build.budget(lab, "2.4", thresholds=[100])
    build.usage(lab, at(9), at(10))
    build.metered(lab)

    billing.change_budget(actor=build.actor(lab), budget=budget, amount_micros=2_300_000, now=NOW)
    billing.settle_budgets(organization_id=lab.id, now=NOW)

    assert (told(), len(subjects())) == ([(100, 2_400_000)], 1)
    assert AuditEvent.objects.get(action="budget.changed").diff == {"amount": ["2.40", "2.30"]}


def test_an_ended_budget_is_silent_and_its_notices_stay(lab):
    budget = build.budget(lab, "2.4", thresholds=[50])
    build.usage(lab, at(9), at(10))
    build.metered(lab)
    other = build.budget(lab, "1")

    for row in (budget, other, other):
        billing.end_budget(actor=build.actor(lab), budget=row, now=NOW)

    assert billing.settle_budgets(organization_id=lab.id, now=NOW) == 0
    assert told() == [(50, 2_400_000)]
    assert AuditEvent.objects.filter(action="budget.ended").count() == 2
    with pytest.raises(IntegrityError), transaction.atomic():
        BudgetNotice.objects.update(percent=1)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("name", {"name": " "}),
        ("amount", {"amount": "0"}),
        ("thresholds", {"thresholds": []}),
        ("thresholds", {"thresholds": [0]}),
        ("thresholds", {"thresholds": list(range(1, 12))}),
        ("project", {"scope": BudgetScope.PROJECT}),
    ],
)
def test_what_cannot_be_is_refused(lab, field, wrong):
    with pytest.raises(ValidationFailed) as refusal:
        build.budget(lab, **{"amount": "1", **wrong})

    assert [error.path for error in refusal.value.fields] == [field]
    assert not Budget.objects.exists()


def test_a_budget_cannot_point_at_another_organizations_project(lab):
    foreign = build.project(build.organization("other"))

    build.budget(lab, "1", scope=BudgetScope.PROJECT, project=foreign)

    with pytest.raises(IntegrityError), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def test_looking_at_budgets_takes_the_same_queries_however_many(lab, django_assert_num_queries):
    build.usage(lab, at(9), at(10))
    build.metered(lab)
    rows = [build.budget(lab, "100") for _number in range(8)]

    # The period; periods with how far they are charged; what is not posted; the sums.
    with django_assert_num_queries(4):
        budgets.states(lab, rows, now=NOW)


@pytest.mark.django_db(transaction=True)
def test_two_ticks_at_once_tell_once():
    build.price_book({"unit_price": "2.4"})
    lab = build.organization("lab", now=at(0), billing_email="money@lab.example")
    build.budget(lab, "2.4", thresholds=[50, 100])
    build.usage(lab, at(9), at(10))
    metering.meter_organization(organization_id=lab.id, until=NOW, now=NOW)

    found = at_once(*[lambda: billing.settle_budgets(organization_id=lab.id, now=NOW)] * 4)

    assert sorted(found) == [0, 0, 0, 2]
    assert (len(told()), len(subjects())) == (2, 1)


# --- over HTTP


def test_budgets_over_http(lab):
    build.project(lab, "train")
    client = build.client(build.api_key(lab, ["budgets.manage"]))
    sent = {
        "name": "Training",
        "scope": "project",
        "project": "train",
        "amount": "250.00",
        "thresholds": [80],
    }

    made = client.post("/orgs/lab/budgets", sent)
    path = f"/orgs/lab/budgets/{made.json()['id']}"
    changed = client.patch(path, {"amount": "300", "action": "block_new"})
    listed = client.get("/orgs/lab/budgets?scope=project").json()["data"]

    assert made.status_code == 201
    assert {name: made.json()[name] for name in ("spent", "percent", "state", "action")} == {
        "spent": "0.000000",
        "percent": 0,
        "state": "within",
        "action": "notify",
    }
    assert (changed.json()["amount"], changed.json()["action"]) == ("300.000000", "block_new")
    assert listed == [changed.json()]
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404


def test_a_budget_without_a_name_is_called_like_what_it_counts(lab):
    project = build.project(lab, "train")
    client = build.client(build.api_key(lab, ["budgets.manage"]))
    sent = {"amount": "250.00", "thresholds": [80], "action": "notify"}

    whole = client.post("/orgs/lab/budgets", {**sent, "scope": "organization"}).json()
    part = client.post("/orgs/lab/budgets", {**sent, "scope": "project", "project": "train"}).json()

    assert (whole["name"], part["name"]) == (lab.name, project.name)


def test_over_http_what_is_unknown_or_not_allowed_is_refused(lab):
    manager = build.client(build.api_key(lab, ["budgets.manage"]))
    reader = build.client(build.api_key(lab, ["billing.read"]))
    sent = {"name": "Training", "scope": "project", "project": "nowhere", "amount": "1"}

    refused = manager.post("/orgs/lab/budgets", sent)

    assert (refused.status_code, refused.json()["details"]["fields"][0]["path"]) == (422, "project")
    assert reader.get("/orgs/lab/budgets").status_code == 200
    assert reader.post("/orgs/lab/budgets", sent).status_code == 403
    other = build.budget(build.organization("other"), "1")
    assert manager.get(f"/orgs/lab/budgets/{other.id}").status_code == 404
    assert Organization.objects.count() == 2
