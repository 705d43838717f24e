"""What people change about their own accounts: the name, where they are logged in, and that there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import cast

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from apps.core.actor import Actor
from apps.core.errors import Conflict, NotFound, ValidationFailed
from apps.identity.models import PasswordReset, SignUp, TotpEnrolment, User
from apps.identity.services.people import note
from apps.identity.services.signup import wrong_name
from apps.notifications import services as notifications


class StaffAccount(Conflict):
    """The account of a member of the operator's staff; the operator switches it off."""

    code = "staff_account"
    default_message = _("Staff accounts are switched off by the operator, not deleted.")


@transaction.atomic
def change_profile(*, actor: Actor, name: str) -> User:
    """Change a person's own name; none at all is fine."""
    name = " ".join(name.split())
    if problems := wrong_name(name):
        raise ValidationFailed(fields=problems)
    user = User.objects.select_for_update(no_key=True).get(pk=actor.person_id)
    if user.name != name:
        diff = {"name": [user.name, name]}
        user.name = name
        user.save(update_fields=["name"])
        note(actor=actor, user=user, action="user.profile_changed", diff=diff)
    return user


@transaction.atomic
def end_session(*, actor: Actor, session_id: int) -> None:
    """Log a person's own browser out; it is refused at its next request."""
    found = UserSession.objects.filter(user_id=actor.person_id, pk=session_id).first()
    if found is None:
        raise NotFound
    _end(actor, [found])


@transaction.atomic
def end_other_logins(*, actor: Actor, session_key: str, now: datetime) -> None:
    """Log a person out everywhere but in the session of this key: every browser, and every program over REST."""
    own = UserSession.objects.filter(user_id=actor.person_id).exclude(session_key=session_key)
    _end(actor, list(own.order_by("pk")))
    cast("Callable[..., None]", import_string(settings.PERSON_PROGRAMS_END))(actor=actor, now=now)


@transaction.atomic
def delete_account(*, actor: Actor, now: datetime) -> None:
    """End a person's account: what it says about them goes, what accounting and audit say of its acts stays.

    The row stays without address, name and password, because others refer to it; the address is free again.
    Raises StaffAccount, or what settings.PERSON_LEAVES has against it.
    """
    user = User.objects.select_for_update(no_key=True).get(pk=actor.person_id)
    if user.is_staff or user.is_superuser:
        raise StaffAccount
    email = user.email
    cast("Callable[..., None]", import_string(settings.PERSON_LEAVES))(actor=actor, user=user, now=now)
    _end(actor, list(UserSession.objects.filter(user=user).order_by("pk")))
    for belongings in (Authenticator, TotpEnrolment, SocialAccount, EmailAddress):
        belongings.objects.filter(user=user).delete()
    for wishes in (SignUp, PasswordReset):
        wishes._default_manager.filter(email=email).delete()
    user.email = f"{user.pk.hex}@deleted.invalid"
    user.name, user.is_active = "", False
    user.set_unusable_password()
    user.save()
    note(actor=actor, user=user, action="user.deleted")
    _say_farewell(actor, user, email, now=now)
    notifications.forget_recipient(address=email, user_id=user.pk)


def _say_farewell(actor: Actor, user: User, email: str, *, now: datetime) -> None:
    notifications.queue_mail(
        template="identity/mail/account_deleted",
        to=[email],
        context={"email": email, "at": now.isoformat(), "address": actor.address},
        cause=f"identity.account_deleted:{user.pk}",
        now=now,
    )


def _end(actor: Actor, ended: Iterable[UserSession]) -> None:
    for session in ended:
        diff = {"address": session.ip, "browser": session.user_agent}
        session.end()
        note(actor=actor, user=session.user, action="session.ended", diff=diff)
