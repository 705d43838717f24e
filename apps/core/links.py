"""Links that prove an address: the token stands in the mail only, the row has its hash (ADR 0016)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from django.conf import settings

TOKEN_LENGTH_MAX = 64


def new_nonce() -> bytes:
    """Return what a token is made of, to be stored beside its hash."""
    return secrets.token_bytes(32)


def token_of(purpose: str, nonce: bytes | memoryview) -> str:
    """Return the token of a nonce: 256 bits that neither the row nor the server's secret has alone."""
    made = hmac.new(settings.API_KEY_PEPPER, f"{purpose}:".encode() + bytes(nonce), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def digest_of(token: str) -> bytes:
    """Return the hash by which the row of a token is found."""
    return hashlib.sha256(token.encode()).digest()
