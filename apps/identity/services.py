"""Making users, and taking second factors so that no code passes twice."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from allauth.account.models import EmailAddress
from allauth.mfa.adapter import get_adapter as get_mfa_adapter
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth as allauth_totp
from django.db import transaction
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core.actor import Actor, system_actor
from apps.core.errors import Conflict, DomainError
from apps.identity.models import TOTP_STEP_SECONDS, MfaDevice, User
from apps.identity.selectors import VERIFYING_TYPES


class EmailTaken(Conflict):
    """Another user has this address."""

    code = "email_taken"
    default_message = _("Somebody already uses this address.")


class CodeRefused(DomainError):
    """The code is wrong, used, or of an authenticator that the user does not have."""

    code, http_status = "code_refused", 422
    default_message = _("This code is wrong or was used before. Wait for the next one.")


class CodesThrottled(DomainError):
    """Too many wrong codes in a row; `retry_after` says in how many seconds the next may be tried."""

    code, http_status = "rate_limited", 429
    default_message = _("Too many wrong codes. Wait a little before the next one.")


# What staff may change of a user; the address belongs to the person.
CHANGEABLE = ("name", "is_active", "is_staff", "is_superuser")


@transaction.atomic
def create_user(
    *,
    email: str,
    password: str | None = None,
    name: str = "",
    verified: bool = True,
    actor: Actor | None = None,
    now: datetime,
) -> User:
    """Return a new user; without a password it can log in only after a reset. Raises EmailTaken.

    verified: whether the address is known to be theirs; an unverified one must be confirmed before a login.
    """
    email = email.strip().lower()
    if User.objects.filter(email=email).exists():
        raise EmailTaken
    user = User(email=email, name=name, date_joined=now)
    user.set_password(password)
    user.save()
    EmailAddress.objects.create(user=user, email=email, primary=True, verified=verified)
    audit.record(actor=actor or system_actor("identity"), action="user.created", target=user)
    return user


@transaction.atomic
def change_user(*, actor: Actor, user_id: UUID, changes: Mapping[str, Any]) -> User:
    """Set some of `CHANGEABLE`, and `groups`, of a user, and record what was different before."""
    user = User.objects.select_for_update(no_key=True).get(pk=user_id)
    diff: dict[str, Any] = {}
    for name, value in changes.items():
        if name == "groups":
            before, after = (
                sorted(str(group) for group in user.groups.all()),
                sorted(str(group) for group in value),
            )
            user.groups.set(value)
        else:
            assert name in CHANGEABLE, "the form offers only these"
            before, after = getattr(user, name), value
            setattr(user, name, value)
        if before != after:
            diff[name] = [before, after]
    user.save()
    if diff:
        audit.record(actor=actor, action="user.changed", target=user, diff=diff)
    return user


@transaction.atomic
def create_staff(*, email: str, password: str, superuser: bool = True, now: datetime) -> tuple[User, str]:
    """Make this the staff user of that address with a new authenticator; return the user and its TOTP secret.

    A user who exists keeps their id; password, authenticator and recovery codes are replaced.
    The secret is base32, as authenticator apps take it, and is stored encrypted only.
    """
    email = email.strip().lower()
    user = User.objects.select_for_update(no_key=True).filter(email=email).first()
    if user is None:
        user = create_user(email=email, password=password, now=now)
    user.is_staff, user.is_superuser, user.is_active = True, superuser, True
    user.set_password(password)
    user.save()
    EmailAddress.objects.update_or_create(
        user=user,
        email=email,
        defaults={"verified": True},
        create_defaults={"verified": True, "primary": True},
    )
    Authenticator.objects.filter(user=user).delete()
    secret = allauth_totp.generate_totp_secret()
    authenticator = allauth_totp.TOTP.activate(user, secret).instance
    # No code was shown to enrol, so even the code of this very moment is still unused.
    MfaDevice.objects.create(user=user, authenticator=authenticator, name=authenticator.type, last_step=0)
    audit.record(actor=system_actor("bootstrap"), action="user.made_staff", target=user)
    return user, secret


@transaction.atomic
def set_password(*, email: str, password: str) -> User:
    """Give the user of that address a new password, which ends their sessions, and let them log in again."""
    user = User.objects.select_for_update(no_key=True).get(email=email.strip().lower())
    user.is_active = True
    user.set_password(password)
    user.save()
    EmailAddress.objects.update_or_create(
        user=user,
        email=user.email,
        defaults={"verified": True},
        create_defaults={"verified": True, "primary": True},
    )
    audit.record(actor=system_actor("bootstrap"), action="user.password_set", target=user)
    return user


def credentials_work(email: str, password: str) -> bool:
    """Return whether this address and password would log in, as far as the first factor goes."""
    user = User.objects.filter(email=email.strip().lower(), is_active=True).first()
    if user is None or not user.check_password(password):
        return False
    return bool(EmailAddress.objects.filter(user=user, email=user.email, verified=True).exists())


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


def take_code(*, user: User, code: str, now: datetime) -> Authenticator:
    """Use up one TOTP or recovery code of the user and return what accepted it; every door goes through here.

    Call it outside any transaction: a refusal must be counted although it is raised.
    Raises CodesThrottled without looking at the code, or CodeRefused.
    """
    if verifying_device(user) is None:
        raise CodeRefused
    with transaction.atomic(durable=True):
        devices = list(MfaDevice.objects.locked_for(user))
        throttle = devices[0]
        locked_until = throttle.locked_until()
        if locked_until is not None:
            raise CodesThrottled(retry_after=max(1, round((locked_until - now).total_seconds())))
        accepted = _accepting_authenticator(user, devices, code, now)
        if accepted is None:
            throttle.throttle_increment()
        elif throttle.throttling_failure_count:
            throttle.throttle_reset()
    if accepted is None:
        raise CodeRefused
    return accepted


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
