"""`bootstrap` gives logins and keys that work, the same every time, and only in development."""

from __future__ import annotations

import json
import stat
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from apps.core.permissions import IntegrationScope, Permission
from apps.credentials import services
from apps.credentials.models import ApiKey, Integration
from apps.identity import services as identity
from apps.identity.models import User
from apps.organizations.models import Membership
from tests import build

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(settings, tmp_path):
    settings.DEBUG, settings.VAR = True, tmp_path

    def bootstrap():
        out = StringIO()
        call_command("bootstrap", "--json", stdout=out)
        return json.loads(out.getvalue())

    return bootstrap


def test_everything_it_prints_works(run, tmp_path):
    found = run()

    assert set(found) == {"staff", "owner", "organization", "api_key", "integration_key"}
    assert set(found["staff"]) == {"email", "password", "totp_secret"}
    assert set(found["owner"]) == {"email", "password"}
    assert found["organization"]["slug"] == "demo"
    assert identity.credentials_work(**found["owner"])
    assert identity.totp_secret_works(found["staff"]["email"], found["staff"]["totp_secret"])
    me = build.client(found["api_key"]).get("/api/v1/me").json()["credential"]
    assert me["organization"]["id"] == found["organization"]["id"]
    assert set(me["scopes"]) == set(Permission)
    me = build.client(found["integration_key"]).get("/api/v1/me").json()["credential"]
    assert set(me["scopes"]) == set(IntegrationScope)
    assert Membership.objects.get(user__email=found["owner"]["email"]).role == "owner"
    file = tmp_path / "bootstrap.json"
    assert json.loads(file.read_text()) == found
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_again_it_gives_the_same(run):
    first = run()

    assert run() == first
    assert (ApiKey.objects.count(), Integration.objects.count(), User.objects.count()) == (1, 1, 2)


def test_it_renews_only_what_no_longer_works(run):
    first = run()
    services.revoke(actor=build.actor(), credential=ApiKey.objects.get(), now=timezone.now())
    identity.set_password(email=first["owner"]["email"], password="something else")

    second = run()

    renewed = {name for name in first if first[name] != second[name]}
    assert renewed == {"api_key", "owner"}
    assert build.client(second["api_key"]).get("/api/v1/me").status_code == 200
    assert identity.credentials_work(**second["owner"])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"staff": 1, "owner": {"email": "x"}, "api_key": null}'])
def test_a_damaged_file_is_made_anew(run, tmp_path, text):
    first = run()
    (tmp_path / "bootstrap.json").write_text(text)

    second = run()

    assert second["organization"] == first["organization"]
    assert build.client(second["api_key"]).get("/api/v1/me").status_code == 200


def test_never_outside_development(settings, tmp_path):
    settings.VAR = tmp_path

    with pytest.raises(CommandError):
        call_command("bootstrap", "--json")

    assert not User.objects.exists()
    assert not list(tmp_path.iterdir())
