"""Access and refresh tokens of people: login, rotation, step-up, logout."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
from allauth.account.models import EmailAddress
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from apps.audit import services as audit
from apps.core import metrics
from apps.core.actor import Actor, ActorKind
from apps.core.compiled import CompiledQuery
from apps.core.errors import FieldError, NotFound, Unauthenticated, ValidationFailed
from apps.core.http.address import limiting_address
from apps.core.ids import uuid7
from apps.credentials.models import RefreshToken, TokenFamily
from apps.credentials.selectors import REFRESH_IDLE_MAX
from apps.credentials.services.proving import TokenExpired, TokenInvalid
from apps.credentials.services.signing import active_key, private_half, verifying_key
from apps.identity import notices
from apps.identity import selectors as people
from apps.identity import services as identity
from apps.identity.models import User
from apps.limits import services as limits
from apps.notifications import services as notifications
from apps.organizations import selectors as organizations
from apps.organizations.models import Membership
from apps.outbox import services as outbox

ACCESS_LASTS = timedelta(minutes=10)
ABSOLUTE_MAX = timedelta(days=30)
AUDIENCE = "countinghouse-api"
TYPE = "at+jwt"
_EXAMPLE = {"sid": UUID(int=1), "sub": UUID(int=2)}


def _login(sid: UUID, sub: UUID, **place: Any) -> QuerySet[TokenFamily]:
    memberships = Membership.objects.filter(user_id=sub, **place)
    return TokenFamily.objects.with_place(memberships).filter(pk=sid, user_id=sub)


# A login with its person and their part in their default organization, or in the one that the request names.
_IN_DEFAULT = CompiledQuery(lambda sid, sub: _login(sid, sub, is_default=True), **_EXAMPLE)
_BY_ID = CompiledQuery(lambda sid, sub, pk: _login(sid, sub, organization_id=pk), pk=UUID(int=3), **_EXAMPLE)
_BY_SLUG = CompiledQuery(
    lambda sid, sub, slug: _login(sid, sub, organization__slugs__slug=slug), slug="example", **_EXAMPLE
)


class LoginRefused(Unauthenticated):
    """The address, the password or the code is wrong, or the address is not verified; which one stays untold."""

    code = "token_invalid"
    default_message = _("Address, password or code is wrong.")


class MfaRequired(Unauthenticated):
    """The password is right; send a code of the second factor as `otp` along with it.

    `details.methods` says what the person has: codes of `totp` and `recovery_code` go into `otp`, a `passkey` works
    on the login page only.
    """

    code = "mfa_required"
    default_message = _("Send a code of your second factor as well.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A pair to hand out; neither is kept in clear."""

    access_token: str
    refresh_token: str
    expires_in: int


def login(*, email: str, password: str, otp: str, address: str, user_agent: str, now: datetime) -> Tokens:
    """Return tokens for address, password and, where a second factor exists, a code of it.

    Call it outside any transaction: a wrong code is counted although it is refused. An unknown address costs the same
    query and the same password hash as a known one. Raises TooManyGuesses before it looks at the password.
    """
    guesser = (email.strip().lower(), limiting_address(address))
    limits.guard(limits.LOGIN, *guesser)
    verified = EmailAddress.objects.filter(user=OuterRef("pk"), email=F("user__email"), verified=True)
    user = User.objects.annotate(is_verified=Exists(verified)).filter(email=email.strip().lower()).first()
    if user is None:
        User().set_password(password)
        raise _refused("unknown_address", LoginRefused())
    if not user.check_password(password):
        raise _refused("wrong_password", LoginRefused())
    if not user.is_active or not user.is_verified:
        raise _refused("inactive_or_unverified", LoginRefused())
    factors = people.factors_of(user.pk)
    if factors.enabled:
        if not otp:
            raise MfaRequired(methods=factors.methods)
        try:
            identity.take_code(user=user, code=otp, address=address, browser=user_agent, now=now)
        except identity.CodeRefused as error:
            raise LoginRefused from error
    limits.forgive(limits.LOGIN, *guesser)
    with transaction.atomic():
        _tell_of_new_program(user, address, user_agent, now)
        family = TokenFamily.objects.create(
            user=user,
            password_stamp=user.get_session_auth_hash(),
            address=address,
            user_agent=user_agent[:200],
            created_at=now,
            last_used_at=now,
            stepped_up_at=now,
            expires_at=now + ABSOLUTE_MAX,
        )
        _tell(family, "token.issued", address)
        return _issue(family, now)


