"""Login providers: an identity is (provider, subject), and an address opens nothing."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialToken
from django.core import mail
from django.test import Client
from django.utils import timezone
from pydantic import ValidationError

from apps.audit.models import AuditEvent
from apps.identity import services
from apps.identity.models import User
from apps.organizations.models import Membership
from config import providers
from config.environment import Environment
from tests import build

PASSWORD = "correct horse battery"
ADA = "ada@example.com"
LOGIN = "/accounts/oidc/oidc/login/"


class Provider:
    """An OpenID Connect provider on this machine; `person` is whom it vouches for."""

    def __init__(self) -> None:
        self.person: dict[str, Any] = {}
        self.asked: list[dict[str, list[str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(outer.discovery if "well-known" in self.path else outer.person)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                outer.asked.append(parse_qs(body))
                self._answer({"access_token": "opaque", "token_type": "Bearer", "expires_in": 60})

            def _answer(self, data: dict[str, Any]) -> None:
                body = json.dumps(data).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: Any) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/jwks",
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def environment(**fields: Any) -> Environment:
    return Environment(_env_file=None, **fields)


@pytest.fixture
def provider(db, settings, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = Provider()
    env = environment(
        oidc_client_id="us", oidc_client_secret="hush", oidc_issuer_url=found.url, oidc_name="Lab login"
    )
    settings.SOCIALACCOUNT_PROVIDERS = providers.configured(env)
    found.person = {"sub": "42", "email": "Ada@Example.com", "email_verified": True, "name": "Ada Lovelace"}
    yield found
    found.close()


def come(browser: Client | None = None, *, process: str = "login"):
    """Go to the provider and come back; return the browser and the last answer."""
    browser = browser or Client()
    away = browser.post(f"{LOGIN}?process={process}")
    assert away.status_code == 302, away.content
    asked = parse_qs(urlsplit(away.headers["Location"]).query)
    return browser, browser.get(f"{LOGIN}callback/", {"code": "once", "state": asked["state"][0]})


def who(browser: Client) -> str | None:
    return browser.session.get("_auth_user_id")


def test_nothing_is_offered_that_is_not_configured(db):
    for page in ("/accounts/login/", "/accounts/signup/"):
        assert "Continue with" not in Client().get(page).text
    assert Client().post(LOGIN).status_code == 404


def test_what_is_configured_is_offered_and_nothing_else(provider):
    page = Client().get("/accounts/login/").text

    assert "Continue with Lab login" in page
    assert page.count("Continue with") == 1
    assert "Continue with Lab login?" in Client().get(LOGIN).text  # A link alone begins nothing.


def test_a_new_person_gets_an_account_and_a_first_organization(provider):
    browser, done = come()

    ada = User.objects.get()
    assert done.status_code == 302
    assert who(browser) == str(ada.pk)
    assert (ada.email, ada.name, ada.has_usable_password()) == (ADA, "Ada Lovelace", False)
    assert [(row.email, row.verified, row.primary) for row in EmailAddress.objects.all()] == [
        (ADA, True, True)
    ]
    assert Membership.objects.get(user=ada).organization.name == "Ada Lovelace"
    assert AuditEvent.objects.get(action="user.created").diff == {"provider": "oidc"}
    assert not SocialToken.objects.exists()
    assert "code_verifier" in provider.asked[0]
    assert mail.outbox == []


def test_the_subject_is_the_person_whatever_the_address(provider):
    come()
    ada = User.objects.get()
    provider.person = {"sub": "42", "email": "other@example.com", "email_verified": True}

    browser, _done = come()

    assert who(browser) == str(ada.pk)
    assert User.objects.get().email == ADA


def test_the_address_of_an_account_opens_nothing(provider, run_jobs):
    ada = build.user(ADA, password=PASSWORD)

    browser, done = come()

    assert who(browser) is None
    assert done.headers["Location"] == "/accounts/confirm-email/"
    assert User.objects.get() == ada
    assert not SocialAccount.objects.exists()
    assert [message.to for message in mail.outbox] == [[ADA]]
    assert "already have an account" in mail.outbox[0].subject


@pytest.mark.parametrize(
    "person", [{"email": ADA, "email_verified": False}, {"email": ADA}, {"email_verified": True}, {}]
)
def test_an_address_that_the_provider_does_not_vouch_for_makes_no_account(provider, person):
    provider.person = {"sub": "42", **person}

    browser, done = come()

    assert done.status_code == 403
    assert "does not say that your address is proved" in done.text
    assert who(browser) is None
    assert not User.objects.exists()


def test_a_provider_is_connected_by_whoever_is_logged_in(provider, run_jobs):
    ada = build.user(ADA, password=PASSWORD)
    browser = Client()
    browser.post("/accounts/login/", {"login": ADA, "password": PASSWORD})
    provider.person = {"sub": "7", "email": "private@example.com", "email_verified": True}

    _browser, done = come(browser, process="connect")

    assert done.headers["Location"] == "/app/account/security"
    assert "connected" in browser.get("/app/account/security").text
    assert who(come()[0]) == str(ada.pk)
    run_jobs()
    assert "connected" in mail.outbox[0].subject
    assert AuditEvent.objects.get(action="user.provider_connected").diff == {"provider": "oidc"}

    account = SocialAccount.objects.get()
    browser.post("/accounts/3rdparty/", {"account": account.pk})
    assert not SocialAccount.objects.exists()
    assert AuditEvent.objects.filter(action="user.provider_disconnected").count() == 1


def test_a_second_factor_is_still_asked_for(provider):
    come()
    ada = User.objects.get()
    services.create_staff(email=ADA, password=PASSWORD, now=timezone.now())

    browser, done = come()

    assert done.headers["Location"] == "/accounts/2fa/authenticate/"
    assert who(browser) is None
    assert ada.pk == User.objects.get().pk


def test_a_closed_door_is_closed_here_too(provider, settings):
    settings.SIGNUP_OPEN = False

    browser, done = come()

    assert "Signing up is closed" in done.text
    assert who(browser) is None
    assert not User.objects.exists()


def test_an_answer_that_nobody_asked_for_logs_nobody_in(provider):
    browser = Client()
    answer = browser.get(f"{LOGIN}callback/", {"code": "stolen", "state": "guessed"})

    assert "The login did not work" in answer.text
    assert who(browser) is None
    assert provider.asked == []


def test_the_last_way_in_cannot_be_disconnected(provider):
    browser, _done = come()

    shown = browser.post("/accounts/3rdparty/", {"account": SocialAccount.objects.get().pk}, follow=True)

    assert SocialAccount.objects.count() == 1
    assert "This is the only way to log in." in shown.text


def test_who_has_only_a_provider_logs_in_again_to_change_something(provider):
    browser, _done = come()
    assert browser.get("/accounts/2fa/totp/activate/").status_code == 200
    session = browser.session
    session["account_authentication_methods"][0]["at"] -= 601
    session.save()

    for path in ("/accounts/2fa/totp/activate/",):
        asked = browser.get(path)
        assert asked.headers["Location"] == f"/accounts/login/?next={path}"
        assert who(browser) is None
    browser, _done = come()
    session = browser.session
    session["account_authentication_methods"][0]["at"] -= 601
    session.save()
    deleted = browser.post("/app/account/delete", {"confirmation": ADA})
    assert deleted.headers["Location"].startswith("/accounts/login/")
    assert User.objects.get().is_active


def test_the_environment_configures_providers():
    env = environment(
        google_client_id="g",
        google_client_secret="s",
        github_client_id="h",
        github_client_secret="s",
        apple_client_id="a",
        apple_key_id="k",
        apple_team_id="t",
        apple_private_key="-----BEGIN\\nEND-----",
        oidc_client_id="o",
        oidc_client_secret="s",
        oidc_issuer_url="https://login.lab.example/realms/lab",
        oidc_authorization_origin="https://front.lab.example",
    )

    found = providers.configured(env)

    assert set(found) == {"google", "github", "apple", "openid_connect"}
    assert found["apple"]["APPS"][0]["settings"]["certificate_key"] == "-----BEGIN\nEND-----"
    assert providers.origins(env) == [
        "https://accounts.google.com",
        "https://github.com",
        "https://appleid.apple.com",
        "https://login.lab.example",
        "https://front.lab.example",
    ]
    assert providers.configured(environment()) == {}
    assert providers.origins(environment()) == []


@pytest.mark.parametrize(
    "name", ["google_client_id", "github_client_id", "apple_client_id", "oidc_client_id"]
)
def test_half_a_provider_does_not_start(name):
    with pytest.raises(ValidationError, match=f"must be set when {name.upper()} is set"):
        environment(**{name: "x"})
