"""What a seal is made of: pure functions of an event and of the seal before it."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC
from uuid import UUID

from apps.audit.models import AuditEvent

# Users and staff have no organization; their events make one chain.
PEOPLE = UUID(int=0)
FIRST = bytes(32)


def chain_of(event: AuditEvent) -> UUID:
    """Return the chain that an event belongs to: that of its organization, else the one of people."""
    return event.organization_id or PEOPLE


def digest_of(previous: bytes, event: AuditEvent) -> bytes:
    """Return the SHA-256 of the digest before and of everything that the event says.

    The form is JSON with sorted names and without spaces; it never changes, or no chain could be proved any more.
    """
    said = {
        "id": str(event.id),
        "organization_id": _text(event.organization_id),
        "actor_kind": event.actor_kind,
        "actor_id": _text(event.actor_id),
        "actor_label": event.actor_label,
        "on_behalf_of": event.on_behalf_of,
        "credential_id": _text(event.credential_id),
        "address": event.address,
        "action": event.action,
        "target_type": event.target_type,
        "target_id": event.target_id,
        "target_label": event.target_label,
        "diff": event.diff,
        "reason": event.reason,
        "correlation_id": event.correlation_id,
        "occurred_at": event.occurred_at.astimezone(UTC).isoformat(timespec="microseconds"),
    }
    form = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(previous + form.encode()).digest()


def _text(identifier: UUID | None) -> str:
    return str(identifier) if identifier else ""
