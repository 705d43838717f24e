"""Limits of requests over HTTP: what the headers say, who shares a bucket, and in which order refusals come."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
import time_machine

from apps.core.permissions import Permission, Role
from apps.limits import requests, stores
from apps.limits.policies import Policy, Rates
from apps.limits.stores import SharedStore
from apps.organizations.models import Organization
from tests import build
from tests.conftest import forget_stores

CATALOG = "/api/v1/pricing"
pytestmark = pytest.mark.django_db


def left(answer):
    return int(answer["X-RateLimit-Limit"]), int(answer["X-RateLimit-Remaining"])


@pytest.fixture
def frozen(limited, settings):
    """Stop the clock that counts, so that nothing grows back while a slow machine answers."""
    settings.REDIS_URL = ""
    forget_stores()
    with time_machine.travel(datetime.now(UTC), tick=False):
        yield


@pytest.fixture
def lab():
    return build.organization("lab")


def test_anonymous_requests_count_down_by_address(frozen):
    client = build.client()

    answers = [client.get(CATALOG, REMOTE_ADDR="192.0.2.7") for _request in range(11)]

    assert [left(answer) for answer in answers[:10]] == [(60, number) for number in range(9, -1, -1)]
    refused = answers[10]
    assert (refused.status_code, refused.json()["code"], refused["Retry-After"]) == (429, "rate_limited", "1")
    assert refused.json()["details"] == {"retry_after": 1}
    assert refused["X-RateLimit-Remaining"] == "0"
    assert 9 <= int(refused["X-RateLimit-Reset"]) - time.time() <= 11
    assert left(client.get(CATALOG, REMOTE_ADDR="192.0.2.8")) == (60, 9)


def test_one_ipv6_network_is_one_address(frozen):
    client = build.client()
    client.get(CATALOG, REMOTE_ADDR="2001:db8:1:2::1")

    assert left(client.get(CATALOG, REMOTE_ADDR="2001:db8:1:2:ffff::9")) == (60, 8)
    assert left(client.get(CATALOG, REMOTE_ADDR="2001:db8:1:3::1")) == (60, 9)


def test_twenty_wrong_credentials_then_429_comes_before_401(frozen, lab):
    bad, good = build.client("ch_live_nonsense"), build.client(build.api_key(lab))

    answers = [bad.get("/orgs/lab") for _request in range(21)]

    assert [answer.status_code for answer in answers] == [401] * 20 + [429]
    assert left(answers[0]) == (20, 19)
    assert answers[20]["Retry-After"] == "3"
    assert good.get("/orgs/lab").status_code == 200, "a right one is not shut out by a neighbour's"


def test_429_comes_before_401_without_a_credential(frozen):
    client = build.client()

    statuses = [client.get("/orgs/lab").status_code for _request in range(11)]

    assert statuses == [401] * 10 + [429]


def test_an_organizations_people_and_keys_share_its_plan(frozen, lab):
    key, person = build.client(build.api_key(lab)), build.person_client(build.member(lab, Role.OWNER))

    assert left(key.get("/orgs/lab")) == (100, 49)
    assert left(build.client(build.api_key(lab)).get("/orgs/lab")) == (100, 48)
    assert left(person.get("/orgs/lab")) == (100, 47)
    assert left(build.client(build.api_key(build.organization("other"))).get("/orgs/other")) == (100, 49)


@pytest.mark.parametrize(
    ("plan", "limit", "burst", "writes"),
    [
        ("professional", 1_000, 500, 300),
        ("enterprise", 10_000, 5_000, 3_000),
        ("sovereign", 10_000, 5_000, 3_000),
    ],
)
def test_each_plan_has_its_rate(frozen, lab, plan, limit, burst, writes):
    Organization.objects.update(plan=plan)
    client = build.client(build.api_key(lab))

    assert left(client.get("/orgs/lab")) == (limit, burst - 1)
    assert left(client.patch("/orgs/lab", {"name": "Lab"})) == (writes, writes - 1)


def test_writes_end_before_reads_do(frozen, lab, monkeypatch):
    rates = Rates(per_minute=100, burst=50, writes_per_minute=3)
    monkeypatch.setattr(requests, "_policy", lambda: lambda _organization_id: rates)
    client = build.client(build.api_key(lab, [Permission.BILLING_READ]))

    writes = [client.patch("/orgs/lab", {"name": "Lab"}) for _request in range(4)]

    assert [answer.status_code for answer in writes] == [403] * 3 + [429], "also what is refused later counts"
    assert writes[3]["X-RateLimit-Limit"] == "3"
    assert client.get("/orgs/lab/balance").status_code == 200


def test_the_tightest_policy_is_told(frozen, lab):
    client = build.client(build.api_key(lab))

    assert left(client.patch("/orgs/lab", {"name": "Lab"})) == (30, 29)
    assert left(client.get("/orgs/lab")) == (100, 48)


def test_a_person_without_an_organization_counts_for_themselves(frozen, lab):
    person = build.person_client(build.user())

    assert left(person.get("/api/v1/me")) == (100, 49)
    refused = person.get("/orgs/lab")
    assert (refused.status_code, left(refused)) == (404, (100, 48))


def test_429_comes_before_404(frozen, lab, monkeypatch):
    monkeypatch.setattr(requests, "PERSON", Rates(per_minute=1, burst=3))
    person = build.person_client(build.user())

    statuses = [person.get("/orgs/lab").status_code for _request in range(4)]

    assert statuses == [404] * 3 + [429]


def test_ingestion_has_a_bucket_of_its_own_for_each_integration(frozen, settings):
    settings.USAGE_REQUESTS_PER_MINUTE = 600
    secret = build.integration()
    client, other = build.client(secret), build.client(build.integration())

    def send(who):
        return who.generic("POST", "/api/v1/usage/events", b"[]", content_type="application/json")

    assert left(send(client)) == (600, 59)
    assert left(send(client)) == (600, 58)
    assert left(send(other)) == (600, 59)
    assert left(client.get("/api/v1/pricing/books")) == (10_000, 4_999)


def test_ingestion_asks_valkey_once(limited, monkeypatch):
    client = build.client(build.integration())
    asked = []
    take = SharedStore.take
    monkeypatch.setattr(
        SharedStore, "take", lambda self, buckets: asked.append(buckets) or take(self, buckets)
    )

    client.generic("POST", "/api/v1/usage/events", b"[]", content_type="application/json")

    assert len(asked) == 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_exempt(frozen, path):
    client = build.client()

    answers = [client.get(path) for _request in range(15)]

    assert {answer.status_code for answer in answers} == {200}
    assert "X-RateLimit-Limit" not in answers[0]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/v1/nothing", 404), ("/api/v1/openapi.json", 200), ("/.well-known/jwks.json", 200)],
)
def test_every_answer_of_the_api_says_what_is_left(frozen, path, status):
    answer = build.client().get(path)

    assert (answer.status_code, left(answer)) == (status, (60, 9))


def test_what_ends_before_any_view_counts_as_well(frozen, settings):
    settings.BODY_BYTES_MAX = 10
    client = build.client()

    answers = [client.post("/api/v1/auth/login", {"email": "x" * 50}) for _request in range(11)]

    assert [answer.status_code for answer in answers] == [413] * 10 + [429]
    assert answers[10]["Retry-After"] == "1"


def test_pages_carry_no_such_headers(frozen, client):
    assert "X-RateLimit-Limit" not in client.get("/accounts/login/")


def test_in_valkey_requests_are_counted_for_all_processes(limited, monkeypatch):
    monkeypatch.setattr(requests, "ANONYMOUS", Policy(name="anonymous", per_minute=1, burst=3))
    answers = []
    for _request in range(4):
        stores.local.cache_clear()
        answers.append(build.client().get(CATALOG))

    assert [answer.status_code for answer in answers] == [200] * 3 + [429]
    assert 30 < int(answers[3]["Retry-After"]) <= 60


def test_without_valkey_the_api_goes_on_by_the_local_bucket(valkey_stopped, lab, monkeypatch):
    monkeypatch.setattr(requests, "ANONYMOUS", Policy(name="anonymous", per_minute=1, burst=10))
    counted = stores.UNSHARED.labels(store="local")._value
    before = counted.get()
    client = build.client()

    answers = [client.get(CATALOG) for _request in range(11)]

    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert [left(answer)[1] for answer in answers[:10]] == list(range(9, -1, -1))
    assert counted.get() == before + 11, "the metrics say so"
    assert build.client(build.api_key(lab)).get("/orgs/lab").status_code == 200


def test_a_dead_valkey_is_left_alone_for_a_while(limited, monkeypatch):
    monkeypatch.setattr(stores, "AWAY_SECONDS", 3600.0)
    store, asked = stores.shared(), []

    def hang(**_script):
        asked.append(1)
        raise TimeoutError

    monkeypatch.setattr(store, "_script", hang)
    client = build.client()
    for _request in range(5):
        assert client.get(CATALOG).status_code == 200
    assert len(asked) == 1

    monkeypatch.setattr(store, "_away_until", 0.0)
    client.get(CATALOG)
    assert len(asked) == 2


def test_turned_off_nothing_is_counted(settings):
    settings.RATE_LIMITS_ENABLED = False

    answers = [build.client().get(CATALOG) for _request in range(15)]

    assert {answer.status_code for answer in answers} == {200}
    assert "X-RateLimit-Limit" not in answers[0]
