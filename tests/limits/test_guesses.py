"""Guessing passwords and codes: five a minute per account and address, through every door, Valkey or not."""

from __future__ import annotations

import pytest
from django.test import Client

from apps.identity import services as identity
from apps.identity.models import MfaDevice, PasswordReset
from apps.limits import services as limits
from apps.limits.models import GuessBucket
from apps.limits.services import LOGIN, VOUCHER, TooManyGuesses
from tests import build
from tests.threads import at_once

PASSWORD = "correct horse battery"
ADA = "ada@example.com"

pytestmark = pytest.mark.usefixtures("slowly")


@pytest.fixture(params=["valkey", "postgresql"])
def counted(request):
    """Count guesses in Valkey, and where it is stopped in PostgreSQL."""
    request.getfixturevalue("limited" if request.param == "valkey" else "valkey_stopped")
    return request.param


@pytest.fixture
def ada(db):
    return build.user(ADA, password=PASSWORD)


def log_in(password, email=ADA, address="192.0.2.7"):
    body = {"email": email, "password": password}
    return build.client().post("/api/v1/auth/login", body, REMOTE_ADDR=address)


def test_the_sixth_wrong_password_is_not_looked_at(counted, ada):
    answers = [log_in("wrong") for _guess in range(5)]
    sixth = log_in(PASSWORD)

    assert [answer.status_code for answer in answers] == [401] * 5
    assert (sixth.status_code, sixth.json()["code"]) == (429, "rate_limited")
    assert 3000 < int(sixth["Retry-After"]) <= 3600
    assert log_in(PASSWORD, address="192.0.2.8").status_code == 200, "nobody is locked out from elsewhere"
    assert GuessBucket.objects.exists() == (counted == "postgresql")


def test_an_unknown_address_is_refused_as_soon(counted, ada):
    statuses = [log_in("wrong", email="nobody@example.com").status_code for _guess in range(6)]

    assert statuses == [401] * 5 + [429]


def test_spelling_the_address_otherwise_gains_nothing(counted, ada):
    spellings = [ADA, "ADA@example.com", " ada@example.com", "Ada@Example.com", ADA]
    for email in spellings:
        assert log_in("wrong", email=email).status_code == 401

    assert log_in("wrong").status_code == 429


def test_a_right_password_gives_the_guesses_back(counted, ada):
    for _round in range(2):
        for _guess in range(4):
            assert log_in("wrong").status_code == 401
        assert log_in(PASSWORD).status_code == 200


def test_the_login_page_and_rest_count_the_same_guesses(counted, ada):
    for _guess in range(3):
        assert log_in("wrong").status_code == 401
    browser = Client(REMOTE_ADDR="192.0.2.7")
    pages = [
        browser.post("/accounts/login/", {"login": ADA, "password": password}).content.decode()
        for password in ("wrong", "wrong", PASSWORD)
    ]

    assert "Too many attempts" not in pages[0] + pages[1]
    assert "Too many attempts" in pages[2]
    assert log_in(PASSWORD).status_code == 429


def test_wrong_codes_count_at_login_and_at_step_up(counted, db):
    staff, _secret = identity.create_staff(email=ADA, password=PASSWORD, now=build.timezone.now())
    statuses = []
    for _guess in range(6):
        body = {"email": ADA, "password": PASSWORD, "otp": "000000"}
        statuses.append(build.client().post("/api/v1/auth/login", body).status_code)
        # The throttle of the device is another matter.
        staff.mfadevice_set.update(throttling_failure_timestamp=None, throttling_failure_count=0)

    assert statuses == [401] * 5 + [429]


def test_step_up_is_guarded(counted, ada):
    tokens = build.tokens(ada, PASSWORD)
    client = build.client(tokens.access_token)

    statuses = [client.post("/api/v1/auth/step-up", {"password": "wrong"}).status_code for _guess in range(6)]

    assert statuses == [422] * 5 + [429]


def test_in_two_threads_five_guesses_are_five(counted, transactional_db):
    found = at_once(*[lambda: limits.guard(VOUCHER, "lab", "192.0.2.7")] * 12)

    refusals = [result for result in found if isinstance(result, TooManyGuesses)]
    assert len(refusals) == 7
    assert all(3000 < error.details["retry_after"] <= 3600 for error in refusals)


def test_the_last_guess_counts_although_the_request_is_refused(valkey_stopped, transactional_db):
    build.user(ADA, password=PASSWORD)
    for _guess in range(5):
        log_in("wrong")

    assert GuessBucket.objects.count() == 1
    with pytest.raises(TooManyGuesses):
        limits.guard(LOGIN, ADA, "192.0.2.7")


