"""Who a password belongs to."""

from __future__ import annotations

from allauth.account.auth_backends import AuthenticationBackend

from apps.identity.models import User


class AccountBackend(AuthenticationBackend):
    """Looks an address up in one query, known or not; an address that only waits to be confirmed logs nobody in."""

    def _authenticate_by_email(self, email: str, password: str) -> User | None:
        user: User | None = self._check_password(
            User.objects.filter(email=email.strip().lower()).first(), password
        )
        return user
