"""Keeping and finding answers by idempotency key."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection
from django.utils.translation import gettext_lazy as _

from apps.core.errors import Conflict, DomainError, InvalidRequest
from apps.idempotency.models import StoredAnswer

KEPT = timedelta(hours=72)  # 24 h are promised.
PURGE_BATCH = 10_000


class KeyRequired(InvalidRequest):
    """This request moves money or holds it; it needs a key."""

    code = "idempotency_key_required"
    default_message = _("Send an X-Idempotency-Key, so that repeating this request is safe.")


class KeyReused(DomainError):
    """The key was used for another request."""

    code, http_status = "idempotency_key_reused", 422
    default_message = _("This idempotency key was used for another request. Use a new one.")


class InFlight(Conflict):
    """The first request with this key has not been answered yet."""

    code = "idempotency_in_flight"
    default_message = _(
        "The first request with this idempotency key is still running. Try again in a second."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose key it is: the same text of another principal or in another organization is another key."""

    organization_id: UUID | None
    principal: str
    key: str


def claim(scope: Scope, fingerprint: bytes) -> StoredAnswer | None:
    """Take the key for the current transaction and return the answer stored for it, if any.

    Raises InFlight while another transaction has it, KeyReused if it stands for another request. A lock that is
    tried, not waited for: nobody queues behind a slow request, and a crash leaves nothing behind.
    """
    assert connection.in_atomic_block, "the lock lasts as long as the transaction"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_lock_number(scope)])
        if not cursor.fetchone()[0]:
            raise InFlight(retry_after=1)
    stored = StoredAnswer.objects.filter(
        organization_id=scope.organization_id, principal=scope.principal, key=scope.key
    ).first()
    if stored is not None and bytes(stored.fingerprint) != fingerprint:
        raise KeyReused
    return stored


def store(
    scope: Scope,
    fingerprint: bytes,
    *,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
) -> None:
    """Keep an answer in the transaction that claimed the key."""
    StoredAnswer.objects.create(
        organization_id=scope.organization_id,
        principal=scope.principal,
        key=scope.key,
        fingerprint=fingerprint,
        status=status,
        headers=dict(headers),
        body=body,
        created_at=now,
    )


def store_attempt(scope: Scope, fingerprint: bytes, *, attempt_id: UUID, now: datetime) -> None:
    """Keep, in the transaction that claimed the key, the row that a request began with; its answer comes later."""
    StoredAnswer.objects.create(
        organization_id=scope.organization_id,
        principal=scope.principal,
        key=scope.key,
        fingerprint=fingerprint,
        status=0,
        attempt_id=attempt_id,
        body=b"",
        created_at=now,
    )


def finish_attempt(scope: Scope, *, status: int, body: bytes) -> None:
    """Keep the answer to a request whose outcome is known now; the first answer stays."""
    StoredAnswer.objects.filter(
        organization_id=scope.organization_id, principal=scope.principal, key=scope.key, status=0
    ).update(status=status, body=body)


def purge(*, now: datetime) -> int:
    """Delete answers that are older than promised and return how many, a batch at a time."""
    deleted = 0
    while True:
        old = StoredAnswer.objects.filter(created_at__lt=now - KEPT).order_by("created_at")[:PURGE_BATCH]
        count, _by_model = StoredAnswer.objects.filter(pk__in=list(old.values_list("pk", flat=True))).delete()
        deleted += count
        if count < PURGE_BATCH:
            return deleted


def _lock_number(scope: Scope) -> int:
    text = f"idempotency:{scope.organization_id}:{scope.principal}:{scope.key}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], signed=True)
