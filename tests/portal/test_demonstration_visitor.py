"""The demonstration's organizations are open to the customer whom `bootstrap` made."""

from __future__ import annotations

import json

import pytest
from django.utils import timezone

from apps.core.permissions import Role
from apps.organizations.models import Membership
from apps.portal import demonstration
from tests import build


@pytest.fixture
def development(settings, tmp_path, db):
    settings.DEBUG = True
    settings.VAR = tmp_path
    return tmp_path / "bootstrap.json"


def test_the_customer_of_bootstrap_finds_the_simulated_ones_in_the_switcher(development):
    visitor = build.user("owner@example.com")
    development.write_text(json.dumps({"owner": {"email": visitor.email}}))

    for _each in range(2):
        made = demonstration.set_up(now=timezone.now())

    found = Membership.objects.filter(user=visitor)
    assert {row.organization.slug for row in found} == {organization.slug for organization in made}
    assert {row.role for row in found} == {Role.ADMIN}
    assert "Aurora Imaging" in build.browser(visitor).get("/app/aurora-imaging").text


def test_it_needs_no_bootstrap(development):
    made = demonstration.set_up(now=timezone.now())

    assert made
    assert not Membership.objects.exists()
