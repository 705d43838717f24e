"""Adding and removing second factors over REST; the pages are allauth's."""

from __future__ import annotations

from base64 import b32decode
from dataclasses import dataclass
from datetime import datetime, timedelta

from allauth.mfa.adapter import get_adapter as get_mfa_adapter
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal import auth as allauth_totp
from django.db import transaction
from django.utils.translation import gettext_lazy as _
from django_otp.oath import TOTP

from apps.audit import services as audit
from apps.core import encryption
from apps.core.actor import Actor
from apps.core.errors import Conflict
from apps.core.http.address import limiting_address
from apps.identity import notices, selectors
from apps.identity.models import TOTP_DIGITS, TOTP_STEP_SECONDS, MfaDevice, TotpEnrolment, User, digits_of
from apps.identity.services.codes import CodeRefused, take_code
from apps.identity.services.people import note
from apps.limits import services as limits

ENROLMENT_LASTS = timedelta(minutes=30)


class TotpExists(Conflict):
    """The user has an authenticator app already; it is removed before another is added."""

    code = "totp_exists"
    default_message = _("There is an authenticator already. Remove it before you set up another one.")


class TotpNotBegun(Conflict):
    """No secret waits for its first code: none was made, or it is more than 30 minutes old."""

    code = "totp_not_begun"
    default_message = _("No authenticator is being set up. Begin with POST /mfa/totp.")


class NoSecondFactor(Conflict):
    """Recovery codes stand in for a second factor, and there is none."""

    code = "no_second_factor"
    default_message = _("Set up an authenticator or a passkey first.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TotpOffer:
    """What an authenticator app needs: the secret by itself, as a link and as a picture."""

    secret: str
    otpauth_uri: str
    qr_svg: str


@transaction.atomic
def begin_totp(*, actor: Actor, now: datetime) -> TotpOffer:
    """Make a secret that becomes the person's authenticator with its first code; the one made before is forgotten."""
    user = _lock(actor)
    if Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).exists():
        raise TotpExists
    secret = allauth_totp.generate_totp_secret()
    kept = get_mfa_adapter().encrypt(secret)
    TotpEnrolment.objects.update_or_create(user=user, defaults={"secret": kept, "created_at": now})
    uri = get_mfa_adapter().build_totp_url(user, secret)
    return TotpOffer(secret=secret, otpauth_uri=uri, qr_svg=get_mfa_adapter().build_totp_svg(uri))


def verify_totp(*, actor: Actor, code: str, browser: str, now: datetime) -> list[str]:
    """Make the begun authenticator the person's own and return new recovery codes, or none where there are some.

    Call it outside any transaction: a wrong code is counted although it is refused. The right one is used up.
    Raises TooManyGuesses, TotpNotBegun, TotpExists or CodeRefused.
    """
    with limits.guess(limits.OTP, str(actor.person_id), limiting_address(actor.address)):
        return _verify_totp(actor=actor, code=code, browser=browser, now=now)


@transaction.atomic
def _verify_totp(*, actor: Actor, code: str, browser: str, now: datetime) -> list[str]:
    user = _lock(actor)
    begun = TotpEnrolment.objects.filter(user=user, created_at__gt=now - ENROLMENT_LASTS).first()
    if begun is None:
        raise TotpNotBegun
    if Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).exists():
        raise TotpExists
    secret = get_mfa_adapter().decrypt(begun.secret)
    totp = TOTP(b32decode(secret, casefold=True), step=TOTP_STEP_SECONDS, digits=TOTP_DIGITS)
    totp.time = now.timestamp()
    digits = digits_of(code)
    if len(digits) != TOTP_DIGITS or not totp.verify(int(digits), tolerance=1):
        raise CodeRefused
    begun.delete()
    authenticator = allauth_totp.TOTP.activate(user, secret).instance
    MfaDevice.objects.create(
        user=user, authenticator=authenticator, name=authenticator.type, last_step=totp.t()
    )
    _tell(actor, user, "mfa.totp_added", "totp_activated", browser, now)
    if Authenticator.objects.filter(user=user, type=Authenticator.Type.RECOVERY_CODES).exists():
        return []
    return _new_recovery_codes(user)


def remove_totp(*, actor: Actor, code: str, browser: str, now: datetime) -> None:
    """Remove the person's authenticator app for a code of it or a recovery code, and the codes with the last factor.

    Call it outside any transaction: a wrong code is counted although it is refused.
    Raises NoSecondFactor where there is no such authenticator, CodesThrottled or CodeRefused.
    """
    user = User.objects.get(pk=actor.person_id)
    if not Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).exists():
        raise NoSecondFactor
    take_code(user=user, code=code, address=actor.address, browser=browser, now=now)
    with transaction.atomic():
        user = _lock(actor)
        removed, _rows = Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).delete()
        if not selectors.has_second_factor(user):
            Authenticator.objects.filter(user=user).delete()
        if removed:
            _tell(actor, user, "mfa.totp_removed", "totp_deactivated", browser, now)


@transaction.atomic
def renew_recovery_codes(*, actor: Actor, browser: str, now: datetime) -> list[str]:
    """Replace the person's recovery codes and return the new ones, which are shown this once."""
    user = _lock(actor)
    if not selectors.has_second_factor(user):
        raise NoSecondFactor
    Authenticator.objects.filter(user=user, type=Authenticator.Type.RECOVERY_CODES).delete()
    codes = _new_recovery_codes(user)
    _tell(actor, user, "mfa.recovery_codes_renewed", "recovery_codes_generated", browser, now)
    return codes


@transaction.atomic
def reencrypt_factors(*, actor: Actor) -> int:
    """Encrypt every secret of a factor again with the newest key, where an older one did; return how many."""
    changed = 0
    for factor in Authenticator.objects.select_for_update(no_key=True).order_by("pk").iterator():
        renewed = {
            name: encryption.renewed(value) if name in {"secret", "seed"} else value
            for name, value in factor.data.items()
        }
        if renewed != factor.data:
            factor.data = renewed
            factor.save(update_fields=["data"])
            changed += 1
    for begun in TotpEnrolment.objects.select_for_update(no_key=True).order_by("pk"):
        secret = encryption.renewed(begun.secret)
        if secret != begun.secret:
            begun.secret = secret
            begun.save(update_fields=["secret"])
            changed += 1
    if changed:
        audit.record(actor=actor, action="secrets.reencrypted", diff={"second_factors": changed})
    return changed


def _tell(actor: Actor, user: User, action: str, change: str, browser: str, now: datetime) -> None:
    note(actor=actor, user=user, action=action)
    notices.tell_of_change(
        user=user, to=user.email, change=change, details={}, address=actor.address, browser=browser, now=now
    )


def _lock(actor: Actor) -> User:
    return User.objects.select_for_update(no_key=True).get(pk=actor.person_id)


def _new_recovery_codes(user: User) -> list[str]:
    made = RecoveryCodes.activate(user)
    made.mark_as_viewed()  # They are in the answer, so the page never shows them.
    codes: list[str] = made.generate_codes()
    return codes
