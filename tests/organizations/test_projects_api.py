"""Projects over REST."""

from __future__ import annotations

import pytest

from apps.audit.models import AuditEvent
from apps.organizations.models import Project
from tests import build

pytestmark = pytest.mark.django_db
PROJECTS = "/api/v1/orgs/lab/projects"


@pytest.fixture
def lab():
    return build.organization("lab")


@pytest.fixture
def client(lab):
    return build.client(build.api_key(lab, ["projects.read", "projects.manage"]))


def test_a_project_is_made_renamed_archived_and_brought_back(client):
    made = client.post(PROJECTS, {"slug": "training"}).json()
    path = f"{PROJECTS}/{made['id']}"

    assert {name: made[name] for name in ("slug", "name", "archived")} == {
        "slug": "training",
        "name": "training",
        "archived": False,
    }
    archived = client.patch(path, {"name": "Old training", "archived": True}).json()
    assert (archived["name"], archived["archived"]) == ("Old training", True)
    assert client.get(PROJECTS, {"archived": "false"}).json()["data"] == []
    assert client.get(PROJECTS, {"archived": "true"}).json()["data"] == [archived]
    assert client.patch(path, {"archived": False}).json()["archived"] is False
    assert client.get(path).json()["name"] == "Old training"
    assert [
        row.diff for row in AuditEvent.objects.filter(action="project.changed").order_by("occurred_at")
    ] == [
        {"name": ["training", "Old training"], "archived": [False, True]},
        {"archived": [True, False]},
    ]


def test_a_slug_is_taken_once_and_has_its_form(client):
    client.post(PROJECTS, {"slug": "training"})

    assert client.post(PROJECTS, {"slug": "training"}).json()["code"] == "slug_taken"
    assert client.post(PROJECTS, {"slug": "A b"}).status_code == 422
    assert Project.objects.count() == 1


def test_a_name_is_enough_and_two_of_one_name_differ_by_slug(client):
    made = [
        client.post(PROJECTS, {"name": name}).json() for name in ("Big Training", "Big  training!", "訓練")
    ]

    assert [(one["slug"], one["name"]) for one in made] == [
        ("big-training", "Big Training"),
        ("big-training-2", "Big  training!"),
        ("project", "訓練"),
    ]
    refused = client.post(PROJECTS, {})
    assert (refused.status_code, refused.json()["details"]["fields"][0]["path"]) == (422, "name")


def test_projects_of_others_look_like_none(client):
    foreign = build.project(build.organization("other"))

    assert client.get(f"{PROJECTS}/{foreign.id}").status_code == 404
    assert client.patch(f"{PROJECTS}/{foreign.id}", {"name": "mine"}).status_code == 404
    assert client.get(PROJECTS).json()["data"] == []