def refresh(*, refresh_token: str, address: str, now: datetime) -> Tokens:
    """Return a new pair for a refresh token and end that one; a token that comes twice ends its whole family."""
    digest = _digest(refresh_token)
    with transaction.atomic():
        found = RefreshToken.objects.filter(digest=digest).first()
        if found is None:
            raise _refused("unknown_refresh_token", TokenInvalid())
        # Whoever else refreshes with this token waits here and then finds it used.
        family = (
            TokenFamily.objects.select_for_update(no_key=True, of=("self",))
            .select_related("user")
            .get(pk=found.family_id)
        )
        found.refresh_from_db()
        if not _holds(family, now):
            raise _refused("login_ended", TokenInvalid())
        if now >= found.created_at + REFRESH_IDLE_MAX:
            raise _refused("refresh_token_expired", TokenExpired())
        if found.used_at is None:
            found.used_at = now
            found.save(update_fields=["used_at"])
            family.last_used_at = now
            family.save(update_fields=["last_used_at"])
            return _issue(family, now)
        # Committed although it is refused: the thief and the owner cannot be told apart.
        _revoke(family, now)
        _tell(family, "token.reused", address)
        notifications.queue_mail(
            template="credentials/mail/token_reused",
            to=[family.user.email],
            context={
                "began_at": family.created_at.isoformat(),
                "address": family.address,
                "link": f"{settings.PUBLIC_URL}{reverse('account_change_password')}",
            },
            user_id=family.user_id,
            cause=f"credentials.token_reused:{family.id}",
            now=now,
        )
    raise _refused("refresh_token_reused", TokenInvalid())


@transaction.atomic
def logout(*, family: TokenFamily, address: str, now: datetime) -> None:
    """End the tokens of one login."""
    found = TokenFamily.objects.select_for_update(no_key=True).get(pk=family.pk)
    if found.revoked_at is None:
        _revoke(found, now)
        _tell(found, "token.revoked", address)


@transaction.atomic
def end_login(*, actor: Actor, login_id: UUID, now: datetime) -> None:
    """End the tokens of one of a person's own logins, by whichever of them; NotFound for any other."""
    rows = TokenFamily.objects.select_for_update(no_key=True, of=("self",)).select_related("user")
    found = rows.filter(pk=login_id, user_id=actor.person_id).first()
    if found is None:
        raise NotFound
    if found.revoked_at is None:
        _revoke(found, now)
        _tell(found, "token.revoked", actor.address)


@transaction.atomic
def end_logins(*, actor: Actor, now: datetime) -> None:
    """End the tokens of every login of a person over REST."""
    rows = TokenFamily.objects.select_for_update(no_key=True, of=("self",)).select_related("user")
    for found in rows.filter(user_id=actor.person_id, revoked_at=None, expires_at__gt=now).order_by("pk"):
        _revoke(found, now)
        _tell(found, "token.revoked", actor.address)


def step_up(*, family: TokenFamily, otp: str, password: str, address: str, now: datetime) -> None:
    """Note that the person has just proved themselves; the password counts only where no second factor exists.

    Call it outside any transaction: a wrong code is counted although it is refused. Raises TooManyGuesses.
    """
    if people.has_second_factor(family.user):
        if not otp:
            message = str(_("Send a code of your second factor."))
            raise ValidationFailed(fields=[FieldError(path="otp", code="required", message=message)])
        identity.take_code(user=family.user, code=otp, address=address, browser=family.user_agent, now=now)
    else:
        with limits.guess(limits.LOGIN, family.user.email, limiting_address(address)):
            if not password or not family.user.check_password(password):
                message = str(_("This is not your password."))
                refusal = ValidationFailed(
                    fields=[FieldError(path="password", code="invalid", message=message)]
                )
                raise _refused("wrong_password", refusal)
    with transaction.atomic():
        found = TokenFamily.objects.select_for_update(no_key=True).get(pk=family.pk)
        found.stepped_up_at = now
        found.save(update_fields=["stepped_up_at"])
        _tell(found, "token.stepped_up", address)


