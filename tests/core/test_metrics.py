"""/metrics: refusals by reason, backlogs of mails and of the audit log, and counts of all processes in one answer."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.utils import timezone
from prometheus_client import REGISTRY

from apps.audit import services as audit
from apps.credentials.models import ApiKey
from apps.notifications import services as notifications
from apps.notifications.models import Mail, MailState
from apps.outbox import metrics as outbox_metrics
from apps.outbox import services as outbox
from apps.outbox.models import OutboxEvent
from tests import build

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"


def scraped():
    answer = build.client(build.integration(["metrics:read"])).get("/metrics")
    assert answer.status_code == 200
    lines = [line for line in answer.content.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def failed(who, reason):
    labels = {"who": who, "reason": reason}
    return REGISTRY.get_sample_value("countinghouse_failed_authentications_total", labels) or 0


class Counted:
    """Says how often one reason was counted inside the block."""

    def __init__(self, who, reason):
        self.labels = (who, reason)

    def __enter__(self):
        self.before = failed(*self.labels)
        return self

    def __exit__(self, *_error):
        self.times = failed(*self.labels) - self.before


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("expired", {"expires_at": timezone.now() - timedelta(days=1)}),
        ("revoked_or_inactive", {"is_active": False}),
        ("address_not_allowed", {"allowed_addresses": ["203.0.113.0/24"]}),
    ],
)
def test_each_reason_to_refuse_a_key_is_counted(reason, change):
    secret = build.api_key(build.organization("lab"))
    ApiKey.objects.update(**change)

    with Counted("machine", reason) as counted:
        assert build.client(secret).get("/orgs/lab").status_code in (401, 403)

    assert counted.times == 1


def test_what_is_no_key_of_ours_is_counted():
    with Counted("machine", "unknown") as unknown:
        build.client("ch_live_nonsense").get("/orgs/lab")
    with Counted("machine", "not_bearer") as not_bearer:
        build.client().get("/orgs/lab", headers={"Authorization": "Basic eDp5"})
    with Counted("machine", "in_the_address") as in_the_address:
        build.client().get("/orgs/lab?api_key=x")

    assert (unknown.times, not_bearer.times, in_the_address.times) == (1, 1, 1)


def test_each_reason_to_refuse_a_person_is_counted():
    ada = build.user("ada@example.com", password=PASSWORD)
    build.user("eve@example.com", password=PASSWORD, verified=False)

    def log_in(email, password):
        assert build.client().post("/auth/login", {"email": email, "password": password}).status_code == 401

    with Counted("person", "unknown_address") as unknown:
        log_in("nobody@example.com", PASSWORD)
    with Counted("person", "wrong_password") as wrong:
        log_in(ada.email, "wrong")
    with Counted("person", "wrong_password") as stepping_up:
        client = build.client(build.tokens(ada, PASSWORD).access_token)
        assert client.post("/auth/step-up", {"password": "wrong"}).status_code == 422
        build.browser(ada).post("/accounts/reauthenticate/", {"password": "wrong"})
    with Counted("person", "inactive_or_unverified") as unverified:
        log_in("eve@example.com", PASSWORD)
    with Counted("person", "wrong_login_on_page") as page:
        Client().post("/accounts/login/", {"login": ada.email, "password": "wrong"})
    with Counted("person", "access_token_invalid") as forged:
        build.client("a.b.c").get("/api/v1/me")
    with Counted("person", "unknown_refresh_token") as refresh:
        build.client().post("/auth/refresh", {"refresh_token": "x"})

    counts = (unknown, wrong, unverified, page, forged, refresh)
    assert [counted.times for counted in counts] == [1] * 6
    assert stepping_up.times == 2


def test_a_right_credential_counts_nothing():
    before = dict(failed_samples())
    build.client(build.api_key(build.organization("lab"))).get("/orgs/lab")

    assert dict(failed_samples()) == before


def failed_samples():
    for metric in REGISTRY.collect():
        if metric.name == "countinghouse_failed_authentications":
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    yield tuple(sorted(sample.labels.items())), sample.value


def test_the_counts_are_served():
    build.client("ch_live_nonsense").get("/orgs/lab")

    name = 'countinghouse_failed_authentications_total{reason="unknown",who="machine"}'
    assert scraped()[name] == failed("machine", "unknown")


def test_mails_that_wait_and_mails_given_up():
    now = timezone.now()
    for number, age in enumerate((3_600, 60, 10)):
        notifications.queue_mail(
            template="credentials/mail/token_reused",
            to=["ada@example.com"],
            context={},
            cause=f"tests:{number}",
            now=now - timedelta(seconds=age),
        )
    Mail.objects.filter(cause="tests:1").update(attempts=1)
    Mail.objects.filter(cause="tests:2").update(state=MailState.FAILED)

    found = scraped()

    assert found["countinghouse_mails_waiting"] == 2
    assert found["countinghouse_mails_retried"] == 1
    assert found["countinghouse_mails_given_up"] == 1
    assert 3_600 <= found["countinghouse_mails_oldest_waiting_seconds"] < 3_700


def test_audit_events_that_wait_to_be_sealed():
    secret = build.integration(["metrics:read"])

    def unsealed():
        answer = build.client(secret).get("/metrics").content.decode()
        return next(line for line in answer.splitlines() if line.startswith("countinghouse_audit_unsealed "))

    audit.seal_waiting(now=timezone.now())
    assert unsealed() == "countinghouse_audit_unsealed 0.0"
    audit.record(actor=build.actor(), action="thing.done")
    assert unsealed() == "countinghouse_audit_unsealed 1.0"


def test_the_outbox_tells_how_much_waits(monkeypatch):
    secret = build.integration(["metrics:read"])
    OutboxEvent.objects.all().delete()

    def told():
        answer = build.client(secret).get("/metrics").content.decode()
        lines = [line for line in answer.splitlines() if line.startswith("countinghouse_outbox_")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    assert set(told().values()) == {0}
    for _event in "123":
        outbox.publish("tests.happened", {})
    OutboxEvent.objects.filter(pk=OutboxEvent.objects.earliest("pk").pk).update(
        created_at=timezone.now() - timedelta(hours=2)
    )
    found = told()

    assert (found["countinghouse_outbox_waiting"], found["countinghouse_outbox_recent"]) == (3, 2)
    assert 7_200 <= found["countinghouse_outbox_oldest_seconds"] < 7_300
    monkeypatch.setattr(outbox_metrics, "COUNTED_MAX", 1)
    assert told()["countinghouse_outbox_waiting"] >= 2, "an estimate, but never less than was counted"


def test_one_process_tells_the_counts_of_all(tmp_path):
    program = (
        "import django; django.setup()\n"
        "from apps.core import metrics\n"
        "metrics.count_failed_authentication('machine', 'unknown')\n"
        "from prometheus_client import generate_latest\n"
        "print(generate_latest(metrics._kept_by_processes()).decode())\n"
    )
    environment = {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "COUNTINGHOUSE_VAR": str(django_settings.VAR),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "PATH": os.environ["PATH"],
    }

    def run():
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, env=environment, cwd=django_settings.ROOT, capture_output=True, text=True, check=True
        )
        line = next(line for line in done.stdout.splitlines() if 'reason="unknown"' in line)
        return float(line.rsplit(" ", 1)[1])

    assert [run(), run()] == [1, 2]


@pytest.mark.parametrize("prefix", ["", "/v1", "/api/v1"])
def test_detailed_health_tells_each_part_and_the_backlogs(prefix, monkeypatch):
    path = f"{prefix}/monitoring/health/detailed"
    prometheus = build.client(build.integration(["metrics:read"]))

    assert build.client().get(path).status_code == 401
    assert build.client(build.integration(["usage:write"])).get(path).status_code == 403
    answer = prometheus.get(path)
    assert answer.status_code == 200
    found = answer.json()
    assert found["status"] == "ok"
    assert {name: part["status"] for name, part in found["checks"].items()} == {
        "database": "ok",
        "broker": "ok",
        "valkey": "ok",
    }
    assert all(part["milliseconds"] >= 0 for part in found["checks"].values())
    assert found["figures"]["countinghouse_charging_backlog"] == "0"

    monkeypatch.setattr("apps.core.http.health._valkey_answers", lambda: False)
    assert (prometheus.get(path).status_code, prometheus.get(path).json()["status"]) == (200, "degraded")
    monkeypatch.setattr("apps.core.http.health._broker_answers", lambda: False)
    assert (prometheus.get(path).status_code, prometheus.get(path).json()["status"]) == (503, "down")


def test_detailed_health_is_for_everybody_where_metrics_are(settings):
    settings.METRICS_PUBLIC = True

    assert build.client().get("/v1/monitoring/health/detailed").status_code == 200
