"""The signing key of the development run, and keys derived from the signing key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sys
from pathlib import Path


def development_secret(folder: Path) -> str:
    """Return the secret kept in a folder, so that sessions and keys survive a restart of the development run."""
    path = folder / "secret_key"
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        pass
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(secrets.token_urlsafe(64), encoding="ascii")
    except FileExistsError:
        return development_secret(folder)
    except OSError as error:
        sys.exit(
            f"Cannot write {path}: {error.strerror}. Point COUNTINGHOUSE_VAR at a folder you can write to."
        )
    return path.read_text(encoding="ascii").strip()


def derived(secret_key: str, purpose: str) -> bytes:
    """Return a key for one purpose, from which the signing key cannot be found."""
    return hmac.new(secret_key.encode(), f"countinghouse:{purpose}".encode(), hashlib.sha256).digest()
