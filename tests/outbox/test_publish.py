"""The outbox has an event exactly if the change that it reports was committed."""

from __future__ import annotations

import pytest

from apps.core import correlation
from apps.outbox import services as outbox
from apps.outbox.models import OutboxEvent
from tests import build

pytestmark = pytest.mark.django_db


def test_an_event_names_its_organization_and_its_request():
    organization = build.organization()
    correlation.bind("request-1")

    outbox.publish("tests.tested", {"id": organization.id, "at": build.NOW}, organization_id=organization.id)

    event = OutboxEvent.objects.get(event_type="tests.tested")
    assert event.payload == {"id": str(organization.id), "at": "2026-05-15T12:00:00Z"}
    assert (event.organization_id, event.correlation_id) == (organization.id, "request-1")
