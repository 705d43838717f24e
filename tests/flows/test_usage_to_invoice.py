"""The main job over HTTP: usage sent by an integration becomes charges, an invoice and an explanation of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine
from django.core.management import call_command

from apps.billing.models import Pot
from tests import build
from tests.billing.runs import HOUR, at
from tests.metering.events import heartbeat, resized, started, stopped
from tests.money import failing

MAY = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def may() -> Iterator[None]:
    """It is half past twelve on 15 May."""
    with time_machine.travel(at(12.5), tick=False):
        yield


@pytest.fixture
def customer(db, may):
    """A customer whose allocation of 8 GPUs ran from 9 to 11, at 4 GPUs for its last half hour."""
    organization = build.organization("lab", now=MAY)
    build.project(organization, "train")
    build.price_book({"unit_price": "2.49"}, name="Standard")
    build.credit(organization, "20", now=at(8), reason="Wire 4711")
    build.credit(organization, "5", pot=Pot.PROMO, now=at(8), reason="Welcome")
    prov = build.client(build.integration())
    sent = prov.post(
        "/api/v1/usage/events",
        [
            started("a", at(9), project="train"),
            heartbeat("a", at(10)),
            resized("a", at(10.5), 4),
            stopped("a", at(11)),
        ],
    )
    assert sent.json() == {"accepted": 4, "duplicates": 0, "rejected": 0, "errors": []}
    call_command("meter")
    return organization


@pytest.fixture
def api(customer):
    return build.client(build.api_key(customer))


def get(client, path, **parameters):
    response = client.get(f"/api/v1/{path}", parameters)
    assert response.status_code == 200, response.content
    return response.json()


def rows(client, path, *fields, **parameters):
    """Return the asked fields of every row of a list."""
    found = get(client, path, **parameters)["data"]
    return [tuple(row[field] for field in fields) for row in found]


# 8 GPUs for 1.5 hours and 4 for half an hour are 14 GPU-hours: 34.86.


def test_balance(api):
    assert get(api, "orgs/lab/balance") == {
        "currency": "USD",
        "available": "-9.860000",
        "paid": "0.000000",
        "promo": "0.000000",
        "accrued": "0.000000",
        "held": "0.000000",
        "receivable": "9.860000",
        "burn_rate_per_hour": "0.000000",
        "runway_ends_at": None,
        "billing_state": "depleted",
    }


def test_transactions_add_up(api):
    assert sorted(rows(api, "orgs/lab/transactions", "occurred_at", "kind", "pot", "amount")) == [
        ("2026-05-15T08:00:00Z", "grant", "promo", "5.000000"),
        ("2026-05-15T08:00:00Z", "top_up", "paid", "20.000000"),
        ("2026-05-15T09:00:00Z", "usage", "paid", "-14.920000"),
        ("2026-05-15T09:00:00Z", "usage", "promo", "-5.000000"),
        ("2026-05-15T10:00:00Z", "usage", "paid", "-5.080000"),
        ("2026-05-15T10:00:00Z", "usage", "receivable", "-9.860000"),
    ]
    assert get(api, "orgs/lab/transactions/aggregate", group_by="pot")["data"] == [
        {"group": "paid", "amount": "0.000000", "count": 3},
        {"group": "promo", "amount": "0.000000", "count": 2},
        {"group": "receivable", "amount": "-9.860000", "count": 1},
    ]


def test_usage_resources_records_and_credits(api):
    assert rows(
        api, "orgs/lab/usage", "start", "project", "gpu_hours", "amount", group_by="project", interval="hour"
    ) == [
        ("2026-05-15T09:00:00Z", "train", "8.000000", "19.920000"),
        ("2026-05-15T10:00:00Z", "train", "6.000000", "14.940000"),
    ]
    assert rows(api, "orgs/lab/usage/resources", "resource", "state", "gpus", "since", "until", "cost") == [
        ("a", "stopped", "4", "2026-05-15T09:00:00Z", "2026-05-15T11:00:00Z", "34.860000")
    ]
    assert rows(api, "pricing/billing/records", "hour", "quantity", "amount", "invoice") == [
        ("2026-05-15T10:00:00Z", "6.000000", "14.940000", None),
        ("2026-05-15T09:00:00Z", "8.000000", "19.920000", None),
    ]
    assert sorted(rows(api, "billing/credits", "pot", "amount", "remaining", "reason")) == [
        ("paid", "20.000000", "0.000000", "Wire 4711"),
        ("promo", "5.000000", "0.000000", "Welcome"),
    ]


@pytest.fixture
def invoice(customer, api):
    with time_machine.travel(datetime(2026, 6, 1, tzinfo=UTC), tick=False):
        call_command("close_period", "--period", "2026-05", "--finalize")
    (found,) = get(api, "billing/invoices")["data"]
    return found


def test_the_invoice(api, invoice):
    assert {name: value for name, value in invoice.items() if name != "id"} == {
        "number": "INV-2026-000001",
        "state": "open",
        "period": "2026-05",
        "period_start": "2026-05-01T00:00:00Z",
        "period_end": "2026-06-01T00:00:00Z",
        "currency": "USD",
        "subtotal": "34.86",
        "discount": "5.00",
        "tax": "0.00",
        "total": "29.86",
        "due": "9.86",
        "paid": "20.00",
        "credited": "0.00",
        "outstanding": "9.86",
        "due_at": "2026-06-15T00:00:00Z",
        "finalized_at": "2026-06-01T00:00:00Z",
        "created_at": "2026-06-01T00:00:00Z",
    }
    assert get(api, f"billing/invoices/{invoice['id']}") == invoice
    (line,) = get(api, f"billing/invoices/{invoice['id']}/lines")["data"]
    assert {name: value for name, value in line.items() if name != "id"} == {
        "position": 1,
        "kind": "usage",
        "usage_period": "2026-05",
        "corrects": None,
        "meter": "gpu_hours",
        "sku": "h100",
        "region": "eu",
        "quantity": "14.000000",
        "gpu_seconds": "50400",
        "unit_price": "2.49",
        "amount": "34.86",
        "discount": "5.00",
        "tax": "0.00",
        "tax_category": "O",
        "tax_percent": "0",
        "currency": "USD",
        "splits": [{"project": "train", "api_key": None, "quantity": "14.000000", "amount": "34.860000"}],
    }
    assert failing() == []


def test_a_line_is_explained_down_to_the_raw_events(api, invoice):
    path = f"billing/invoices/{invoice['id']}/explain"
    (line,) = get(api, path)["lines"]
    assert (line["price"]["book"], line["price"]["unit_price"]) == ("Standard", "2.49")
    assert line["arithmetic"] == {
        "counted": "50400",
        "divided_by": 3600,
        "exact": "34.860000000000",
        "rounded": "34.86",
        "tiers": [],
        "correction": None,
    }

    hours = get(api, path, line=line["id"])["line"]["hours"]
    assert [
        (hour["hour"], hour["quantity"], hour["amount"], hour["cumulative_amount"]) for hour in hours
    ] == [
        ("2026-05-15T09:00:00Z", "28800", "19.920000", "19.920000"),
        ("2026-05-15T10:00:00Z", "21600", "14.940000", "34.860000"),
    ]

    hour = get(api, path, line=line["id"], hour=hours[1]["hour"])["line"]["hour"]
    (resource,) = hour["resources"]
    assert (resource["resource"], resource["project"], resource["quantity"]) == ("a", "train", "21600")
    assert resource["intervals"] == [
        {"start": "2026-05-15T10:00:00Z", "end": "2026-05-15T10:30:00Z", "gpus": "8"},
        {"start": "2026-05-15T10:30:00Z", "end": "2026-05-15T11:00:00Z", "gpus": "4"},
    ]
    assert {event["type"] for event in resource["events"]} >= {"allocation.resized", "allocation.stopped"}
    assert [paid["pot"] for paid in hour["paid_by"]][-1] == "receivable"


@pytest.mark.parametrize("hour", ["2026-13-45T00:00:00Z", "yesterday", "2026-05-15T09:00:00"])
def test_a_moment_that_is_none_is_refused(api, invoice, hour):
    path = f"/api/v1/billing/invoices/{invoice['id']}/explain"
    line = get(api, f"billing/invoices/{invoice['id']}/lines")["data"][0]["id"]

    assert api.get(path, {"line": line, "hour": hour}).status_code == 400
    aggregate = api.get("/api/v1/orgs/lab/transactions/aggregate", {"group_by": "day", "occurred_from": hour})
    assert aggregate.status_code == 400


@pytest.mark.parametrize("path", ["", "/lines", "/explain"])
def test_another_organizations_invoice_does_not_exist(invoice, path):
    stranger = build.client(build.api_key(build.organization("other")))

    response = stranger.get(f"/api/v1/billing/invoices/{invoice['id']}{path}")

    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert rows(stranger, "billing/invoices", "number") == []
    assert rows(stranger, "pricing/billing/records", "hour") == []
    assert stranger.get("/api/v1/orgs/lab/balance").status_code == 404


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("orgs/lab/balance", "billing.read"),
        ("orgs/lab/transactions", "billing.read"),
        ("billing/credits", "billing.read"),
        ("billing/invoices", "billing.read"),
        ("pricing/billing/records", "billing.read"),
        ("orgs/lab/usage", "usage.read"),
        ("orgs/lab/usage/resources", "usage.read"),
    ],
)
def test_a_key_without_the_scope_is_refused(customer, path, scope):
    without = build.client(build.api_key(customer, {"billing.read", "usage.read"} - {scope}))
    with_it = build.client(build.api_key(customer, {scope}))

    refused = without.get(f"/api/v1/{path}")

    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_permissions")
    assert with_it.get(f"/api/v1/{path}").status_code == 200


def test_sending_metering_and_closing_again_changes_nothing(api, customer, invoice, capsys):
    def everything():
        call_command("export_invoices", "--period", "2026-05")
        return (
            json.loads(capsys.readouterr().out),
            get(api, "orgs/lab/balance"),
            get(api, "orgs/lab/transactions"),
            get(api, "billing/invoices"),
        )

    capsys.readouterr()
    before = everything()
    again = build.client(build.integration()).post(
        "/api/v1/usage/events", [stopped("a", at(11)), started("a", at(9), project="train")]
    )
    assert again.json() == {"accepted": 0, "duplicates": 2, "rejected": 0, "errors": []}
    with time_machine.travel(datetime(2026, 6, 1, tzinfo=UTC) + HOUR, tick=False):
        call_command("meter")
        call_command("close_period", "--period", "2026-05", "--finalize")
    capsys.readouterr()

    assert everything() == before
    assert failing() == []
