"""Secrets at rest: the newest of FIELD_ENCRYPTION_KEYS writes, every listed one reads."""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


def encrypt(text: str) -> str:
    """Return a text as it may be stored."""
    return _keys().encrypt(text.encode()).decode("ascii")


def decrypt(stored: str) -> str:
    """Return the text that was stored under any listed key."""
    return _keys().decrypt(stored.encode("ascii")).decode()


def renewed(stored: str) -> str:
    """Return what is stored encrypted with the newest key; the same where it is already."""
    try:
        Fernet(settings.FIELD_ENCRYPTION_KEYS[0]).decrypt(stored.encode("ascii"))
    except InvalidToken:
        return _keys().rotate(stored.encode("ascii")).decode("ascii")
    return stored


def _keys() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.FIELD_ENCRYPTION_KEYS])
