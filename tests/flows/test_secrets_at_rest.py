"""From sign-up to a colleague's invite and a new password: no table, session or log keeps what opens a door."""

from __future__ import annotations

import base64
import re
import zlib

from django.contrib.sessions.models import Session
from django.core import mail
from django.db import connection
from django.test import Client
from django.utils import timezone

from apps.core.ids import uuid7
from apps.organizations.models import Organization
from tests import build
from tests.identity.codes import code_at

PASSWORD = "correct horse battery"
NEW_PASSWORD = "another horse battery"
ADA = "ada@example.com"


def everything_stored() -> str:
    """Return every row of every table as text, as a stolen dump would have it, and what sessions say undone."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        dump = []
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT string_agg(t::text, E'\\n') FROM \"{table}\" AS t")
            dump.append(f"{table}\n{cursor.fetchone()[0]}")
    return "\n".join([*dump, *map(unpacked, Session.objects.values_list("session_data", flat=True))])


def unpacked(session: str) -> str:
    """Return what anybody can read of a session's row: it is signed, packed and in Base64."""
    packed = session.split(":", maxsplit=1)[0]
    text = packed.removeprefix(".")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return (zlib.decompress(data) if packed.startswith(".") else data).decode()


def link(part: str) -> str:
    """Return the path of the newest mailed link with this part."""
    found = [re.search(rf"https?://[^/\s]+(/\S*{part}\S+)", message.body) for message in mail.outbox]
    return [match for match in found if match][-1][1]


def token_in(path: str) -> str:
    return path.strip("/").rpartition("/")[2]


def test_nothing_keeps_what_opens_a_door(transactional_db, run_jobs, caplog):
    browser, stranger = Client(), Client()
    dumps = []

    browser.post("/accounts/signup/", {"email": ADA, "password1": PASSWORD, "name": "Ada"})
    run_jobs()
    sign_up = link("/confirm/")
    assert browser.post(sign_up, follow=True).status_code == 200
    lab = Organization.objects.get()

    secret = browser.get("/accounts/2fa/totp/activate/").context["form"].secret
    dumps.append(everything_stored())
    form = {"code": code_at(secret, timezone.now())}
    enrolled = browser.post("/accounts/2fa/totp/activate/", form, follow=True)
    recovery = enrolled.context["unused_codes"]
    assert len(recovery) == 10

    fields = {"name": "ci", "scopes": ["organization.read"], "days": "90", "attempt": uuid7()}
    key = browser.post(f"/app/{lab.slug}/keys/new", fields).context["secret"]
    assert build.client(key).get(f"/orgs/{lab.slug}").status_code == 200

    body = {"email": ADA, "password": PASSWORD, "otp": recovery[0]}
    first = build.client().post("/auth/login", body).json()
    second = build.client().post("/auth/refresh", {"refresh_token": first["refresh_token"]}).json()
    rest = build.client(second["access_token"])

    invited = rest.post(f"/orgs/{lab.slug}/invites", {"email": "friend@example.com", "role": "viewer"})
    assert invited.status_code == 201
    run_jobs()
    invite = link("/invites/")
    assert stranger.get(invite).status_code == 200

    Client().post("/accounts/password/reset/", {"email": ADA})
    run_jobs()
    reset = link("/key/")
    asked = stranger.get(reset, follow=True)
    dumps.append(everything_stored())
    passwords = {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    stranger.post(asked.redirect_chain[-1][0], passwords, follow=True)
    assert build.client(second["access_token"]).get("/api/v1/me").status_code == 401
    dumps.append(everything_stored())

    for path in (sign_up, invite, reset):
        build.client(key).get(path)
    secrets = [
        PASSWORD,
        NEW_PASSWORD,
        secret,
        *recovery,
        key,
        key.rpartition("_")[2],
        *(pair[name] for pair in (first, second) for name in ("access_token", "refresh_token")),
        *map(token_in, (sign_up, invite, reset)),
        token_in(reset).partition("-")[2],
    ]
    assert all(len(one) >= 8 for one in secrets)
    assert "/accounts/confirm/…" in caplog.text
    for text in (*dumps, caplog.text):
        assert ADA in dumps[-1]
        for one in secrets:
            assert one not in text, one[:6]
            assert one.encode().hex() not in text, f"{one[:6]}, as bytes"
