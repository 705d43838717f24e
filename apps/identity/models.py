"""Users, and the device that lets django-otp enforce the second factors that allauth stores."""

from __future__ import annotations

from base64 import b32decode
from datetime import datetime
from typing import Any, ClassVar, Self

from allauth.mfa.adapter import get_adapter as get_mfa_adapter
from allauth.mfa.models import Authenticator
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_otp.models import Device, ThrottlingMixin
from django_otp.oath import TOTP

from apps.core.ids import uuid7

# 2^(n-1) seconds after the nth wrong code in a row: at most 8 min 32 s, so nobody is locked out for good.
FAILURES_COUNTED_MAX = 10
TOTP_STEP_SECONDS = 30
TOTP_DIGITS = 6


def digits_of(code: str) -> str:
    """Return a code without the separators that people type."""
    return "".join(character for character in code if character.isascii() and character.isdigit())


class UserManager(BaseUserManager["User"]):
    """Finds users by address whatever its case."""

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email=(username or "").lower())

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Return a new user; `createsuperuser` and libraries call this, our code calls the service."""
        user = self.model(email=email.lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Return a new user with every right in the staff admin; the first login leads to TOTP enrolment."""
        return self.create_user(email, password, **{"is_staff": True, "is_superuser": True, **fields})


class User(AbstractBaseUser, PermissionsMixin):  # type: ignore[django-manager-missing] # django-otp has no types.
    """A person, known by an e-mail address that is stored in lower case."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.EmailField(
        _("e-mail address"), unique=True, error_messages={"unique": _("Somebody already uses this address.")}
    )
    name = models.CharField(_("name"), max_length=150, blank=True)
    is_staff = models.BooleanField(
        _("staff"), default=False, help_text=_("May open the staff admin, with a second factor.")
    )
    is_active = models.BooleanField(
        _("active"), default=True, help_text=_("Off: every session, token and key of this person stops.")
    )
    date_joined = models.DateTimeField(_("joined"), default=timezone.now)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = UserManager()

    class Meta:
        verbose_name = _("user")
        verbose_name_plural = _("users")
        constraints = [
            models.CheckConstraint(name="identity_user_email_lower", condition=Q(email=Lower("email"))),
        ]

    def __str__(self) -> str:
        return self.email

    def clean(self) -> None:
        """Lower the address, so that forms accept what the database would refuse."""
        super().clean()
        self.email = self.email.lower()

    def get_full_name(self) -> str:
        """Return the name, or else the address."""
        return self.name or self.email

    def get_short_name(self) -> str:
        """Return the first word of the name, or else the address."""
        return self.name.partition(" ")[0] or self.email


class MfaDeviceQuerySet(models.QuerySet["MfaDevice"]):
    """Devices in one order, so that two logins of one person lock them alike."""

    def devices_for_user(self, user: User, confirmed: bool | None = None) -> Self:
        """Return a person's devices; django-otp asks by this name. All are confirmed: allauth saves no others."""
        return self.none() if confirmed is False else self.filter(user=user)

    def locked_for(self, user: User) -> Self:
        """Return a person's devices with their rows locked."""
        return self.filter(user=user).select_for_update(no_key=True).order_by("pk")