def authenticate_access_token(
    token: str, *, address: str, now: datetime, organization: str = ""
) -> tuple[TokenFamily, Actor]:
    """Return the login behind an access token, and the person; TokenInvalid or TokenExpired.

    organization: the id or slug that the request names, if it does; the login brings the person's place there along.

    The row of the login decides at each request: revoked, inactive, or a changed password end the token at once.
    """
    claims = _claims(token, now)
    family = _find(claims, organization)
    if family is None or not _holds(family, now):
        raise _refused("login_ended", TokenInvalid())
    return family, Actor(
        kind=ActorKind.USER,
        id=family.user_id,
        label=family.user.email,
        credential_id=family.id,
        address=address,
        stepped_up_at=family.stepped_up_at,
    )


def _find(claims: dict[str, UUID], organization: str) -> TokenFamily | None:
    if not organization:
        return _IN_DEFAULT.find(**claims)
    if pk := organizations.id_in(organization):
        return _BY_ID.find(pk=pk, **claims)
    return _BY_SLUG.find(slug=organization.replace("\x00", ""), **claims)


def _claims(token: str, now: datetime) -> dict[str, UUID]:
    try:
        header = jwt.get_unverified_header(token)
        if header.get("typ") != TYPE or header.get("alg") != "RS256" or "crit" in header:
            raise _refused("access_token_invalid", TokenInvalid())
        key = verifying_key(str(header.get("kid")), now)
        if key is None:
            raise _refused("access_token_invalid", TokenInvalid())
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=["RS256"],
            audience=AUDIENCE,
            issuer=settings.PUBLIC_URL,
            options={"require": ["exp", "iat", "nbf", "iss", "aud", "sub", "sid"]},
        )
        return {"sub": UUID(claims["sub"]), "sid": UUID(claims["sid"])}
    except jwt.ExpiredSignatureError as error:
        raise _refused("access_token_expired", TokenExpired()) from error
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
        raise _refused("access_token_invalid", TokenInvalid()) from error


def _refused[E: Exception](reason: str, error: E) -> E:
    return metrics.failed_authentication(metrics.PERSON, reason, error)


def _issue(family: TokenFamily, now: datetime) -> Tokens:
    refresh_token = f"{settings.API_KEY_PREFIX}_refresh_{secrets.token_urlsafe(32)}"
    RefreshToken.objects.create(family=family, digest=_digest(refresh_token), created_at=now)
    key = active_key(now)
    moment = int(now.timestamp())
    claims = {
        "iss": settings.PUBLIC_URL,
        "aud": AUDIENCE,
        "sub": str(family.user_id),
        "sid": str(family.id),
        "jti": str(uuid7()),
        "iat": moment,
        "nbf": moment,
        "exp": moment + int(ACCESS_LASTS.total_seconds()),
    }
    access_token = jwt.encode(
        claims, private_half(key), algorithm="RS256", headers={"typ": TYPE, "kid": key.kid}
    )
    return Tokens(
        access_token=access_token,
        refresh_token=refresh_token,
        expires_in=int(ACCESS_LASTS.total_seconds()),
    )


def _tell_of_new_program(user: User, address: str, user_agent: str, now: datetime) -> None:
    """Mail a login by a program that its person has not used before, but for a first login of all."""
    logins = TokenFamily.objects.filter(user=user)
    if logins.filter(user_agent=user_agent[:200]).exists():
        return
    if user.last_login is not None or logins.exists():
        notices.tell_of_change(
            user=user,
            to=user.email,
            change="new_program",
            details={},
            address=address,
            browser=user_agent,
            now=now,
        )


def _holds(family: TokenFamily, now: datetime) -> bool:
    return (
        family.revoked_at is None
        and now < family.expires_at
        and family.user.is_active
        and family.knows_password()
    )


def _revoke(family: TokenFamily, now: datetime) -> None:
    family.revoked_at = now
    family.save(update_fields=["revoked_at"])


def _digest(token: str) -> bytes:
    return hmac.new(settings.API_KEY_PEPPER, b"refresh:" + token.encode(), hashlib.sha256).digest()


def _tell(family: TokenFamily, action: str, address: str) -> None:
    user = family.user
    actor = Actor(kind=ActorKind.USER, id=user.pk, label=user.email, credential_id=family.id, address=address)
    audit.record(actor=actor, action=action, target=family)
    outbox.publish(f"credentials.{action.replace('.', '_')}", {"id": family.id, "user": user.pk})
