"""The staff admin opens to a second factor only, through the pages that people see."""

from __future__ import annotations

from base64 import b32decode
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal import auth as allauth_totp
from django.core.cache import cache
from django.test import Client
from django_otp.oath import TOTP

from apps.core.actor import system_actor
from apps.identity import services
from apps.identity.models import MfaDevice

PASSWORD = "correct horse battery"
START = datetime(2026, 5, 15, 12, 0, 10, tzinfo=UTC)


def code_at(secret: str, moment: datetime) -> str:
    totp = TOTP(b32decode(secret))
    totp.time = moment.timestamp()
    return f"{totp.token():06d}"


@pytest.fixture(autouse=True)
def clock(db):
    cache.clear()  # allauth counts failed logins there.
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.fixture
def staff():
    return services.create_staff(email="ada@example.com", password=PASSWORD, now=START)


def log_in(client: Client, email: str = "ada@example.com", password: str = PASSWORD):
    return client.post(
        "/accounts/login/?next=/admin/", {"login": email, "password": password, "next": "/admin/"}
    )


def enter(client: Client, code: str):
    return client.post("/accounts/2fa/authenticate/", {"code": code})


def test_password_and_code_open_the_admin(client, staff):
    assert client.get("/admin/", follow=True).redirect_chain[-1][0] == "/accounts/login/?next=%2Fadmin%2F"
    assert log_in(client).url == "/accounts/2fa/authenticate/"
    assert client.get("/admin/").status_code == 302

    answer = enter(client, code_at(staff[1], START))

    assert answer.url == "/admin/"
    page = client.get("/admin/")
    assert page.status_code == 200
    assert "Back office" in page.content.decode()


def test_the_password_alone_does_not_open_it(client, staff):
    Authenticator.objects.all().delete()
    log_in(client)
    allauth_totp.TOTP.activate(staff[0], "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")

    answer = client.get("/admin/", follow=True)

    assert answer.redirect_chain[-1][0] == "/accounts/2fa/reauthenticate/?next=%2Fadmin%2F"


def test_a_wrong_code_is_refused_and_the_next_must_wait(client, staff, clock):
    log_in(client)

    assert "This code is wrong or was used before" in enter(client, "000000").content.decode()
    assert "Too many wrong codes" in enter(client, code_at(staff[1], START)).content.decode()
    clock.move_to(START + timedelta(seconds=2))
    assert enter(client, code_at(staff[1], START)).url == "/admin/"


def test_a_code_used_in_one_browser_is_refused_in_another(client, staff, clock):
    code = code_at(staff[1], START)
    log_in(client)
    enter(client, code)
    other = Client()
    log_in(other)

    for seconds in (0, 20, 40):
        clock.move_to(START + timedelta(seconds=seconds))
        assert enter(other, code).status_code == 200
        assert other.get("/admin/").status_code == 302


def test_a_code_used_at_login_is_refused_at_step_up(client, staff):
    code = code_at(staff[1], START)
    log_in(client)
    enter(client, code)

    answer = client.post("/accounts/2fa/reauthenticate/", {"code": code})

    assert "This code is wrong or was used before" in answer.content.decode()


def test_a_recovery_code_opens_it_once(client, staff, clock):
    recovery = RecoveryCodes.activate(staff[0]).generate_codes()[0]
    log_in(client)
    assert enter(client, recovery).url == "/admin/"
    assert client.get("/admin/").status_code == 200

    other = Client()
    log_in(other)
    assert enter(other, recovery).status_code == 200


@pytest.mark.django_db(transaction=True)  # allauth reports the enrolment once it is committed.
def test_staff_without_a_factor_enrol_and_are_in(client):
    user = services.create_user(email="ada@example.com", password=PASSWORD, now=START)
    services.change_user(
        actor=system_actor("tests"),
        user_id=user.id,
        changes={"is_staff": True, "is_superuser": True},
    )
    log_in(client)
    assert client.get("/admin/", follow=True).redirect_chain[-1][0].startswith("/accounts/2fa/totp/activate/")
    page = client.get("/accounts/2fa/totp/activate/")
    secret = page.context["form"].secret
    assert secret in page.content.decode()
    assert "data:image/svg+xml;base64," in page.content.decode()

    wrong = client.post("/accounts/2fa/totp/activate/", {"code": "000000"})
    assert wrong.status_code == 200
    assert not Authenticator.objects.exists()
    code = code_at(secret, START)
    done = client.post("/accounts/2fa/totp/activate/", {"code": code})

    assert done.url == "/accounts/2fa/recovery-codes/"
    shown = client.get("/accounts/2fa/recovery-codes/").content.decode()
    assert "You will not see these again" in shown
    assert "You will not see these again" not in client.get("/accounts/2fa/recovery-codes/").content.decode()
    assert client.get("/admin/").status_code == 200
    assert MfaDevice.objects.get().last_step > 0

    other = Client()
    log_in(other)
    assert enter(other, code).status_code == 200, "the code of the enrolment is used"


def test_removing_the_factor_closes_it_at_once(client, staff):
    log_in(client)
    enter(client, code_at(staff[1], START))
    assert client.get("/admin/").status_code == 200

    Authenticator.objects.all().delete()

    assert client.get("/admin/").status_code == 302


def test_others_are_refused(client):
    services.create_user(email="bob@example.com", password=PASSWORD, now=START)
    log_in(client, "bob@example.com")

    answer = client.get("/admin/", follow=True)

    assert answer.status_code == 403
    assert "You may not open this page" in answer.content.decode()


def test_its_own_login_takes_nothing(client, staff):
    answer = client.post("/admin/login/", {"username": "ada@example.com", "password": PASSWORD})

    assert answer.status_code == 302
    assert answer.url == "/accounts/login/?next=%2Fadmin%2F"
    assert "_auth_user_id" not in client.session


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/admin/login/?next=/admin/login/"]
)
def test_it_redirects_to_its_own_pages_only(client, staff, target):
    log_in(client)
    enter(client, code_at(staff[1], START))

    assert client.get("/admin/login/", {"next": target}).url == "/admin/"


def test_a_password_does_not_stand_in_for_a_code(client, staff, clock):
    log_in(client)
    enter(client, code_at(staff[1], START))
    clock.move_to(START + timedelta(minutes=11))  # A login counts as a proof for ten minutes.

    for page in ("/accounts/2fa/totp/deactivate/", "/accounts/2fa/recovery-codes/generate/"):
        asked = client.get(page)
        assert asked.url.startswith("/accounts/2fa/reauthenticate/")
    assert client.get("/accounts/reauthenticate/").url.startswith("/accounts/2fa/reauthenticate/")


def test_the_sixth_wrong_password_is_limited_whatever_the_forwarded_address(client, staff):
    for attempt in range(6):
        answer = client.post(
            "/accounts/login/",
            {"login": "ada@example.com", "password": "wrong"},
            headers={"X-Forwarded-For": f"203.0.113.{attempt}"},
        )
    assert "These were too many tries." in answer.content.decode()
    assert "These were too many tries." in log_in(client).content.decode()
