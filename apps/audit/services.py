"""Writing the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core import correlation
from apps.core.actor import Actor

_LABEL_LENGTH_MAX = 254
_encoder = DjangoJSONEncoder()


def record(
    *,
    actor: Actor,
    action: str,
    target: Model | None = None,
    diff: Mapping[str, Any] | None = None,
    organization_id: UUID | None = None,
    reason: str = "",
) -> None:
    """Append one row about a change, in the change's own transaction.

    diff: what changed, as {field: [before, after]} or facts worth keeping; never a secret.
    organization_id: by default that of the target, else of the actor.
    """
    if organization_id is None:
        organization_id = getattr(target, "organization_id", None) or actor.organization_id
    AuditEvent.objects.create(
        organization_id=organization_id,
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_label=actor.label[:_LABEL_LENGTH_MAX],
        on_behalf_of=actor.on_behalf_of[:_LABEL_LENGTH_MAX],
        credential_id=actor.credential_id,
        address=actor.address,
        action=action,
        target_type=target._meta.label_lower if target is not None else "",
        target_id=str(target.pk) if target is not None else "",
        target_label=str(target)[:_LABEL_LENGTH_MAX] if target is not None else "",
        diff={name: _plain(value) for name, value in (diff or {}).items()},
        reason=reason,
        correlation_id=correlation.current(),
        occurred_at=timezone.now(),  # When it was written down: the one moment that no caller chooses.
    )


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it; decimals, ids and moments become strings."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return _encoder.default(value)
