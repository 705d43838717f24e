"""What others may ask about people."""

from __future__ import annotations

from uuid import UUID

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator

from apps.identity.models import User

# Authenticators that verify a session by themselves; recovery codes stand in for one of these.
VERIFYING_TYPES = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def has_second_factor(user: User) -> bool:
    """Return whether this user has enrolled a factor that can verify a session."""
    return bool(Authenticator.objects.filter(user_id=user.pk, type__in=VERIFYING_TYPES).exists())


def verified_addresses(user_id: UUID) -> list[str]:
    """Return the addresses that a person has proved to be theirs, in lower case."""
    rows = EmailAddress.objects.filter(user_id=user_id, verified=True, user__is_active=True)
    return [email.lower() for email in rows.values_list("email", flat=True)]


def address_is_taken(email: str) -> bool:
    """Return whether an account has this address, given in lower case."""
    return User.objects.filter(email=email).exists() or bool(
        EmailAddress.objects.filter(email=email, verified=True).exists()
    )
