"""The page of quotas: limits beside what is used, and asking for more."""

from __future__ import annotations

import re

import pytest

from apps.core.permissions import Role
from apps.quotas import services as quotas
from apps.quotas.models import QuotaRequest, RequestState
from tests import build
from tests.build import NOW

PAGE = "/app/lab/quotas"


def text_of(answer):
    """Return what is to read on a page, each run of space as one."""
    return " ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split())


@pytest.fixture
def client(lab):
    return build.browser(build.member(lab, Role.DEVELOPER))


def test_limits_stand_beside_what_is_used(lab, client):
    build.limit(lab, "members", 1)
    build.limit(lab, "projects", None)

    answer = client.get(PAGE)

    shown = text_of(answer)
    assert "on the plan Free" in shown
    assert re.search(r"Members limit reached your own 1 1 .*? your own", shown)
    assert "Projects your own 0 none your own" in shown
    assert "GPU-hours a month 0.00 10" in shown
    assert "projects" not in [value for value, _label in answer.context["form"].fields["quota"].choices]


def test_more_is_asked_for_and_taken_back(lab, client, sold):
    body = {
        "quota": "concurrent_gpus",
        "family": "h100",
        "region": "eu",
        "requested": "64",
        "reason": "Training",
    }

    answer = client.post(PAGE, body, follow=True)

    assert "Asked for 64: GPUs at once (h100, eu)." in text_of(answer)
    assert "GPUs at once (h100, eu) Training 64 – waits for staff" in text_of(answer)
    request = QuotaRequest.objects.get()
    again = client.post(PAGE, body)
    assert again.status_code == 422
    assert "This is asked for already." in text_of(again)
    withdraw = f"{PAGE}/requests/{request.pk}/withdraw"
    assert "The request is withdrawn." in text_of(client.post(withdraw, follow=True))
    request.refresh_from_db()
    assert request.state == RequestState.WITHDRAWN
    assert "This request has been decided already." in text_of(client.post(withdraw, follow=True))


def test_what_is_wrong_stands_beside_its_field(lab, client, sold):
    answer = client.post(
        PAGE, {"quota": "members", "family": "h100", "region": "*", "requested": "64", "reason": "x"}
    )

    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == ["quota"]
    assert not QuotaRequest.objects.exists()


def test_a_decision_is_shown_with_its_message(lab, client):
    client.post(
        PAGE, {"quota": "members", "family": "*", "region": "*", "requested": "25", "reason": "Growth"}
    )
    quotas.deny_request(
        actor=build.actor(), request=QuotaRequest.objects.get(), message="Pay first <b>please</b>.", now=NOW
    )

    answer = client.get(PAGE)

    assert "Members Pay first &lt;b&gt;please&lt;/b&gt;. 25 – not approved" in text_of(answer)


def test_who_only_reads_sees_no_form(lab):
    viewer = build.browser(build.member(lab, Role.VIEWER))

    assert "Ask for more" not in text_of(viewer.get(PAGE))
    assert viewer.post(PAGE, {}).status_code == 403
