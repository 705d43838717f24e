"""The form of a secret: `<prefix>_<marker>_<public id>_<random><crc>`, all letters and digits.

The marker is `live` for API keys and `int` for integrations, so that people and programs can tell them apart.

The public id finds the row. The checksum tells a mistyped or made-up secret before any query. Of the random part
only a keyed hash is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass

from django.conf import settings

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
PUBLIC_ID_LENGTH = 8
RANDOM_LENGTH = 43  # 256 bits.
CRC_LENGTH = 6  # 32 bits.
_FORM = re.compile(
    rf"[a-z][a-z0-9]{{0,9}}_(live|int)_([0-9A-Za-z]{{{PUBLIC_ID_LENGTH}}})"
    rf"_[0-9A-Za-z]{{{RANDOM_LENGTH + CRC_LENGTH}}}",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret that is shown once, and what is stored of it."""

    text: str
    public_id: str
    digest: bytes


def generate(marker: str, public_id: str = "") -> NewSecret:
    """Return a new secret; a rotation keeps the public id."""
    public_id = public_id or _characters(PUBLIC_ID_LENGTH)
    body = f"{settings.API_KEY_PREFIX}_{marker}_{public_id}_{_characters(RANDOM_LENGTH)}"
    text = body + _checksum(body)
    return NewSecret(text, public_id, digest(text))


def parse(text: str) -> tuple[str, str] | None:
    """Return marker and public id if the text has the form and the checksum of a secret, else None."""
    found = _FORM.fullmatch(text)
    if found is None or not hmac.compare_digest(_checksum(text[:-CRC_LENGTH]), text[-CRC_LENGTH:]):
        return None
    return found[1], found[2]


def digest(text: str) -> bytes:
    """Return what is stored of a secret. The pepper makes a stolen table useless; 256 random bits need no salt."""
    return hmac.new(settings.API_KEY_PEPPER, text.encode(), hashlib.sha256).digest()


def matches(text: str, stored: bytes | memoryview) -> bool:
    """Return whether a secret is the stored one, in constant time."""
    return hmac.compare_digest(digest(text), bytes(stored))


def _characters(count: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _place in range(count))


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    places = []
    for _place in range(CRC_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        places.append(ALPHABET[digit])
    return "".join(reversed(places))
