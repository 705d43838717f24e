"""What a stranger may not learn: whether an address has an account. Sign-up and resets stand beside their flows."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth import hashers
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.core.permissions import Role
from tests import build

PASSWORD = "correct horse battery"
KNOWN = ("known@example.com", "unproved@example.com", "off@example.com", "guarded@example.com")
UNKNOWN = "unknown@example.com"


@pytest.fixture
def people(db):
    build.user(KNOWN[0], password=PASSWORD)
    build.user(KNOWN[1], password=PASSWORD, verified=False)
    off = build.user(KNOWN[2], password=PASSWORD)
    off.is_active = False
    off.save()
    build.user(KNOWN[3], password=PASSWORD)


@pytest.fixture
def hashes(monkeypatch):
    """Count the password hashes that are made."""
    made = []
    original = hashers.MD5PasswordHasher.encode
    monkeypatch.setattr(
        hashers.MD5PasswordHasher, "encode", lambda *given: (made.append(1), original(*given))[1]
    )
    return made


def without_tokens(text: str, email: str) -> str:
    """Return a page without what is different each time anyway, and without what its visitor typed."""
    text = re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", text)
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "", text).replace(email, "")


def test_the_login_page_answers_wrong_passwords_alike(people, hashes):
    seen = set()
    for email in (*KNOWN, UNKNOWN):
        cache.clear()
        browser = Client()
        hashes.clear()
        with CaptureQueriesContext(connection) as queries:
            answer = browser.post("/accounts/login/", {"login": email, "password": "wrong"})
        seen.add((answer.status_code, without_tokens(answer.text, email), len(queries), len(hashes)))

    assert len(seen) == 1, [row[2:] for row in seen]
    status, page, _queries, hashed = seen.pop()
    assert (status, hashed) == (200, 1)
    assert "not correct" in page


def test_an_invite_tells_its_sender_nothing_about_the_address(people):
    lab = build.organization("lab")
    owner = build.person_client(build.member(lab, Role.OWNER))
    seen = set()
    for email in (*KNOWN, UNKNOWN):
        with CaptureQueriesContext(connection) as queries:
            answer = owner.post("/orgs/lab/invites", {"email": email, "role": "viewer"})
        body = {**answer.json(), "email": "", "id": "", "created_at": "", "expires_at": ""}
        seen.add((answer.status_code, str(body), len(queries)))

    assert len(seen) == 1, seen
    assert seen.pop()[0] == 201
