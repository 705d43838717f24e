"""Second factors over REST: enrolment, status, removal, recovery codes; and one code through every door."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from django.test import Client
from django.utils import timezone
from prometheus_client import REGISTRY

from apps.audit.models import AuditEvent
from apps.identity import selectors, services
from apps.identity.models import MfaDevice, TotpEnrolment
from apps.notifications.models import Mail
from apps.outbox.models import OutboxEvent
from tests import build
from tests.identity.codes import code_at
from tests.threads import at_once

PASSWORD = "correct horse battery"
ADA = "ada@example.com"
START = datetime(2026, 5, 15, 12, 0, 5, tzinfo=UTC)


@pytest.fixture
def clock():
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.fixture
def ada(db, clock):
    return build.user(ADA, password=PASSWORD)


@pytest.fixture
def rest(ada):
    """Return a client with the tokens of a login without a second factor."""
    return build.client(login().json()["access_token"])


def login(**fields):
    return build.client().post("/auth/login", {"email": ADA, "password": PASSWORD, **fields})


def code_of(answer):
    return answer.status_code, answer.json()["code"]


def enrol(client) -> tuple[str, list[str]]:
    """Enrol an authenticator now; return its secret and the recovery codes."""
    secret = client.post("/api/v1/mfa/totp").json()["secret"]
    answer = client.post("/api/v1/mfa/totp/verify", {"code": code_at(secret, timezone.now())})
    assert answer.status_code == 200, answer.json()
    return secret, answer.json()["recovery_codes"]


def changes() -> list[str]:
    return sorted(mail.context["change"] for mail in Mail.objects.all())


def test_enrolment_shows_the_secret_then_the_recovery_codes_once(rest, ada):
    nothing = {"enabled": False, "totp": None, "passkeys": [], "recovery_codes": None}
    assert rest.get("/api/v1/mfa").json() == nothing

    offer = rest.post("/api/v1/mfa/totp").json()

    assert set(offer) == {"secret", "otpauth_uri", "qr_svg"}
    assert (
        offer["otpauth_uri"]
        == f"otpauth://totp/ada%40example.com?secret={offer['secret']}&issuer=Countinghouse"
    )
    assert re.match(r"<svg|<\?xml", offer["qr_svg"])
    assert rest.get("/api/v1/mfa").json() == nothing
    assert offer["secret"] not in str(TotpEnrolment.objects.values().get())

    code = code_at(offer["secret"], START)
    answer = rest.post("/api/v1/mfa/totp/verify", {"code": f"{code[:3]} {code[3:]}"}).json()

    assert len(set(answer["recovery_codes"])) == 10
    shown = rest.get("/api/v1/mfa").json()
    assert shown["enabled"] is True
    assert shown["totp"] == {"created_at": "2026-05-15T12:00:05Z", "last_used_at": None}
    assert shown["recovery_codes"] == {"left": 10, "total": 10}
    assert changes() == ["An authenticator app was added."]
    assert AuditEvent.objects.filter(action="mfa.totp_added", actor_id=ada.pk).count() == 1
    kept = str([list(table.objects.values()) for table in (Authenticator, AuditEvent, OutboxEvent, Mail)])
    assert offer["secret"] not in kept
    assert not any(code in kept for code in answer["recovery_codes"])
    assert code_of(rest.post("/api/v1/mfa/totp")) == (409, "totp_exists")


def test_the_code_of_the_enrolment_is_used(rest, ada):
    secret, _codes = enrol(rest)

    assert code_of(login()) == (401, "mfa_required")
    assert code_of(login(otp=code_at(secret, START))) == (401, "token_invalid")


def test_a_wrong_code_enrols_nothing_and_may_be_tried_again(rest, ada):
    secret = rest.post("/api/v1/mfa/totp").json()["secret"]

    for wrong in ("000000", "12345", "abcdef", ""):
        answer = rest.post("/api/v1/mfa/totp/verify", {"code": wrong})
        assert answer.status_code == 422, wrong
    assert not selectors.has_second_factor(ada)

    right = code_at(secret, START - timedelta(seconds=30))  # A slow typist.
    assert rest.post("/api/v1/mfa/totp/verify", {"code": right}).status_code == 200


def test_only_the_newest_secret_counts_and_only_for_half_an_hour(rest, clock):
    assert code_of(rest.post("/api/v1/mfa/totp/verify", {"code": "123456"})) == (409, "totp_not_begun")
    first = rest.post("/api/v1/mfa/totp").json()["secret"]
    second = rest.post("/api/v1/mfa/totp").json()["secret"]

    old = rest.post("/api/v1/mfa/totp/verify", {"code": code_at(first, START)})
    assert code_of(old) == (422, "code_refused")
    TotpEnrolment.objects.update(created_at=START - timedelta(minutes=30))
    late = rest.post("/api/v1/mfa/totp/verify", {"code": code_at(second, START)})
    assert code_of(late) == (409, "totp_not_begun")


def test_removing_takes_a_code_and_the_recovery_codes_go_too(rest, ada, clock):
    secret, _codes = enrol(rest)
    assert code_of(rest.delete("/api/v1/mfa/totp", {"code": "000000"})) == (422, "code_refused")
    clock.move_to(START + timedelta(seconds=40))

    answer = rest.delete("/api/v1/mfa/totp", {"code": code_at(secret, timezone.now())})

    assert answer.status_code == 204
    assert not Authenticator.objects.exists()
    assert login().status_code == 200
    assert changes() == ["An authenticator app was added.", "The authenticator app was removed."]
    assert code_of(rest.delete("/api/v1/mfa/totp", {"code": "123456"})) == (409, "no_second_factor")


def test_a_recovery_code_removes_a_lost_authenticator_and_is_told(rest, ada):
    _secret, codes = enrol(rest)

    assert rest.delete("/api/v1/mfa/totp", {"code": codes[3]}).status_code == 204
    assert "A recovery code was used instead of your second factor." in changes()
    assert AuditEvent.objects.filter(action="mfa.recovery_code_used", address="127.0.0.1").count() == 1


def test_recovery_codes_are_renewed(rest, ada):
    assert code_of(rest.post("/api/v1/mfa/recovery-codes")) == (409, "no_second_factor")
    _secret, old = enrol(rest)

    new = rest.post("/api/v1/mfa/recovery-codes").json()["recovery_codes"]

    assert not set(new) & set(old)
    assert code_of(login(otp=old[0])) == (401, "token_invalid")
    MfaDevice.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)
    assert login(otp=new[0]).status_code == 200
    assert code_of(login(otp=new[0])) == (401, "token_invalid")
    assert rest.get("/api/v1/mfa").json()["recovery_codes"] == {"left": 9, "total": 10}


def test_a_person_with_passkeys_only_logs_in_with_a_recovery_code(ada):
    passkey = Authenticator.objects.create(user=ada, type=Authenticator.Type.WEBAUTHN, data={"name": "Key"})
    assert login().json()["details"] == {"methods": ["passkey"]}
    assert code_of(login(otp="123456")) == (401, "token_invalid")
    MfaDevice.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)
    codes = services.renew_recovery_codes(actor=build.person(ada), browser="", now=START)

    asked = login()
    assert code_of(asked) == (401, "mfa_required")
    assert asked.json()["details"] == {"methods": ["recovery_code", "passkey"]}
    client = build.client(login(otp=codes[0]).json()["access_token"])

    shown = client.get("/api/v1/mfa").json()
    assert [row["id"] for row in shown["passkeys"]] == [passkey.pk]
    assert (shown["totp"], shown["recovery_codes"]) == (None, {"left": 9, "total": 10})
    assert client.post("/auth/step-up", {"otp": codes[1]}).status_code == 204
    assert code_of(client.post("/auth/step-up", {"password": PASSWORD})) == (422, "validation_error")
    renewed = client.post("/api/v1/mfa/recovery-codes").json()["recovery_codes"]
    assert len(renewed) == 10
    assert client.delete("/api/v1/mfa/totp", {"code": renewed[0]}).status_code == 409
    assert client.get("/api/v1/mfa").json()["recovery_codes"]["left"] == 10


def test_used_up_recovery_codes_are_not_offered(rest, ada):
    _secret, codes = enrol(rest)
    for code in codes:
        assert login(otp=code).status_code == 200

    assert login().json()["details"] == {"methods": ["totp"]}


def test_adding_and_renewing_ask_for_a_recent_proof(rest, ada, clock):
    clock.move_to(START + timedelta(minutes=9, seconds=59))
    assert rest.post("/api/v1/mfa/totp").status_code == 200
    tokens = build.client(login().json()["access_token"])
    secret, _codes = enrol(tokens)
    clock.move_to(timezone.now() + timedelta(minutes=10))
    late = build.person_client(ada, stepped_up=False)

    for path in ("totp", "totp/verify", "recovery-codes"):
        assert code_of(late.post(f"/api/v1/mfa/{path}", {"code": "123456"})) == (403, "step_up_required")
    assert late.delete("/api/v1/mfa/totp", {"code": code_at(secret, timezone.now())}).status_code == 204


def test_no_key_touches_second_factors(ada):
    key = build.client(build.api_key(build.organization(owner=ada)))

    for method, path in (("get", ""), ("post", "/totp"), ("delete", "/totp"), ("post", "/recovery-codes")):
        assert getattr(key, method)(f"/api/v1/mfa{path}").status_code == 403


def test_one_cannot_touch_the_factors_of_another(rest, ada):
    enrol(rest)
    bob = build.person_client(build.user("bob@example.com"))

    assert bob.get("/api/v1/mfa").json()["enabled"] is False
    assert bob.post("/api/v1/mfa/recovery-codes").status_code == 409
    assert selectors.has_second_factor(ada)


def test_verifying_twice_at_once_makes_one_authenticator(transactional_db):
    ada = build.user(ADA, password=PASSWORD)
    client = build.client(build.tokens(ada, PASSWORD).access_token)
    secret = client.post("/api/v1/mfa/totp").json()["secret"]
    code = code_at(secret, timezone.now())

    answers = at_once(*[partial(client.post, "/api/v1/mfa/totp/verify", {"code": code})] * 2)

    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert Authenticator.objects.filter(user=ada, type="totp").count() == 1


# One code, every door.


def _login_page(ada):
    browser = Client()
    browser.post("/accounts/login/", {"login": ADA, "password": PASSWORD})
    return lambda code: (
        browser.post("/accounts/2fa/authenticate/", {"code": code}).status_code == 302
        and "_auth_user_id" in browser.session
    )


def _step_up_page(ada):
    ada.refresh_from_db()
    browser = Client()
    browser.force_login(ada)
    assert browser.get("/accounts/2fa/reauthenticate/").status_code == 200
    return lambda code: browser.post("/accounts/2fa/reauthenticate/", {"code": code}).status_code == 302


def _rest_login(ada):
    return lambda code: login(otp=code).status_code == 200


def _rest_step_up(ada):
    client = build.client(_token_of(ada))
    return lambda code: client.post("/auth/step-up", {"otp": code}).status_code == 204


def _rest_removal(ada):
    client = build.person_client(ada)
    return lambda code: client.delete("/api/v1/mfa/totp", {"code": code}).status_code == 204


def _token_of(ada) -> str:
    """Return an access token from before there was a second factor, as a login then made it."""
    kept = list(Authenticator.objects.filter(user=ada))
    devices = list(MfaDevice.objects.all())
    Authenticator.objects.filter(user=ada).delete()
    token = build.tokens(ada, PASSWORD).access_token
    Authenticator.objects.bulk_create(kept)
    MfaDevice.objects.bulk_create(devices)
    return token


def wrong_codes() -> float:
    """Return how many codes /metrics says did not hold."""
    labels = {"who": "person", "reason": "wrong_code"}
    return REGISTRY.get_sample_value("countinghouse_failed_authentications_total", labels) or 0


DOORS = {
    "login page": _login_page,
    "step-up page": _step_up_page,
    "login over REST": _rest_login,
    "step-up over REST": _rest_step_up,
    "removal over REST": _rest_removal,
}


@pytest.fixture
def factor(ada):
    """Give Ada an authenticator whose codes are all unused, and a recovery code; return both."""
    _user, secret = services.create_staff(email=ADA, password=PASSWORD, now=START)
    codes = services.renew_recovery_codes(actor=build.person(ada), browser="", now=START)
    return secret, codes[0]


@pytest.mark.parametrize("kind", ["totp", "recovery"])
@pytest.mark.parametrize("first", [name for name in DOORS if name != "removal over REST"])
def test_a_code_that_passed_one_door_passes_no_other(ada, factor, clock, first, kind):
    code = code_at(factor[0], START) if kind == "totp" else factor[1]
    doors = {name: prepare(ada) for name, prepare in DOORS.items()}

    opened = DOORS[first](ada)

    assert opened(code)

    later = ((0, ""), (10, " "), (31, "-"), (61, "")) if kind == "totp" else ((61, "-"),)
    for seconds, separator in later:
        spelled = f"{code[:3]}{separator}{code[3:]}"
        clock.move_to(START + timedelta(seconds=seconds))
        for name, attempt in doors.items():
            # Without the throttle, which would refuse for another reason.
            MfaDevice.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)
            assert not attempt(spelled), f"{name} after {seconds} s"


@pytest.mark.parametrize("door", DOORS)
def test_every_door_opens_for_a_fresh_code_and_waits_after_a_wrong_one(ada, factor, clock, door):
    attempt = DOORS[door](ada)
    right = code_at(factor[0], START)
    before = wrong_codes()

    assert not attempt("000000")
    assert not attempt(right)  # Not even looked at: the throttle runs.
    clock.move_to(START + timedelta(seconds=2))
    assert attempt(right)
    assert wrong_codes() == before + 1


@pytest.mark.parametrize("kind", ["totp", "recovery"])
def test_one_code_in_two_threads_has_one_success(transactional_db, kind):
    ada, secret = services.create_staff(email=ADA, password=PASSWORD, now=timezone.now())
    recovery = services.renew_recovery_codes(actor=build.person(ada), browser="", now=timezone.now())
    code = code_at(secret, timezone.now()) if kind == "totp" else recovery[0]

    answers = at_once(*[partial(login, otp=code)] * 2)

    assert sorted(answer.status_code for answer in answers) == [200, 401]


def test_one_code_at_two_doors_at_once_has_one_success(transactional_db):
    ada, secret = services.create_staff(email=ADA, password=PASSWORD, now=timezone.now())
    page, rest = _login_page(ada), _rest_login(ada)
    code = code_at(secret, timezone.now())

    answers = at_once(partial(page, code), partial(rest, f"{code[:3]} {code[3:]}"))

    assert sorted(answers) == [False, True]
