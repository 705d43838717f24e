"""What others may ask about people."""

from __future__ import annotations

from allauth.mfa.models import Authenticator

from apps.identity.models import User

# Authenticators that verify a session by themselves; recovery codes stand in for one of these.
VERIFYING_TYPES = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def has_second_factor(user: User) -> bool:
    """Return whether this user has enrolled a factor that can verify a session."""
    return bool(Authenticator.objects.filter(user_id=user.pk, type__in=VERIFYING_TYPES).exists())
