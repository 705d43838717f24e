"""The audit log in the staff admin."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django_otp import DEVICE_ID_SESSION_KEY

from apps.audit import services as audit
from apps.core.actor import system_actor
from apps.identity import services as identity
from tests import build


@pytest.fixture
def staff(db, client):
    user, _secret = identity.create_staff(email="ada@example.com", password="x" * 12, now=datetime.now(UTC))
    client.force_login(user)
    session = client.session
    session[DEVICE_ID_SESSION_KEY] = identity.verifying_device(user).persistent_id
    session.save()
    return user


@pytest.mark.parametrize(
    ("narrowed", "shown"),
    [
        ({}, {"staff.thing", "lab.thing"}),
        ({"organization_id__isempty": "1"}, {"staff.thing"}),
        ({"sealed": "no"}, {"lab.thing"}),
        ({"sealed": "yes", "organization_id__isempty": "1"}, {"staff.thing"}),
        ({"action": "lab.thing"}, {"lab.thing"}),
        ({"q": "nobody"}, set()),
    ],
)
def test_the_list_narrows(staff, client, narrowed, shown):
    audit.record(actor=system_actor("tests"), action="staff.thing")
    audit.seal_waiting(now=build.NOW)
    audit.record(actor=system_actor("tests", build.organization("lab").id), action="lab.thing")

    page = client.get("/admin/audit/auditevent/", narrowed)

    assert page.status_code == 200
    actions = {event.action for event in page.context["cl"].result_list}
    assert actions & {"staff.thing", "lab.thing"} == shown
