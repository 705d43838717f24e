"""One code, one success: through the service, through both forms, in two threads."""

from __future__ import annotations

from base64 import b32decode
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal import auth as allauth_totp
from cryptography.fernet import Fernet
from django_otp.oath import TOTP

from apps.identity import services
from apps.identity.models import FAILURES_COUNTED_MAX, MfaDevice
from tests.threads import at_once

START = datetime(2026, 5, 15, 12, 0, 10, tzinfo=UTC)


def code_at(secret: str, moment: datetime) -> str:
    totp = TOTP(b32decode(secret))
    totp.time = moment.timestamp()
    return f"{totp.token():06d}"


@pytest.fixture
def clock():
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.fixture
def staff(db, clock):
    return services.create_staff(email="Ada@Example.com", password="correct horse battery", now=START)


def test_a_code_passes_once_whatever_its_age_and_separators(staff, clock):
    user, secret = staff
    code = code_at(secret, START)

    assert services.take_code(user=user, code=code, now=START).type == Authenticator.Type.TOTP
    for seconds, spelling in (
        (0, code),
        (10, f"{code[:3]} {code[3:]}"),
        (31, f"{code[:3]}-{code[3:]}"),
        (61, code),
    ):
        moment = START + timedelta(seconds=seconds)
        clock.move_to(
            moment + timedelta(hours=seconds)
        )  # Past the throttle; the code is tried as of `moment`.
        with pytest.raises(services.CodeRefused):
            services.take_code(user=user, code=spelling, now=moment)


def test_an_older_code_is_refused_after_a_newer_one(staff):
    user, secret = staff
    earlier, later = START, START + timedelta(seconds=30)

    services.take_code(user=user, code=code_at(secret, later), now=later)

    with pytest.raises(services.CodeRefused):
        services.take_code(user=user, code=code_at(secret, earlier), now=later)


@pytest.mark.parametrize(("off", "passes"), [(-60, False), (-30, True), (30, True), (60, False)])
def test_a_clock_may_be_one_step_off(staff, off, passes):
    user, secret = staff
    code = code_at(secret, START + timedelta(seconds=off))

    if passes:
        services.take_code(user=user, code=code, now=START)
    else:
        with pytest.raises(services.CodeRefused):
            services.take_code(user=user, code=code, now=START)


def test_wrong_codes_wait_longer_each_time_and_a_right_one_is_not_even_looked_at(staff, clock):
    user, secret = staff
    with pytest.raises(services.CodeRefused):
        services.take_code(user=user, code="000000", now=START)

    with pytest.raises(services.CodesThrottled) as refusal:
        services.take_code(user=user, code=code_at(secret, START), now=START)

    assert refusal.value.details == {"retry_after": 1}
    assert MfaDevice.objects.get().last_step == 0
    clock.move_to(START + timedelta(seconds=1))
    services.take_code(user=user, code=code_at(secret, START), now=START + timedelta(seconds=1))
    assert MfaDevice.objects.get().throttling_failure_count == 0


def test_the_wait_ends_whatever_the_number_of_failures(staff, clock):
    user, secret = staff
    device = MfaDevice.objects.get()
    for _failure in range(40):
        device.throttle_increment()
    assert device.throttling_failure_count == FAILURES_COUNTED_MAX
    later = START + timedelta(seconds=2 ** (FAILURES_COUNTED_MAX - 1))
    clock.move_to(later)

    services.take_code(user=user, code=code_at(secret, later), now=later)


def test_a_recovery_code_passes_once_and_counts_in_the_same_throttle(staff, clock):
    user, _secret = staff
    codes = RecoveryCodes.activate(user).generate_codes()

    assert services.take_code(user=user, code=codes[0], now=START).type == Authenticator.Type.RECOVERY_CODES
    with pytest.raises(services.CodeRefused):
        services.take_code(user=user, code=codes[0], now=START)
    with pytest.raises(services.CodesThrottled):
        services.take_code(user=user, code=codes[1], now=START)


def test_two_threads_with_one_code_have_one_success(transactional_db):
    user, secret = services.create_staff(email="ada@example.com", password="correct horse battery", now=START)
    now = datetime.now(UTC)
    code = code_at(secret, now)

    def take() -> str:
        try:
            services.take_code(user=user, code=code, now=now)
        except (services.CodeRefused, services.CodesThrottled) as refusal:
            return refusal.code
        return "passed"

    assert sorted(at_once(take, take)) == ["code_refused", "passed"]


def test_the_code_of_the_enrolment_counts_as_used(db, clock):
    user = services.create_user(email="ada@example.com", password="correct horse battery", now=START)
    secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    allauth_totp.TOTP.activate(user, secret)

    with pytest.raises(services.CodeRefused):
        services.take_code(user=user, code=code_at(secret, START), now=START)


def test_without_a_factor_no_code_holds(db):
    user = services.create_user(email="ada@example.com", password="correct horse battery", now=START)

    with pytest.raises(services.CodeRefused):
        services.take_code(user=user, code="123456", now=START)


def test_secrets_are_encrypted_and_keys_rotate(staff, settings):
    user, secret = staff
    stored = Authenticator.objects.get(type=Authenticator.Type.TOTP)
    assert secret not in str(stored.data)

    settings.FIELD_ENCRYPTION_KEYS = [Fernet.generate_key().decode(), *settings.FIELD_ENCRYPTION_KEYS]

    services.take_code(user=user, code=code_at(secret, START), now=START)


def test_the_device_dies_with_its_authenticator(staff):
    Authenticator.objects.all().delete()

    assert not MfaDevice.objects.exists()
