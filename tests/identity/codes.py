"""Codes as an authenticator app shows them."""

from __future__ import annotations

from base64 import b32decode
from datetime import datetime

from django_otp.oath import TOTP


def code_at(secret: str, moment: datetime) -> str:
    """Return the code that an authenticator shows at a moment."""
    totp = TOTP(b32decode(secret))
    totp.time = moment.timestamp()
    return f"{totp.token():06d}"
