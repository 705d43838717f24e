"""GET /metrics: who may read it, and that its numbers are those of the database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from prometheus_client import REGISTRY

from apps.metering import selectors
from apps.metering.models import MeteringState
from apps.organizations.models import Organization
from tests import build
from tests.metering.events import heartbeat, send, started, tick


def scraped(client) -> dict[str, float]:
    response = client.get("/metrics")
    assert response.status_code == 200, response.content
    assert response["Content-Type"].startswith("text/plain")
    lines = [line for line in response.content.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.split() for line in lines)}


@pytest.fixture
def prometheus(db):
    return build.client(build.integration(["metrics:read"]))


def test_it_needs_its_scope_unless_it_is_public(db, settings):
    anonymous = build.client().get("/metrics")
    assert (anonymous.status_code, anonymous.json()["code"]) == (401, "token_missing")
    unscoped = build.client(build.integration(["usage:write"])).get("/metrics")
    assert (unscoped.status_code, unscoped.json()["code"]) == (403, "insufficient_permissions")

    settings.METRICS_PUBLIC = True
    assert scraped(build.client())["countinghouse_metering_backlog"] == 0


def test_it_tells_lag_and_backlogs(lab, prometheus):
    now = timezone.now().replace(microsecond=0)
    hour_ago = now - timedelta(hours=1)
    send(started("a", hour_ago), heartbeat("a", hour_ago), started("b", hour_ago), now=now)

    waiting = scraped(prometheus)
    assert waiting["countinghouse_metering_backlog"] == 2  # A batch notes a resource once.
    assert waiting["countinghouse_metering_lag_seconds"] == 0
    tick(lab.pk, now - timedelta(minutes=10))

    counted = scraped(prometheus)
    assert counted["countinghouse_metering_backlog"] == 0
    assert counted["countinghouse_charging_backlog"] >= 1
    assert 600 <= counted["countinghouse_metering_lag_seconds"] < 700
    assert counted["countinghouse_usage_events_stored"] >= 0


def test_a_deleted_organization_does_not_lag(lab):
    MeteringState.objects.create(organization=lab, metered_until=timezone.now() - timedelta(days=3))
    assert selectors.health(timezone.now()).lag_seconds > 250_000

    Organization.objects.update(status="deleted")
    assert selectors.health(timezone.now()).lag_seconds == 0


def test_every_event_is_told_by_its_outcome(lab):
    def told() -> dict[str, float]:
        names = ("accepted", "duplicate", "invalid_event", "conflict")
        return {
            name: REGISTRY.get_sample_value("countinghouse_usage_events_total", {"outcome": name}) or 0
            for name in names
        }

    before = told()
    now = timezone.now().replace(microsecond=0)
    first = started("a", now)
    send(first, started("b", now), now=now)
    send(first, first | {"subject": "c"}, started("d", now, gpus=-1), now=now)

    assert {name: count - before[name] for name, count in told().items()} == {
        "accepted": 2,
        "duplicate": 1,
        "conflict": 1,
        "invalid_event": 1,
    }
