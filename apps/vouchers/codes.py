"""The form of a voucher's code: `XXXX-XXXX-XXXX-XXXX`, fifteen random characters and one that checks them.

The alphabet leaves out 0, O, 1, I and L, which people confuse. What is left has 31 characters, a prime, so that a
weighted sum finds every single mistyped character and every two that changed places. Only a keyed hash is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from django.conf import settings

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
RANDOM_LENGTH = 15  # 74 bits.
LENGTH = RANDOM_LENGTH + 1
GROUP = 4
HINT_LENGTH = 4
TYPED_LENGTH_MAX = 64


def generate() -> str:
    """Return a new code as people read it."""
    random = "".join(secrets.choice(ALPHABET) for _place in range(RANDOM_LENGTH))
    code = random + _check_character(random)
    return "-".join(code[start : start + GROUP] for start in range(0, LENGTH, GROUP))


def normalize(typed: str) -> str | None:
    """Return the sixteen characters of what somebody typed, or None if it cannot be a code.

    Case, spaces and hyphens do not matter.
    """
    if len(typed) > TYPED_LENGTH_MAX:
        return None
    code = "".join(typed.upper().split()).replace("-", "")
    if len(code) != LENGTH or not set(code) <= set(ALPHABET):
        return None
    return code if code[-1] == _check_character(code[:-1]) else None


def digest(code: str) -> bytes:
    """Return what is stored of a normalized code: a hash under a secret that the database does not have."""
    return hmac.digest(settings.API_KEY_PEPPER, b"voucher:" + code.encode(), hashlib.sha256)


def _check_character(random: str) -> str:
    """Return the character that makes the weighted sum of all sixteen divisible by 31."""
    total = sum(place * ALPHABET.index(character) for place, character in enumerate(random, start=2))
    return ALPHABET[-total % len(ALPHABET)]