def test_leak_reports_are_ten_a_minute(limited, db):
    statuses = [
        build.client()
        .post("/api/v1/credentials/leaks", {"tokens": ["x"]}, REMOTE_ADDR="192.0.2.7")
        .status_code
        for _report in range(11)
    ]

    assert statuses == [202] * 10 + [429]


# Every other door where a secret can be guessed, or a mail be asked for. Each attempt says whether it was looked at.


def _signed_in():
    browser = Client(REMOTE_ADDR="192.0.2.7")
    browser.post("/accounts/login/", {"login": ADA, "password": PASSWORD})
    return browser


def _attempts_at_page(browser, path, **fields):
    return lambda: "Too many attempts" not in browser.post(path, fields).text


def _attempts_over_rest(client, path, refused, **body):
    def attempt():
        answer = client.post(path, body, REMOTE_ADDR="192.0.2.7")
        assert answer.status_code in (refused, 429), answer.text
        return answer.status_code != 429

    return attempt


def confirming_a_password(ada):
    return _attempts_at_page(_signed_in(), "/accounts/reauthenticate/", password="wrong")


def changing_a_password(ada):
    new = {"password1": "another horse battery", "password2": "another horse battery"}
    return _attempts_at_page(_signed_in(), "/accounts/password/change/", oldpassword="wrong", **new)


def confirming_a_sign_up_elsewhere(ada):
    wish = identity.request_sign_up(email="new@example.com", password=PASSWORD, now=build.timezone.now())
    path = f"/accounts/confirm/{identity.token_of(wish)}/"
    return _attempts_at_page(Client(), path, password="wrong")


def the_first_code_on_the_page(ada):
    return _attempts_at_page(_signed_in(), "/accounts/2fa/totp/activate/", code="000000")


def the_first_code_over_rest(ada):
    client = build.client(build.tokens(ada, PASSWORD).access_token)
    client.post("/api/v1/mfa/totp")
    return _attempts_over_rest(client, "/api/v1/mfa/totp/verify", 422, code="000000")


def recovery_codes_on_the_login_page(ada):
    identity.create_staff(email=ADA, password=PASSWORD, now=build.timezone.now())
    return _attempts_with_code(_signed_in(), "/accounts/2fa/authenticate/")


def codes_on_the_step_up_page(ada):
    browser = _signed_in()
    identity.create_staff(email=ADA, password=PASSWORD, now=build.timezone.now())
    ada.refresh_from_db()
    browser.force_login(ada)
    return _attempts_with_code(browser, "/accounts/2fa/reauthenticate/")


def _attempts_with_code(browser, path):
    def attempt():
        # The throttle of the device is another matter.
        MfaDevice.objects.update(throttling_failure_timestamp=None, throttling_failure_count=0)
        return "Too many attempts" not in browser.post(path, {"code": "wrong-code"}).text

    return attempt


def asking_for_an_account_over_rest(ada):
    body = {"email": "new@example.com", "password": PASSWORD}
    return _attempts_over_rest(build.client(), "/auth/signup", 202, **body)


def asking_for_an_account_on_the_page(ada):
    fields = {"email": "new@example.com", "password1": PASSWORD}
    return _attempts_at_page(Client(), "/accounts/signup/", **fields)


def asking_for_a_new_password(ada):
    return _attempts_at_page(Client(), "/accounts/password/reset/", email="nobody@example.com")


@pytest.mark.parametrize(
    "door",
    [
        confirming_a_password,
        changing_a_password,
        confirming_a_sign_up_elsewhere,
        the_first_code_on_the_page,
        the_first_code_over_rest,
        recovery_codes_on_the_login_page,
        codes_on_the_step_up_page,
        asking_for_an_account_over_rest,
        asking_for_an_account_on_the_page,
        asking_for_a_new_password,
    ],
)
def test_every_door_opens_five_times(valkey_stopped, ada, door):
    attempt = door(ada)
    GuessBucket.objects.all().delete()

    assert [attempt() for _guess in range(6)] == [True] * 5 + [False]


def test_one_address_asks_for_twenty_mails_a_minute(valkey_stopped, db):
    def ask(number):
        email, now = f"somebody-{number}@example.com", build.timezone.now()
        identity.request_password_reset(email=email, address="192.0.2.7", now=now)

    for number in range(20):
        ask(number)
    with pytest.raises(TooManyGuesses):
        ask(20)

    assert PasswordReset.objects.count() == 20
