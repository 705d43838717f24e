"""What allauth asks us: who may sign up, what counts as step-up, how second factors are kept at rest."""

from __future__ import annotations

import time
from typing import Any

from allauth.account import app_settings
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.authentication import get_authentication_records
from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings
from django.http import HttpRequest

from apps.identity import selectors


class AccountAdapter(DefaultAccountAdapter):
    """Accounts are made by the operator and by `bootstrap`; signing up oneself is closed."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002 (allauth's signature)
        return False

    def get_reauthentication_methods(self, user: Any) -> list[dict[str, Any]]:
        """Return how the user may confirm a change; the password counts only where no factor exists."""
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        if user.is_authenticated and selectors.has_second_factor(user):
            return [method for method in methods if method["id"] != "reauthenticate"]
        return methods

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        """Return whether to ask again; somebody without a factor who has just logged in need not."""
        required: bool = super().is_reauthentication_required(app=app, **kwargs)
        request = context.request
        if not required or selectors.has_second_factor(request.user):
            return required
        records = get_authentication_records(request, request.user)
        return not any(
            time.time() - record["at"] < app_settings.REAUTHENTICATION_TIMEOUT for record in records
        )


class MFAAdapter(DefaultMFAAdapter):
    """Encrypts TOTP secrets and recovery seeds with the newest key and reads those of every listed key."""

    def encrypt(self, text: str) -> str:
        return _fernet().encrypt(text.encode()).decode("ascii")

    def decrypt(self, encrypted_text: str) -> str:
        return _fernet().decrypt(encrypted_text.encode("ascii")).decode()


def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.FIELD_ENCRYPTION_KEYS])
