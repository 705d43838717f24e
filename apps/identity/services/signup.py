"""Signing up: anybody may ask, and only who reads the mail of the address learns what came of it (ADR 0024)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.urls import reverse
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from apps.core import jobs, links
from apps.core.actor import Actor, ActorKind
from apps.core.errors import FieldError, NotFound, PermissionDenied, ValidationFailed
from apps.core.http.address import limiting_address
from apps.identity import selectors
from apps.identity.models import PasswordReset, SignUp, User
from apps.identity.services.people import create_user, note
from apps.limits import services as limits
from apps.notifications import services as notifications

LASTS = timedelta(days=3)
# To one address: enough for somebody who loses a mail, too few to flood somebody else.
MAILS_PER_HOUR_MAX = 5
FORGOTTEN_AFTER = timedelta(days=7)
_LOST_AFTER = timedelta(minutes=1)
_NAME_LENGTH_MAX = 150
_EMAIL_LENGTH_MAX = 254


class SignUpClosed(PermissionDenied):
    """The operator makes accounts; signing up oneself is switched off (SIGNUP_OPEN)."""

    code = "signup_closed"
    default_message = _("Signing up is closed. Ask the operator for an account.")


def request_sign_up(
    *, email: str, password: str, name: str = "", invite: str = "", address: str = "", now: datetime
) -> SignUp:
    """Note the wish for an account; what becomes of it is decided when its mail is written.

    The same queries and one password hash whether the address has an account or not. Call it outside any transaction.
    invite: the token of one; while sign-up is closed, whoever was invited can make the account that it needs.
    Raises SignUpClosed, TooManyGuesses, or ValidationFailed for an address, name or password that nobody may have.
    """
    if not may_sign_up(invite, now=now):
        raise SignUpClosed
    email, name = email.strip().lower(), " ".join(name.split())
    limits.guard(limits.SIGN_UP, email, limiting_address(address))
    limits.guard(limits.MAILS, limiting_address(address))
    if not settings.SIGNUP_OPEN and email != _invited_address(invite, now):
        message = str(_("Sign up with the address that the invite was sent to."))
        raise ValidationFailed(fields=[FieldError(path="email", code="invalid", message=message)])
    if problems := [*_wrong_email(email), *wrong_name(name), *_wrong_password(email, name, password)]:
        raise ValidationFailed(fields=problems)
    wish = SignUp(
        email=email,
        name=name,
        password=make_password(password),
        nonce=links.new_nonce(),
        created_at=now,
        expires_at=now + LASTS,
    )
    wish.digest = links.digest_of(token_of(wish))
    with transaction.atomic():
        wish.save(force_insert=True)
        jobs.enqueue("identity.mail_sign_up", sign_up_id=wish.id)
    return wish


def may_sign_up(invite: str, *, now: datetime) -> bool:
    """Return whether an account may be asked for: by anybody (SIGNUP_OPEN), or by the token of an open invite."""
    return bool(settings.SIGNUP_OPEN) or _invited_address(invite, now) is not None


def mail_sign_up(*, sign_up_id: UUID, now: datetime) -> None:
    """Mail the link of a sign-up or, where the address has an account, say so; once, and not too often."""
    wish = SignUp.objects.filter(
        pk=sign_up_id, mailed_at__isnull=True, confirmed_at__isnull=True, expires_at__gt=now
    ).first()
    if wish is None:
        return
    lately = SignUp.objects.filter(email=wish.email, mailed_at__gt=now - timedelta(hours=1))
    if lately.count() >= MAILS_PER_HOUR_MAX:
        SignUp.objects.filter(pk=wish.pk).delete()
        return
    # Sent before it is marked: two mails are better than none.
    if selectors.address_is_taken(wish.email):
        mail_account_exists(wish.email)
    else:
        path = reverse("sign-up-confirm", args=[token_of(wish)])
        notifications.deliver_mail(
            template="identity/mail/confirm_sign_up",
            to=[wish.email],
            context={"email": wish.email, "name": wish.name, "link": f"{settings.PUBLIC_URL}{path}"},
        )
    SignUp.objects.filter(pk=wish.pk).update(mailed_at=now)


def mail_account_exists(email: str) -> None:
    """Tell the owner of an address that somebody tried to sign up with it."""
    notifications.deliver_mail(
        template="identity/mail/account_exists",
        to=[email],
        context={
            "login": f"{settings.PUBLIC_URL}{reverse('account_login')}",
            "reset": f"{settings.PUBLIC_URL}{reverse('account_reset_password')}",
        },
    )


def find_sign_up(token: str, *, now: datetime) -> SignUp:
    """Return the sign-up that waits under a token, or raise NotFound."""
    if len(token) > links.TOKEN_LENGTH_MAX:
        raise NotFound
    waiting = SignUp.objects.filter(confirmed_at__isnull=True, expires_at__gt=now)
    found = waiting.filter(digest=links.digest_of(token)).first()
    if found is None:
        raise NotFound
    return found


def confirm_sign_up(*, token: str, password: str | None, address: str, now: datetime) -> User:
    """Make the user, whose address is now theirs, and whatever a new person begins with; once.

    password: as typed again where the link was opened; None where the same browser asked for the account. Without it
    somebody could ask in another's name, and log in once that other person follows the link.
    Call it outside any transaction: a wrong password is counted although it is refused.
    Raises NotFound for a link that is unknown, old or used, TooManyGuesses, ValidationFailed, or EmailTaken.
    """
    wish = find_sign_up(token, now=now)
    if password is not None:
        with limits.guess(limits.LOGIN, wish.email, limiting_address(address)):
            if not check_password(password, wish.password):
                message = str(_("This is not the password that the account was asked for with."))
                raise ValidationFailed(fields=[FieldError(path="password", code="invalid", message=message)])
    return _make_user(wish, address, now)


@transaction.atomic
def _make_user(wish: SignUp, address: str, now: datetime) -> User:
    wish = _lock(wish)
    actor = Actor(kind=ActorKind.SYSTEM, id=None, label="sign-up", address=address)
    user = create_user(email=wish.email, password_hash=wish.password, name=wish.name, actor=actor, now=now)
    wish.confirmed_at, wish.password = now, ""
    wish.save(update_fields=["confirmed_at", "password"])
    SignUp.objects.filter(email=wish.email, confirmed_at__isnull=True).delete()
    person_arrives()(user=user, now=now)
    return user


@transaction.atomic
def welcome(*, actor: Actor, user: User, provider: str, now: datetime) -> None:
    """Write down a person whom a login provider vouches for, and give them whatever a new person begins with."""
    note(actor=actor, user=user, action="user.created", diff={"provider": provider})
    person_arrives()(user=user, now=now)


def token_of(wish: SignUp) -> str:
    """Return the token of a sign-up, which is in its mail and nowhere else."""
    return links.token_of("sign-up", wish.nonce)


def unmailed_sign_ups(*, now: datetime) -> list[UUID]:
    """Return the sign-ups whose mail a crash may have lost."""
    lost = SignUp.objects.filter(
        mailed_at__isnull=True,
        confirmed_at__isnull=True,
        created_at__lt=now - _LOST_AFTER,
        expires_at__gt=now,
    )
    return list(lost.order_by("pk").values_list("pk", flat=True)[:100])


def forget_old_requests(*, now: datetime) -> None:
    """Delete what people asked for more than a week ago: addresses of whom nothing may have become."""
    for wishes in (SignUp, PasswordReset):
        wishes._default_manager.filter(created_at__lt=now - FORGOTTEN_AFTER).delete()


def person_arrives() -> Callable[..., None]:
    """Return what settings.PERSON_ARRIVES names: what a person with a proved address begins with."""
    return cast("Callable[..., None]", import_string(settings.PERSON_ARRIVES))


def _invited_address(token: str, now: datetime) -> str | None:
    find = cast("Callable[..., str | None]", import_string(settings.INVITED_ADDRESS))
    return find(token, now=now) if token else None


def _lock(wish: SignUp) -> SignUp:
    """Return the row as it is now; every wish for its address is locked, so that two confirmed at once wait."""
    rows = SignUp.objects.filter(email=wish.email).select_for_update(no_key=True).order_by("pk")
    found = next((row for row in rows if row.pk == wish.pk and row.confirmed_at is None), None)
    if found is None:
        raise NotFound
    return found


def _wrong_email(email: str) -> list[FieldError]:
    try:
        validate_email(email)
    except ValidationError:
        message = str(_("This is not an e-mail address."))
    else:
        if len(email) <= _EMAIL_LENGTH_MAX:
            return []
        message = str(_("This address is too long."))
    return [FieldError(path="email", code="invalid", message=message)]


def wrong_name(name: str) -> list[FieldError]:
    """Return what is wrong with a person's name; none at all is fine."""
    if len(name) <= _NAME_LENGTH_MAX and name.isprintable():
        return []
    message = str(_("A name has up to 150 characters, none of them control characters."))
    return [FieldError(path="name", code="invalid", message=message)]


def _wrong_password(email: str, name: str, password: str) -> list[FieldError]:
    try:
        validate_password(password, User(email=email, name=name))
    except ValidationError as error:
        return [
            FieldError(path="password", code=problem.code or "invalid", message=" ".join(problem.messages))
            for problem in error.error_list
        ]
    return []
