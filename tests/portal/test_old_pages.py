"""A page that was opened before somebody else changed what it shows: sending it changes only what was changed on it."""

from __future__ import annotations

import re
from html import unescape

import pytest

from apps.core.permissions import Role
from apps.credentials.models import ApiKey
from apps.organizations import services as organizations
from apps.organizations.models import Membership
from tests import build

FIELD = re.compile(r'<input[^>]* name="(?P<name>[^"]+)"(?:[^>]* value="(?P<value>[^"]*)")?[^>]*>')


@pytest.fixture
def lab(db):
    return build.organization("lab", name="Bright Lab")


@pytest.fixture
def client(lab):
    return build.browser(build.member(lab, Role.OWNER))


def shown(page, **fields):
    """Return what a browser sends of a page's main form with these fields filled in."""
    known = {found["name"]: unescape(found["value"] or "") for found in FIELD.finditer(page)}
    initial = {name: value for name, value in known.items() if name.startswith("initial-")}
    assert initial, "the page says how things were"
    return initial | fields


def organization(lab):
    return lab


def project(lab):
    return build.project(lab, "training", name="Training")


def member(lab):
    return Membership.objects.get(user=build.member(lab, Role.VIEWER))


def key(lab):
    build.api_key(lab)
    return ApiKey.objects.get()


def budget(lab):
    return build.budget(lab, "50")


def profile(lab):
    return organizations.change_billing_profile(
        actor=build.actor(lab), organization=lab, legal_name="Bright Lab", now=build.NOW
    )


@pytest.mark.parametrize(
    ("make", "path", "first", "second", "told", "expected"),
    [
        (
            organization,
            "settings",
            {"name": "Brighter", "slug": "lab", "timezone": "UTC"},
            {"name": "Bright Lab", "slug": "lab", "timezone": "UTC", "billing_email": "b@example.com"},
            lambda row: (row.name, row.billing_email),
            ("Brighter", "b@example.com"),
        ),
        (
            project,
            "projects/{0.pk}",
            {"name": "Training", "archived": "on"},
            {"name": "Training runs"},
            lambda row: (row.name, row.archived_at is not None),
            ("Training runs", True),
        ),
        (
            member,
            "members/{0.pk}",
            {"role": "viewer", "suspended": "on"},
            {"role": "developer"},
            lambda row: (row.role, row.suspended_at is not None),
            ("developer", True),
        ),
        (
            key,
            "keys/{0.pk}",
            {"name": "tests"},
            {"name": "new", "is_active": "on"},
            lambda row: (row.name, row.is_active),
            ("new", False),
        ),
        (
            budget,
            "budgets/{0.pk}",
            {"name": "Budget", "amount": "50", "thresholds": "50, 80, 100", "blocks": "on"},
            {"name": "Budget", "amount": "70", "thresholds": "50, 80, 100"},
            lambda row: (row.amount_micros, row.action),
            (70_000_000, "block_new"),
        ),
        (
            profile,
            "settings/billing",
            {"legal_name": "Brighter Lab"},
            {"legal_name": "Bright Lab", "po_number": "PO 7"},
            lambda row: (row.legal_name, row.po_number),
            ("Brighter Lab", "PO 7"),
        ),
    ],
)
def test_an_old_page_takes_back_nothing(client, lab, make, path, first, second, told, expected):
    row = make(lab)
    address = f"/app/lab/{path.format(row)}"
    old = client.get(address).text

    for sent in (first, second):
        answer = client.post(address, shown(old, **sent))
        assert answer.status_code == 302, answer.text

    row.refresh_from_db()
    assert told(row) == expected