class MfaDevice(ThrottlingMixin, Device):
    """What django-otp sees of a second factor; allauth keeps its secret, this row the throttle and last step.

    It dies with its authenticator, and a session verified by it with both.
    last_step: the newest 30-second TOTP step that was accepted; it and all before it are refused since.
    """

    authenticator = models.OneToOneField(Authenticator, models.CASCADE, related_name="device")
    last_step = models.BigIntegerField(default=0)

    throttling_failure_count: int  # From the mixin, which has no types.

    objects = MfaDeviceQuerySet.as_manager()

    class Meta(Device.Meta):
        verbose_name = _("second factor")
        verbose_name_plural = _("second factors")
        constraints = [
            models.CheckConstraint(name="identity_mfadevice_step_positive", condition=Q(last_step__gte=0)),
        ]

    def get_throttle_factor(self) -> int:
        """Return the seconds to wait after the first wrong code; each further one doubles them."""
        return 1

    def throttle_increment(self, commit: bool = True) -> None:
        """Count a wrong code, up to `FAILURES_COUNTED_MAX`."""
        super().throttle_increment(commit=False)
        self.throttling_failure_count = min(self.throttling_failure_count, FAILURES_COUNTED_MAX)
        if commit:
            self.save(update_fields=["throttling_failure_timestamp", "throttling_failure_count"])

    def locked_until(self) -> datetime | None:
        """Return when the next code may be tried, or None when at once."""
        allowed, why = self.verify_is_allowed()
        return None if allowed or why is None else why["locked_until"]

    def verify_token(self, token: str) -> bool:
        """Return whether the code holds, using it up; django-otp calls this with the row locked."""
        if self.locked_until() is not None:
            return False
        accepted = self.spend_code(token, now=timezone.now())
        if not accepted:
            self.throttle_increment()
        return accepted

    def spend_code(self, code: str, *, now: datetime) -> bool:
        """Return whether this is a TOTP code newer than every accepted one, and use it up.

        The caller holds the row's lock; separators in the code do not matter. Counts no failure, because the
        code may still be a recovery code.
        """
        digits = digits_of(code)
        if self.authenticator.type != Authenticator.Type.TOTP or len(digits) != TOTP_DIGITS:
            return False
        secret = get_mfa_adapter().decrypt(self.authenticator.data["secret"])
        totp = TOTP(b32decode(secret, casefold=True), step=TOTP_STEP_SECONDS, digits=TOTP_DIGITS)
        totp.time = now.timestamp()
        # One step either way covers a slow typist and a phone's clock, as RFC 6238 recommends.
        if not totp.verify(int(digits), tolerance=1, min_t=self.last_step + 1):
            return False
        self.last_step = totp.t()
        self.save(update_fields=["last_step"])
        return True


class TotpEnrolment(models.Model):
    """The secret of an authenticator that is being set up over REST, until its first code; encrypted."""

    user = models.OneToOneField(User, models.CASCADE, related_name="+", primary_key=True)
    secret = models.TextField(editable=False)
    created_at = models.DateTimeField(_("created"))

    class Meta:
        verbose_name = _("authenticator being set up")
        verbose_name_plural = _("authenticators being set up")

    def __str__(self) -> str:
        return str(self.user_id)


class SignUp(models.Model):
    """Somebody's wish for an account. It is no user until whoever reads the mail of its address confirms it.

    A row is written for addresses with and without an account alike, so that asking reveals nothing.
    password: hashed; emptied when the wish is confirmed.
    nonce: random; the token in the mail is made of it and a secret of the server.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.EmailField(_("e-mail address"))
    name = models.CharField(_("name"), max_length=150, blank=True)
    password = models.CharField(max_length=128, editable=False)
    nonce = models.BinaryField(max_length=32, editable=False)
    digest = models.BinaryField(_("hash"), max_length=32, unique=True, editable=False)
    created_at = models.DateTimeField(_("created"))
    expires_at = models.DateTimeField(_("expires"))
    mailed_at = models.DateTimeField(_("mailed"), null=True, blank=True)
    confirmed_at = models.DateTimeField(_("confirmed"), null=True, blank=True)

    class Meta:
        verbose_name = _("sign-up")
        verbose_name_plural = _("sign-ups")
        constraints = [
            models.CheckConstraint(name="identity_signup_email_lower", condition=Q(email=Lower("email"))),
            models.CheckConstraint(
                name="identity_signup_confirmed_keeps_no_password",
                condition=Q(confirmed_at__isnull=True) | Q(password=""),
            ),
        ]
        indexes = [
            models.Index(fields=["email", "mailed_at"], name="identity_signup_email"),
            models.Index(fields=["created_at"], name="identity_signup_created"),
        ]

    def __str__(self) -> str:
        return self.email


class PasswordReset(models.Model):
    """Somebody's wish for a new password, for an address with or without an account."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.EmailField(_("e-mail address"))
    created_at = models.DateTimeField(_("created"))
    mailed_at = models.DateTimeField(_("mailed"), null=True, blank=True)

    class Meta:
        verbose_name = _("password reset")
        verbose_name_plural = _("password resets")
        constraints = [
            models.CheckConstraint(
                name="identity_passwordreset_email_lower", condition=Q(email=Lower("email"))
            ),
        ]
        indexes = [
            models.Index(fields=["email", "mailed_at"], name="identity_passwordreset_email"),
            models.Index(fields=["created_at"], name="identity_passwordreset_created"),
        ]

    def __str__(self) -> str:
        return self.email
