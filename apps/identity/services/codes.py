"""Taking second factors so that no code passes twice."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from allauth.mfa.adapter import get_adapter as get_mfa_adapter
from allauth.mfa.models import Authenticator
from django.db import transaction
from django.utils.translation import gettext_lazy as _

from apps.core import metrics
from apps.core.actor import Actor, ActorKind
from apps.core.errors import DomainError
from apps.core.http.address import limiting_address
from apps.identity import notices
from apps.identity.models import TOTP_STEP_SECONDS, MfaDevice, User
from apps.identity.selectors import VERIFYING_TYPES
from apps.identity.services.people import note
from apps.limits import services as limits


class CodeRefused(DomainError):
    """The code is wrong, used, or of an authenticator that the user does not have."""

    code, http_status = "code_refused", 422
    default_message = _("This code is wrong or was used before. Wait for the next one.")


class CodesThrottled(DomainError):
    """Too many wrong codes in a row; `retry_after` says in how many seconds the next may be tried."""

    code, http_status = "rate_limited", 429
    default_message = _("Too many wrong codes. Wait a little before the next one.")


def totp_secret_works(email: str, secret: str) -> bool:
    """Return whether this base32 secret is the one stored for the staff user of that address."""
    stored = Authenticator.objects.filter(
        user__email=email.strip().lower(), user__is_staff=True, type=Authenticator.Type.TOTP
    ).first()
    return stored is not None and get_mfa_adapter().decrypt(stored.data["secret"]) == secret


def device_of(authenticator: Authenticator) -> MfaDevice:
    """Return the device beside an authenticator, made on first need.

    The code shown at enrolment, and any before it, counts as used: allauth checked it without us.
    """
    device: MfaDevice
    device, _made = MfaDevice.objects.get_or_create(
        authenticator=authenticator,
        defaults={
            "user": authenticator.user,
            "name": authenticator.type,
            "last_step": int(authenticator.created_at.timestamp()) // TOTP_STEP_SECONDS,
        },
    )
    return device


def verifying_device(user: User) -> MfaDevice | None:
    """Return the device that verifies sessions of this user: the oldest second factor, None without one."""
    authenticator = (
        Authenticator.objects.filter(user=user, type__in=VERIFYING_TYPES)
        .select_related("user")
        .order_by("pk")
        .first()
    )
    return device_of(authenticator) if authenticator else None


def take_code(*, user: User, code: str, address: str = "", browser: str = "", now: datetime) -> Authenticator:
    """Use up one TOTP or recovery code of the user and return what accepted it; every door goes through here.

    A recovery code that is used is told by mail, with address and browser.
    Call it outside any transaction: a refusal must be counted although it is raised; in the metrics as well.
    Raises CodesThrottled or TooManyGuesses without looking at the code, or CodeRefused.
    """
    guesser = (str(user.pk), limiting_address(address))
    limits.guard(limits.OTP, *guesser)
    if verifying_device(user) is None:
        raise _wrong()
    with transaction.atomic(durable=True):
        devices = list(MfaDevice.objects.locked_for(user))
        throttle = devices[0]
        locked_until = throttle.locked_until()
        if locked_until is not None:
            raise CodesThrottled(retry_after=max(1, round((locked_until - now).total_seconds())))
        accepted = _accepting_authenticator(user, devices, code, now)
        if accepted is None:
            throttle.throttle_increment()
        else:
            if throttle.throttling_failure_count:
                throttle.throttle_reset()
            _note_use(user, accepted, address, browser, now)
    if accepted is None:
        raise _wrong()
    limits.forgive(limits.OTP, *guesser)
    return accepted


def _wrong() -> CodeRefused:
    return metrics.failed_authentication(metrics.PERSON, "wrong_code", CodeRefused())


def _note_use(user: User, accepted: Authenticator, address: str, browser: str, now: datetime) -> None:
    accepted.last_used_at = now
    accepted.save(update_fields=["last_used_at"])
    if accepted.type != Authenticator.Type.RECOVERY_CODES:
        return
    actor = Actor(kind=ActorKind.USER, id=user.pk, label=user.email, address=address)
    note(actor=actor, user=user, action="mfa.recovery_code_used")
    notices.tell_of_change(
        user=user,
        to=user.email,
        change="recovery_code_used",
        details={},
        address=address,
        browser=browser,
        now=now,
    )


def _accepting_authenticator(
    user: User, devices: list[MfaDevice], code: str, now: datetime
) -> Authenticator | None:
    for device in devices:
        if device.spend_code(code, now=now):
            return device.authenticator
    recovery = Authenticator.objects.filter(user=user, type=Authenticator.Type.RECOVERY_CODES).first()
    if recovery is not None and recovery.wrap().validate_code(code):
        return recovery
    return None


def authenticator_of(*, user: User, authenticator_id: int | UUID) -> Authenticator | None:
    """Return the user's authenticator of that id, if it still exists."""
    return Authenticator.objects.filter(user=user, pk=authenticator_id).first()
