"""What is used beside its limit, what stands against using more, and asking for more."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest
import time_machine

from apps.audit.models import AuditEvent
from apps.core.permissions import Role
from apps.notifications.models import Mail
from apps.outbox.models import OutboxEvent
from apps.quotas import selectors
from apps.quotas import services as quotas
from apps.quotas.models import LimitOverride, QuotaRequest, Target
from apps.quotas.selectors import Demand
from tests import build
from tests.build import NOW
from tests.metering.events import EARLIER, heartbeat, minutes, reading, send, started, tick
from tests.threads import at_once

QUOTAS, REQUESTS = "/api/v1/orgs/lab/quotas", "/api/v1/orgs/lab/quota-requests"
HEARD = NOW - minutes(0.5)


def run(subject, gpus, sku="h100-sxm", region="eu"):
    """Let something run since three hours."""
    send(
        started(subject, EARLIER, sku=sku, region=region, gpus=gpus),
        heartbeat(subject, HEARD),
    )


def use_of(lab, *about):
    rows = {use.limit.target: use for use in selectors.uses(organization_id=lab.id, now=NOW)}
    return rows[Target(*about)].used


def exceeded(lab, gpus, sku="h100-sxm", region="eu", **more):
    found = selectors.exceeded(
        organization_id=lab.id, sku=sku, region=region, gpus=Decimal(gpus), now=NOW, **more
    )
    return [(reason.code, reason.target, reason.limit, reason.used) for reason in found]


@pytest.fixture
def client(lab):
    return build.person_client(build.member(lab, Role.DEVELOPER))


def asking(**more):
    return {"quota": "members", "requested": 25, "reason": "We grow.", **more}


def decide(request, *, approve=True, **more):
    facts = {"actor": build.actor(), "request": request, "now": NOW, **more}
    return quotas.approve_request(**facts) if approve else quotas.deny_request(**{"message": "No.", **facts})


def test_use_stands_beside_each_limit(lab, sold):
    run("a", 4)
    send(reading(EARLIER, "egress_gb", "1.5", subject="bucket"))
    tick(lab.pk, HEARD)
    build.member(lab, Role.OWNER)
    build.project(lab)
    build.project(lab)
    secret = build.api_key(lab, ["quotas.read"])

    with time_machine.travel(NOW, tick=False):
        rows = {row["quota"]: row for row in build.client(secret).get(QUOTAS).json()["data"]}
        alias = build.client(secret).get("/api/v1/user/quotas").json()["data"]

    shown = {name: (row["limit"], row["used"], row["remaining"]) for name, row in rows.items()}
    # Four GPUs for three hours less the half minute that nobody has proved yet.
    assert shown == {
        "requests_per_minute": (100, None, None),
        "request_burst": (50, None, None),
        "writes_per_minute": (30, None, None),
        "gpu_hours_per_month": (10, "11.966667", "0"),
        "data_gb_per_month": (5, "1.5", "3.5"),
        "concurrent_gpus": (8, "4", "4"),
        "members": (10, "1", "9"),
        "api_keys": (20, "1", "19"),
        "projects": (10, "2", "8"),
    }
    assert list(rows.values()) == alias


def test_each_gpu_counts_under_the_most_specific_limit_alone(lab, sold):
    run("sxm-eu", 1)
    run("pcie-us", 2, sku="h100-pcie", region="us")
    run("l4-eu", 4, sku="l4")
    run("unknown", 8, sku="never-sold", region="us")
    tick(lab.pk, HEARD)
    build.limit(lab, "concurrent_gpus", 9, family="h100")
    build.limit(lab, "concurrent_gpus", 9, family="h100", region="eu")
    build.limit(lab, "concurrent_gpus", 9, region="eu")

    assert use_of(lab, "concurrent_gpus", "h100", "eu") == 1
    assert use_of(lab, "concurrent_gpus", "h100", "*") == 2
    assert use_of(lab, "concurrent_gpus", "*", "eu") == 4
    assert use_of(lab, "concurrent_gpus", "*", "*") == 8


def test_what_would_exceed_a_limit_is_named_with_what_lifts_it(lab, sold):
    run("a", 4)
    tick(lab.pk, HEARD)
    build.limit(lab, "gpu_hours_per_month", None)
    build.limit(lab, "concurrent_gpus", 6, family="h100")
    target = Target("concurrent_gpus", "h100", "*")

    assert exceeded(lab, "2") == []
    assert exceeded(lab, "2.001") == [("quota_exceeded", target, 6, Decimal(4))]
    assert exceeded(lab, "8", sku="l4") == []
    waits = Demand(sku="h100-pcie", region="us", gpus=Decimal(1))
    assert exceeded(lab, "2", reserved=[waits]) == [("quota_exceeded", target, 6, Decimal(5))]
    found = selectors.exceeded(organization_id=lab.id, sku="h100-sxm", region="eu", gpus=Decimal(8), now=NOW)
    assert found[0].remedy == (
        "GPUs at once (h100): 4 of 6 in use or reserved. Stop what you no longer need, or ask for more."
    )


def test_what_starts_has_an_hour_of_the_month_left(lab, sold):
    build.usage(lab, EARLIER, EARLIER + minutes(90), sku="l4", gpus="4")
    tick(lab.pk, NOW)

    assert exceeded(lab, "4", sku="l4") == []
    assert exceeded(lab, "4.001", sku="l4") == [
        ("plan_limit_reached", Target("gpu_hours_per_month"), 10, Decimal(6))
    ]


def test_use_of_another_month_and_organization_does_not_count(lab, sold):
    other = build.organization("other", now=NOW)
    build.usage(other, EARLIER, EARLIER + minutes(90), gpus="8")
    build.usage(lab, NOW - timedelta(days=16), NOW - timedelta(days=15), gpus="8", now=NOW)
    tick(lab.pk, NOW)
    tick(other.pk, NOW)

    assert use_of(lab, "gpu_hours_per_month") == 0


def test_a_request_is_made_seen_and_withdrawn(lab, client):
    made = client.post(REQUESTS, asking()).json()

    assert (made["state"], made["limit_then"], made["requested"]) == ("submitted", 10, 25)
    assert client.post(REQUESTS, asking(requested=30)).json()["code"] == "quota_already_requested"
    assert client.delete(f"{REQUESTS}/{made['id']}").status_code == 204
    assert client.get(f"{REQUESTS}/{made['id']}").json()["state"] == "withdrawn"
    assert client.delete(f"{REQUESTS}/{made['id']}").json()["code"] == "quota_request_decided"
    assert client.post(REQUESTS, asking(requested=30)).status_code == 201
    assert [row["state"] for row in client.get(REQUESTS).json()["data"]] == ["submitted", "withdrawn"]
    assert not Mail.objects.exists()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (asking(requested=10), 409, "quota_not_needed"),
        (asking(quota="gold"), 422, "validation_error"),
        (asking(reason="  "), 422, "validation_error"),
        (asking(region="eu"), 422, "validation_error"),
        (asking(quota="concurrent_gpus", family="h900"), 422, "validation_error"),
        (asking(requested=10**13), 422, "validation_error"),
    ],
)
def test_what_cannot_be_asked_for(client, sold, body, status, code):
    answer = client.post(REQUESTS, body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not QuotaRequest.objects.exists()


def test_an_approval_gives_a_limit_of_ones_own_and_mails_who_asked(lab, sold, run_jobs, mailoutbox):
    person = build.member(lab, Role.DEVELOPER)
    build.person_client(person).post(
        REQUESTS, asking(quota="concurrent_gpus", family="H100", region="eu", requested=64)
    )
    request = QuotaRequest.objects.get()
    assert (request.family, request.limit_then) == ("h100", 8), "under the one around it so far"

    decide(request, granted=32, expires_at=NOW + timedelta(days=30), message="Half for now.")

    limit = selectors.limits(organization_id=lab.id, now=NOW)[Target("concurrent_gpus", "h100", "eu")]
    assert (limit.value, limit.expires_at) == (32, NOW + timedelta(days=30))
    override = LimitOverride.objects.get()
    assert (override.request_id, override.reason) == (request.id, "Half for now.")
    assert OutboxEvent.objects.filter(event_type="quotas.quota_request_approved").count() == 1
    assert AuditEvent.objects.get(action="quota_request.approved").diff["granted"] == 32
    run_jobs()
    (mail,) = mailoutbox
    assert mail.to == [person.email]
    assert mail.subject == "Approved: GPUs at once (h100, eu) for lab"
    for words in ("may use 32 from now on", "Half for now.", "14 Jun 2026", "/app/lab/quotas"):
        assert words in mail.body, mail.body


def test_a_denial_says_why(lab, client, run_jobs, mailoutbox):
    client.post(REQUESTS, asking())

    decide(QuotaRequest.objects.get(), approve=False, message="Pay the invoice first.")

    assert not LimitOverride.objects.exists()
    run_jobs()
    assert mailoutbox[0].subject == "Not approved: Members for lab"
    assert "Pay the invoice first." in mailoutbox[0].body


def test_what_a_key_asked_for_is_answered_to_the_billing_address(lab, run_jobs, mailoutbox):
    lab.billing_email = "money@example.com"
    lab.save()
    build.client(build.api_key(lab)).post(REQUESTS, asking())

    decide(QuotaRequest.objects.get())
    run_jobs()

    assert [mail.to for mail in mailoutbox] == [["money@example.com"]]


def test_of_two_decisions_at_once_one_stands(transactional_db):
    lab = build.organization("lab")
    quotas.request_quota(actor=build.actor(lab), organization=lab, now=NOW, **asking())
    request = QuotaRequest.objects.get()

    results = at_once(
        *(partial(decide, request, granted=granted) for granted in (20, 21, 22)),
        partial(decide, request, approve=False),
    )

    refused = [result for result in results if isinstance(result, quotas.AlreadyDecided)]
    assert len(refused) == 3, results
    request.refresh_from_db()
    granted = LimitOverride.objects.values_list("value", flat=True)
    assert list(granted) == ([] if request.granted is None else [request.granted])
    assert Mail.objects.count() == 0, "nobody is a member, and there is no billing address"
    assert (
        AuditEvent.objects.filter(action__in=["quota_request.approved", "quota_request.denied"]).count() == 1
    )


def test_another_organization_sees_none_of_it(lab, client):
    client.post(REQUESTS, asking())
    request = QuotaRequest.objects.get()
    stranger = build.client(build.api_key(build.organization("other")))

    assert stranger.get(f"/api/v1/orgs/other/quota-requests/{request.id}").status_code == 404
    assert stranger.delete(f"/api/v1/orgs/other/quota-requests/{request.id}").status_code == 404
    assert stranger.get("/api/v1/orgs/other/quota-requests").json()["data"] == []


def test_queries_do_not_grow_with_what_there_is(lab, sold, django_assert_num_queries):
    for number in range(5):
        run(f"a{number}", 1)
        build.project(lab)
    tick(lab.pk, HEARD)

    # Limits of the plan and own ones; running resources and their events; families; members, invites, keys, projects;
    # the period and its usage.
    with django_assert_num_queries(11):
        selectors.uses(organization_id=lab.id, now=NOW)
    with django_assert_num_queries(8):
        exceeded(lab, "1")
