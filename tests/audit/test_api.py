"""The audit log over REST: filters, pages, and files that a spreadsheet may open."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import time_machine

from apps.audit import exports
from apps.audit import services as audit
from apps.audit.models import AuditEvent
from apps.core.actor import Actor, ActorKind
from apps.core.permissions import Permission, Role
from tests import build

pytestmark = pytest.mark.django_db
EVENTS = "/api/v1/orgs/lab/audit-events"
NOON = datetime(2026, 5, 15, 12, tzinfo=UTC)


@pytest.fixture
def lab():
    return build.organization("lab", now=NOON)


@pytest.fixture
def client(lab):
    return build.client(build.api_key(lab, [Permission.AUDIT_READ]))


def write(lab, action="thing.done", *, at=NOON, label="ada@example.com", **fields):
    actor = Actor(
        kind=fields.pop("kind", ActorKind.USER),
        id=fields.pop("actor_id", None),
        label=label,
        credential_id=fields.pop("credential_id", None),
        address="192.0.2.7",
    )
    with time_machine.travel(at, tick=False):
        audit.record(actor=actor, action=action, organization_id=lab.id, **fields)


def actions(answer):
    assert answer.status_code == 200, answer.content
    return [row["action"] for row in answer.json()["data"]]


def test_a_row_says_everything(lab, client):
    project = build.project(lab, "training")
    write(
        lab,
        "project.moved",
        target=project,
        diff={"name": ["a", "b"]},
        reason="asked",
        at=NOON + timedelta(1),
    )

    row = client.get(EVENTS, {"action": "project.moved"}).json()["data"][0]

    assert row == {
        "id": str(AuditEvent.objects.get(action="project.moved").id),
        "occurred_at": "2026-05-16T12:00:00Z",
        "action": "project.moved",
        "actor": {"kind": "user", "id": None, "label": "ada@example.com"},
        "on_behalf_of": "",
        "credential_id": None,
        "address": "192.0.2.7",
        "target": {"type": "organizations.project", "id": str(project.id), "label": "training"},
        "diff": {"name": ["a", "b"]},
        "reason": "asked",
        "correlation_id": row["correlation_id"],
    }


def test_each_filter_narrows(lab, client):
    person, key = uuid4(), uuid4()
    project = build.project(lab, "training")
    write(lab, "a.first", actor_id=person, at=NOON)
    write(lab, "a.second", label="bob@example.com", at=NOON + timedelta(hours=1))
    write(lab, "b.third", credential_id=key, kind=ActorKind.API_KEY, at=NOON + timedelta(hours=2))
    write(lab, "c.fourth", target=project, at=NOON + timedelta(hours=3))

    def found(**parameters):
        wanted = {"a.first", "a.second", "b.third", "c.fourth"}
        return [action for action in actions(client.get(EVENTS, parameters)) if action in wanted]

    assert found() == ["c.fourth", "b.third", "a.second", "a.first"]
    assert found(actor=person) == ["a.first"]
    assert found(actor="BOB@example.com") == ["a.second"]
    assert found(actor_kind="api_key") == ["b.third"]
    assert found(action="a.second") == ["a.second"]
    assert found(action="a") == ["a.second", "a.first"]
    assert found(target=project.id, target_type="organizations.project", action="c.fourth") == ["c.fourth"]
    assert found(credential=key) == ["b.third"]
    assert found(**{"from": "2026-05-15T13:00:00Z", "to": "2026-05-15T14:00:00Z"}) == ["a.second"]
    assert found(created_from="2026-05-15T13:00:00Z", created_to="2026-05-15T14:00:00Z") == ["a.second"]
    assert found(sort="occurred_at", action="a") == ["a.first", "a.second"]


def test_what_no_filter_knows_is_refused(client):
    assert client.get(EVENTS, {"acter": "x"}).status_code == 400
    assert client.get(EVENTS, {"credential": "x"}).status_code == 400
    assert client.get(EVENTS, {"offset": "0"}).status_code == 400, "only the compatible path has it"


def test_another_organizations_events_are_not_here(lab, client):
    other = build.organization("other")
    write(other, "their.secret")

    assert "their.secret" not in actions(client.get(EVENTS))
    assert client.get("/api/v1/orgs/other/audit-events").status_code == 404
    assert client.get("/api/v1/orgs/other/audit-events/export", {"format": "csv"}).status_code == 404
    assert "their.secret" not in client.get(f"{EVENTS}/export", {"format": "jsonl"}).getvalue().decode()


def test_viewers_and_developers_may_not_read_it(lab):
    for role, status in ((Role.VIEWER, 403), (Role.DEVELOPER, 403), (Role.BILLING, 200), (Role.ADMIN, 200)):
        assert build.person_client(build.member(lab, role)).get(EVENTS).status_code == status


def test_a_page_costs_the_same_however_many_rows(lab, client, django_assert_num_queries):
    for number in range(20):
        write(lab, f"thing.{number}")
    client.get(EVENTS)

    with django_assert_num_queries(2):  # Key with its organization, rows.
        assert len(actions(client.get(EVENTS, {"limit": 10}))) == 10


def test_the_compatible_path_pages_by_offset_and_goes_on_by_cursor(lab, client):
    for number in range(5):
        write(lab, f"t.{number}", at=NOON + timedelta(minutes=number))
    path, narrowed = "/api/v1/audit/events", {"action": "t", "limit": 2}

    second = client.get(path, {**narrowed, "offset": 2}).json()
    last = client.get(path, {**narrowed, "cursor": second["next_cursor"]}).json()

    assert [row["action"] for row in second["data"]] == ["t.2", "t.1"]
    assert second["has_more"] is True
    assert [row["action"] for row in last["data"]] == ["t.0"]
    assert (last["has_more"], last["next_cursor"]) == (False, None)
    assert client.get(path, {"offset": "-1"}).status_code == 400
    assert client.get(path, {"offset": "10001"}).status_code == 400
    assert client.get(path, {"offset": 1, "cursor": second["next_cursor"]}).status_code == 400


def test_the_csv_has_every_column_and_no_formula(lab, client):
    write(lab, "t.one", label='=HYPERLINK("https://evil.example")', reason="+1", diff={"a": ["-1", "@x"]})

    answer = client.get(f"{EVENTS}/export", {"format": "csv", "action": "t"})
    header, row = csv.reader(io.StringIO(answer.getvalue().decode()))

    read = dict(zip(header, row, strict=True))
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"].startswith('attachment; filename="audit-lab-')
    assert answer["Cache-Control"] == "no-store"
    assert read["actor"] == '\'=HYPERLINK("https://evil.example")'
    assert read["reason"] == "'+1"
    assert json.loads(read["diff"]) == {"a": ["-1", "@x"]}
    assert read["occurred_at"] == "2026-05-15T12:00:00+00:00"


def test_the_lines_are_what_the_list_shows(lab, client):
    for number in range(3):
        write(lab, f"t.{number}", at=NOON + timedelta(minutes=number))

    answer = client.get(f"{EVENTS}/export", {"format": "jsonl", "action": "t"})

    lines = [json.loads(line) for line in answer.getvalue().splitlines()]
    assert answer["Content-Type"] == "application/jsonl"
    assert lines == client.get(EVENTS, {"action": "t", "sort": "occurred_at"}).json()["data"]


def test_a_long_log_is_read_in_chunks_even_where_moments_are_equal(lab, client, monkeypatch):
    monkeypatch.setattr(exports, "CHUNK", 2)
    for number in range(7):
        write(lab, f"t.{number}")

    answer = client.get(f"{EVENTS}/export", {"format": "jsonl", "action": "t"})

    assert answer.streaming
    assert [json.loads(line)["action"] for line in answer.streaming_content] == [f"t.{n}" for n in range(7)]


def test_an_unknown_format_is_refused(client):
    for parameters in ({}, {"format": "xml"}):
        answer = client.get(f"{EVENTS}/export", parameters)
        assert (answer.status_code, answer.json()["details"]["allowed"]) == (400, ["csv", "jsonl"])
