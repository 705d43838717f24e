"""What others may ask about people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.utils.module_loading import import_string

from apps.identity.models import User

# Authenticators that verify a session by themselves; recovery codes stand in for one of these.
VERIFYING_TYPES = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def has_second_factor(user: User | AnonymousUser) -> bool:
    """Return whether this person, who has none while unknown, has enrolled a factor that can verify a session."""
    return bool(Authenticator.objects.filter(user_id=user.pk, type__in=VERIFYING_TYPES).exists())


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """A person's second factors; of recovery codes, how many are left of how many."""

    totp: Authenticator | None
    passkeys: Sequence[Authenticator]
    recovery_codes: tuple[int, int] | None

    @property
    def enabled(self) -> bool:
        """Whether a login needs more than the password."""
        return self.totp is not None or bool(self.passkeys)

    @property
    def methods(self) -> list[str]:
        """What can be shown beside the password: `totp`, `recovery_code`, `passkey`."""
        has = {
            "totp": self.totp is not None,
            "recovery_code": self.recovery_codes is not None and self.recovery_codes[0] > 0,
            "passkey": bool(self.passkeys),
        }
        return [method for method, is_there in has.items() if is_there]


def factors_of(user_id: UUID) -> Factors:
    """Return what a person has enrolled, in one query."""
    found = list(Authenticator.objects.filter(user_id=user_id).order_by("created_at", "pk"))
    codes = next((row.wrap() for row in found if row.type == Authenticator.Type.RECOVERY_CODES), None)
    return Factors(
        totp=next((row for row in found if row.type == Authenticator.Type.TOTP), None),
        passkeys=[row for row in found if row.type == Authenticator.Type.WEBAUTHN],
        recovery_codes=(len(codes.get_unused_codes()), len(codes.generate_codes())) if codes else None,
    )


def programs_of(user_id: UUID, *, now: datetime) -> Sequence[Any]:
    """Return the programs that are logged in as a person over REST, as settings.PERSON_PROGRAMS tells of them."""
    find = cast("Callable[..., Sequence[Any]]", import_string(settings.PERSON_PROGRAMS))
    return find(user_id, now=now)


def users_with_second_factor(user_ids: Iterable[UUID]) -> set[UUID]:
    """Return those of these users who have enrolled a factor that can verify a session."""
    rows = Authenticator.objects.filter(user_id__in=list(user_ids), type__in=VERIFYING_TYPES)
    return set(rows.values_list("user_id", flat=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginProvider:
    """A login provider that the operator offers; `account_id` where the person has connected it."""

    provider: Any
    account_id: int | None


def providers_of(request: HttpRequest) -> list[LoginProvider]:
    """Return the login providers that are configured, with what the person has connected."""
    accounts = dict(SocialAccount.objects.filter(user_id=request.user.pk).values_list("provider", "pk"))
    offered = get_adapter().list_providers(request)
    return [LoginProvider(provider=one, account_id=accounts.get(one.sub_id)) for one in offered]


def verified_addresses(user_id: UUID) -> list[str]:
    """Return the addresses that a person has proved to be theirs, in lower case."""
    rows = EmailAddress.objects.filter(user_id=user_id, verified=True, user__is_active=True)
    return [email.lower() for email in rows.values_list("email", flat=True)]


def address_is_taken(email: str) -> bool:
    """Return whether an account has this address, given in lower case."""
    return User.objects.filter(email=email).exists() or bool(
        EmailAddress.objects.filter(email=email, verified=True).exists()
    )
