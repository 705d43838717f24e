"""Making and changing users."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth as allauth_totp
from django.db import IntegrityError, transaction
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core.actor import Actor, system_actor
from apps.core.errors import Conflict
from apps.identity.models import MfaDevice, User
from apps.outbox import services as outbox


class EmailTaken(Conflict):
    """Another user has this address."""

    code = "email_taken"
    default_message = _("Somebody already uses this address.")


# What staff may change of a user; the address belongs to the person.
CHANGEABLE = ("name", "is_active", "is_staff", "is_superuser")


@transaction.atomic
def create_user(
    *,
    email: str,
    password: str | None = None,
    password_hash: str = "",
    name: str = "",
    verified: bool = True,
    actor: Actor | None = None,
    now: datetime,
) -> User:
    """Return a new user; without a password it can log in only after a reset. Raises EmailTaken.

    password_hash: instead of the password, one that is hashed already.
    verified: whether the address is known to be theirs; an unverified one must be confirmed before a login.
    """
    email = email.strip().lower()
    if User.objects.filter(email=email).exists():
        raise EmailTaken
    user = User(email=email, name=name, date_joined=now)
    if password_hash:
        user.password = password_hash
    else:
        user.set_password(password)
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError as error:  # Somebody else took the address since it was looked for.
        raise EmailTaken from error
    EmailAddress.objects.create(user=user, email=email, primary=True, verified=verified)
    audit.record(actor=actor or system_actor("identity"), action="user.created", target=user)
    outbox.publish("identity.user_created", {"id": user.pk})
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


@transaction.atomic
def note(*, actor: Actor, user: User, action: str, diff: Mapping[str, Any] | None = None) -> None:
    """Write down a change of somebody's account that a library made."""
    audit.record(actor=actor, action=action, target=user, diff=diff)
    outbox.publish(f"identity.{action.replace('.', '_')}", {"id": user.pk})
