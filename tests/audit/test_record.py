"""An audit row says who, what, to what, from where and within which request; and stays."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from uuid import UUID

import pytest
from django.db import transaction

from apps.audit import services as audit
from apps.audit.models import AuditEvent
from apps.core import correlation
from apps.core.actor import Actor, ActorKind
from apps.outbox import services as outbox
from apps.outbox.models import OutboxEvent
from tests import build

pytestmark = pytest.mark.django_db
ID = UUID("0190c9a0-0000-7000-8000-000000000000")


def test_everything_about_the_actor_and_the_target_is_kept():
    organization = build.organization("lab")
    project = build.project(organization, "training")
    correlation.bind("request-1")
    actor = Actor(
        kind=ActorKind.STAFF,
        id=ID,
        label="ada@example.com",
        address="2001:db8::1",
        on_behalf_of="bob@example.com",
    )

    audit.record(
        actor=actor,
        action="project.archived",
        target=project,
        diff={"archived": [None, build.NOW], "quota": Decimal("1.50"), "ids": {ID}, "day": date(2026, 5, 1)},
        reason="asked by phone",
    )

    event = AuditEvent.objects.get(action="project.archived")
    assert event.organization_id == organization.id
    assert (event.actor_kind, event.actor_id, event.actor_label) == ("staff", ID, "ada@example.com")
    assert (event.address, event.on_behalf_of, event.reason) == (
        "2001:db8::1",
        "bob@example.com",
        "asked by phone",
    )
    assert (event.target_type, event.target_id, event.target_label) == (
        "organizations.project",
        str(project.id),
        "training",
    )
    assert event.correlation_id == "request-1"
    assert event.diff == {
        "archived": [None, "2026-05-15T12:00:00Z"],
        "quota": "1.50",
        "ids": [str(ID)],
        "day": "2026-05-01",
    }


def test_the_request_of_a_change_is_named_in_its_rows():
    secret = build.api_key(build.organization())

    answer = build.client(secret).get("/api/v1/me", headers={"X-Correlation-Id": "mine"})

    assert answer["X-Correlation-Id"] == "mine"
    assert not AuditEvent.objects.filter(correlation_id="mine").exists()  # Reading leaves no trace.


def test_rows_vanish_with_the_change_they_report():
    with transaction.atomic():
        audit.record(actor=build.actor(), action="tested")
        outbox.publish("tests.tested", {"id": ID})
        transaction.set_rollback(True)

    assert not AuditEvent.objects.filter(action="tested").exists()
    assert not OutboxEvent.objects.exists()


def test_long_labels_are_cut_and_nothing_else():
    audit.record(actor=Actor(kind=ActorKind.USER, id=ID, label="x" * 300), action="tested")

    assert AuditEvent.objects.get(action="tested").actor_label == "x" * 254
