"""The audit page: what was done, narrowed, in words, and as a file."""

from __future__ import annotations

import csv
import html
import re
from datetime import timedelta
from io import StringIO

import pytest
from django.db.models import Max, Min
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.permissions import Role
from apps.organizations import services as organizations
from tests import build


@pytest.fixture
def lab(db):
    return build.organization("lab", name="Bright Lab")


@pytest.fixture
def client(lab):
    return build.browser(build.member(lab, Role.OWNER, user=build.user("ada@example.com")))


def rows(page):
    body = page.text.split("<tbody>")[1].split("</tbody>")[0] if "<tbody>" in page.text else ""
    return [
        re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", row))) for row in body.split("</tr>")[:-1]
    ]


def test_it_says_who_did_what_and_what_was_before(client):
    client.post(
        "/app/lab/settings", {"name": "Brighter", "slug": "lab", "billing_email": "", "timezone": "UTC"}
    )

    newest = rows(client.get("/app/lab/audit"))[0]

    assert "ada@example.com" in newest
    assert "User · 127.0.0.1" in newest
    assert "organization.changed" in newest
    assert "name Bright Lab → Brighter" in newest


def test_a_list_of_two_facts_is_no_change(client, lab):
    build.api_key(lab, ["usage.read", "billing.read"])

    (made,) = rows(client.get("/app/lab/audit?what=api_key"))

    assert "scopes billing.read, usage.read" in made


def test_it_is_narrowed_by_who_what_and_when(client, lab):
    build.project(lab, "training")
    client.post("/app/lab/projects", {"slug": "inference", "name": "Inference"})
    made = AuditEvent.objects.filter(action="project.created").aggregate(
        first=Min("occurred_at"), last=Max("occurred_at")
    )
    first, last = (timezone.localdate(made[end]) for end in ("first", "last"))

    def found(query):
        return len(rows(client.get(f"/app/lab/audit?{query}")))

    assert found("what=project.created") == 2
    assert found("what=project.created&who=ADA") == 1
    assert found(f"what=project.created&first={first}&last={last}") == 2
    assert found(f"last={first - timedelta(days=1)}") == 0
    wrong = client.get("/app/lab/audit?first=soon")
    assert wrong.status_code == 422
    assert "Write year, month and day, such as 2026-11-30." in wrong.text


def test_older_rows_are_a_page_away_and_keep_the_filter(client, lab):
    for number in range(51):
        build.project(lab, f"p-{number}")

    first = client.get("/app/lab/audit?what=project")
    older = re.search(r'href="(\?[^"]+)" rel="next"', first.text)[1]
    second = client.get(f"/app/lab/audit{html.unescape(older)}")

    assert len(rows(first)) == 50
    assert len(rows(second)) == 1
    assert "p-0" in rows(second)[0]
    assert 'href="?what=project"' in second.text


def test_the_file_has_what_the_filter_leaves_and_no_formulas(client, lab):
    organizations.create_project(
        actor=build.actor(lab), organization=lab, slug="x", name="=cmd()", now=timezone.now()
    )
    build.project(build.organization("other"), "foreign")

    answer = client.get("/app/lab/audit?what=project&format=csv")
    (row,) = csv.DictReader(StringIO(answer.getvalue().decode()))

    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert row["action"] == "project.created"
    assert not any(cell.startswith("=") for cell in row.values())


def test_whoever_may_not_read_it_does_not_see_it(lab):
    viewer = build.browser(build.member(lab, Role.VIEWER))

    assert viewer.get("/app/lab/audit").status_code == 403
    assert "/app/lab/audit" not in viewer.get("/app/lab").text
