"""The start page: everything on the developer's own machine, a door elsewhere."""

from __future__ import annotations

import json
import re
from base64 import b32decode

import pytest
import time_machine
from django.test import Client
from django_otp.oath import totp

from tests import build

LOOPBACK = {"host": "127.0.0.1:8000"}
SECRETS = {
    "staff": {"email": "staff@example.com", "password": "staff-password", "totp_secret": "JBSWY3DPEHPK3PXP"},
    "owner": {"email": "owner@example.com", "password": "owner-password"},
    "organization": {"id": "0197", "slug": "demo"},
    "api_key": "ch_live_api-secret",
    "integration_key": "ch_live_integration-secret",
}
HIDDEN = ("staff-password", "owner-password", "JBSWY3DPEHPK3PXP", "api-secret", "integration-secret")


@pytest.fixture
def development(settings, tmp_path):
    settings.DEBUG = True
    settings.VAR = tmp_path
    (tmp_path / "bootstrap.json").write_text(json.dumps(SECRETS))


def test_elsewhere_it_is_a_door(client, db):
    page = client.get("/").content.decode()

    assert 'href="/accounts/login/"' in page
    assert not any(secret in page for secret in HIDDEN)


def test_on_the_own_machine_it_says_what_runs_and_how_to_log_in(client, db, development):
    build.organization("aurora", name="Aurora Labs", is_demonstration=True)
    build.organization("customer", name="Real customer")

    page = client.get("/", headers=LOOPBACK).content.decode()

    assert "Countinghouse is running" in page
    assert "Aurora Labs" in page
    assert "Real customer" not in page
    assert "PostgreSQL" in page
    assert all(secret in page for secret in HIDDEN if secret != "JBSWY3DPEHPK3PXP")
    assert re.search(r"<details class=\"reveal\"><summary>", page), "secrets are folded away"
    assert "no-store" in client.get("/", headers=LOOPBACK)["Cache-Control"]


@pytest.mark.parametrize(
    ("address", "headers"),
    [
        ("203.0.113.9", LOOPBACK),
        ("127.0.0.1", {"host": "127.0.0.1:8000", "X-Forwarded-For": "203.0.113.9"}),
        ("127.0.0.1", {"host": "127.0.0.1:8000", "Forwarded": "for=203.0.113.9"}),
        ("127.0.0.1", {"host": "rebound.example"}),
    ],
)
def test_nobody_else_sees_the_secrets(client, db, development, settings, address, headers):
    settings.ALLOWED_HOSTS = ["*"]

    page = client.get("/", headers=headers, REMOTE_ADDR=address).content.decode()

    assert not any(secret in page for secret in HIDDEN)
    for path in ("/start/live", "/start/code"):
        assert client.get(path, headers=headers, REMOTE_ADDR=address).status_code == 404


def test_without_debug_not_even_the_own_machine_does(client, db, development, settings):
    settings.DEBUG = False
    settings.ALLOWED_HOSTS = ["*"]

    page = client.get("/", headers=LOOPBACK).content.decode()

    assert not any(secret in page for secret in HIDDEN)
    assert client.get("/start/code", headers=LOOPBACK).status_code == 404


def test_the_code_is_that_of_the_moment(client, db, development):
    with time_machine.travel(build.NOW, tick=False):
        shown = client.get("/start/code", headers=LOOPBACK).content.decode()

        assert shown.replace(" ", "") == f"{totp(b32decode('JBSWY3DPEHPK3PXP')):06d}"


def test_it_works_before_bootstrap_ran(client, db, development, settings, tmp_path):
    (tmp_path / "bootstrap.json").unlink()

    page = client.get("/", headers=LOOPBACK).content.decode()

    assert "No logins yet" in page
    assert client.get("/start/code", headers=LOOPBACK).status_code == 404


def test_the_live_part_stands_alone(client, db, development):
    build.organization("aurora", name="Aurora Labs", is_demonstration=True)

    part = client.get("/start/live", headers=LOOPBACK).content.decode()

    assert "Aurora Labs" in part
    assert "<html" not in part


def test_error_pages_speak_plainly(client, db):
    answer = client.get("/nothing-here")

    assert answer.status_code == 404
    assert "There is nothing here" in answer.content.decode()
    assert answer["X-Correlation-Id"] in answer.content.decode()


def test_a_form_that_has_expired_says_so(db):
    answer = Client(enforce_csrf_checks=True).post("/accounts/login/", {"login": "ada@example.com"})

    assert answer.status_code == 403
    assert "This form has expired" in answer.content.decode()
