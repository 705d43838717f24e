"""The keys that sign access tokens: next, active and retired; their private halves are encrypted rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from django.db import connection, transaction
from django.db.models import Q
from jwt.algorithms import RSAAlgorithm

from apps.audit import services as audit
from apps.core import encryption
from apps.core.actor import Actor, system_actor
from apps.core.ids import uuid7
from apps.credentials.models import KeyState, SigningKey

RSA_BITS = 2048
# A token of a retired key may still be on its way; it lives ten minutes.
RETIRED_VERIFIES = timedelta(minutes=15)
KEY_KEPT = timedelta(minutes=1)
_LOCK = 0x6A776B73  # "jwks"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """The public half of a signing key, as it was when it was read."""

    key: RSAPublicKey
    retired_at: datetime | None
    read_at: datetime


_kept: dict[str, _Kept] = {}


def active_key(now: datetime) -> SigningKey:
    """Return the key that signs now; the first one is made when it is first needed."""
    return SigningKey.objects.filter(state=KeyState.ACTIVE).first() or _first_keys(now)


@transaction.atomic
def rotate_signing_keys(*, actor: Actor, now: datetime) -> SigningKey:
    """Make the next key active, retire the active one and make another next key, which is published beforehand."""
    _take_turns()
    active = SigningKey.objects.filter(state=KeyState.ACTIVE).first()
    upcoming = SigningKey.objects.filter(state=KeyState.NEXT).first() or _make(KeyState.NEXT, now)
    if active is not None:
        active.state, active.retired_at = KeyState.RETIRED, now
        active.save(update_fields=["state", "retired_at"])
    upcoming.state, upcoming.activated_at = KeyState.ACTIVE, now
    upcoming.save(update_fields=["state", "activated_at"])
    _make(KeyState.NEXT, now)
    audit.record(actor=actor, action="signing_key.rotated", target=upcoming)
    return upcoming


def published(now: datetime) -> list[dict[str, Any]]:
    """Return the public keys by which a token may be verified, as JWKs."""
    if not SigningKey.objects.exists():
        _first_keys(now)
    return [key.public_jwk for key in _verifying(now).order_by("created_at", "pk")]


def verifying_key(kid: str, now: datetime) -> RSAPublicKey | None:
    """Return the public key of an id, if tokens of it are accepted; asked for once a minute by each process.

    A retirement is therefore heeded up to a minute late, well within the time for which retired keys verify anyway.
    """
    kept = _kept.get(kid)
    if kept is None or not kept.read_at <= now < kept.read_at + KEY_KEPT:
        found = SigningKey.objects.exclude(state=KeyState.NEXT).filter(kid=kid).first()
        if found is None:
            return None
        key = RSAAlgorithm.from_jwk(json.dumps(found.public_jwk))
        assert isinstance(key, RSAPublicKey), "only public halves are published"
        kept = _kept[kid] = _Kept(key=key, retired_at=found.retired_at, read_at=now)
    if kept.retired_at is not None and now >= kept.retired_at + RETIRED_VERIFIES:
        return None
    return kept.key


def private_pem(key: SigningKey) -> bytes:
    """Return the private half, decrypted."""
    return encryption.decrypt(key.private_key).encode()


def private_half(key: SigningKey) -> RSAPrivateKey:
    """Return what signs with a key.

    Its numbers are our own, authenticated by their encryption; proving again that they are prime costs 60 ms a token.
    """
    private = load_pem_private_key(private_pem(key), None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(private, RSAPrivateKey), "only RSA keys are made"
    return private


@transaction.atomic
def reencrypt_signing_keys(*, actor: Actor) -> int:
    """Encrypt the private halves again with the newest key, where an older one did; return how many."""
    changed = 0
    for key in SigningKey.objects.select_for_update(no_key=True).order_by("pk"):
        renewed = encryption.renewed(key.private_key)
        if renewed != key.private_key:
            key.private_key = renewed
            key.save(update_fields=["private_key"])
            changed += 1
    if changed:
        audit.record(actor=actor, action="secrets.reencrypted", diff={"signing_keys": changed})
    return changed


def _verifying(now: datetime) -> Any:
    return SigningKey.objects.filter(Q(retired_at__isnull=True) | Q(retired_at__gt=now - RETIRED_VERIFIES))


@transaction.atomic
def _first_keys(now: datetime) -> SigningKey:
    _take_turns()
    found = SigningKey.objects.filter(state=KeyState.ACTIVE).first()
    return found or rotate_signing_keys(actor=system_actor("signing"), now=now)


def _make(state: KeyState, now: datetime) -> SigningKey:
    private = generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    kid = str(uuid7())
    jwk = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    jwk = {name: jwk[name] for name in ("kty", "n", "e")} | {"kid": kid, "alg": "RS256", "use": "sig"}
    return SigningKey.objects.create(
        kid=kid,
        state=state,
        private_key=encryption.encrypt(pem.decode("ascii")),
        public_jwk=jwk,
        created_at=now,
    )


def _take_turns() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
