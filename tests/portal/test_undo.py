"""What a page changed, its message takes back: everything that was changed, by the same door."""

from __future__ import annotations

import re
from html import unescape

import pytest

from apps.core.permissions import Role
from apps.credentials.models import ApiKey
from apps.organizations.models import BillingProfile, Membership, Organization, Project
from tests import build

FORM = re.compile(r'<form method="post" action="([^"]+)">(?:(?!</form>).)*>Undo</button>', re.DOTALL)
FIELD = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')


@pytest.fixture
def lab(db):
    return build.organization("lab", name="Bright Lab", billing_email="money@lab.example")


@pytest.fixture
def owner(lab):
    return build.browser(build.member(lab, Role.OWNER, user=build.user("olga@example.com", name="Olga")))


def undo(client, page):
    """Press Undo on a page and return where that leads."""
    offered = FORM.search(page.text)
    assert offered, "the page offers no Undo"
    fields = {unescape(name): unescape(value) for name, value in FIELD.findall(offered[0])}
    answer = client.post(unescape(offered[1]), fields, follow=True)
    assert answer.status_code == 200
    return answer


def project(lab):
    row = build.project(lab, "training", name="Training")
    return f"/app/lab/projects/{row.pk}", {"name": "Runs", "archived": "on"}, Project


def key(lab):
    build.api_key(lab, ["usage.read"], name="cluster", actor=build.actor(lab))
    return f"/app/lab/keys/{ApiKey.objects.get().pk}", {"name": "old cluster"}, ApiKey


def member(lab):
    person = build.member(lab, Role.ADMIN, user=build.user("dora@example.com", name="Dora"))
    path = f"/app/lab/members/{Membership.objects.get(user=person).pk}"
    return path, {"role": "viewer", "until": "2031-05-01", "suspended": "on"}, Membership


def settings_of(lab):
    sent = {"name": "Dim Lab", "slug": "lab", "billing_email": "", "timezone": "UTC"}
    return "/app/lab/settings", sent, Organization


def billing(lab):
    build.billing_profile(
        lab, legal_name="Bright Lab B.V.", billing_emails=["a@lab.example", "b@lab.example"]
    )
    return (
        "/app/lab/settings/billing",
        {"legal_name": "Other", "billing_emails": "c@lab.example"},
        BillingProfile,
    )


def rows(model):
    return list(model.objects.order_by("pk").values())


@pytest.mark.parametrize("changed", [project, key, member, settings_of, billing])
def test_a_change_is_taken_back_whole(lab, owner, changed):
    path, sent, model = changed(lab)
    before = rows(model)

    done = owner.post(path, sent, follow=True)
    assert rows(model) != before
    undo(owner, done)

    # What only says when somebody last wrote is no part of what was changed.
    told = {"updated_at", "checked_at"}
    for row, was in zip(rows(model), before, strict=True):
        assert {name: row[name] for name in row if name not in told} == {
            name: was[name] for name in was if name not in told
        }


def test_a_requirement_is_taken_back_but_no_slug_that_was_given_up(lab, owner):
    required = owner.post("/app/lab/settings/second-factor", {"require": "yes"}, follow=True)
    undo(owner, required)
    assert not Organization.objects.get().require_mfa

    moved = owner.post(
        "/app/lab/settings",
        {"name": "Bright Lab", "slug": "brighter", "billing_email": "", "timezone": "UTC"},
        follow=True,
    )
    assert "The settings are saved." in moved.text
    assert not FORM.search(moved.text)


def test_nothing_changed_offers_nothing_to_undo(lab, owner):
    path, _sent, _model = project(lab)

    assert not FORM.search(owner.post(path, {"name": "Training"}, follow=True).text)
