"""Writing the audit log, and sealing what was written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.models import Model
from django.utils import timezone

from apps.audit.models import AuditEvent, Chain, Seal, WaitingEvent
from apps.audit.sealing import FIRST, digest_of
from apps.core import correlation
from apps.core.actor import Actor

logger = structlog.get_logger(__name__)

_LABEL_LENGTH_MAX = 254
_SEALED_AT_ONCE = 1_000
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


def seal_waiting(*, now: datetime) -> int:
    """Put every committed event that waits into its chain and return how many there were.

    Which events wait is a matter of rows, never of times or ids: one that is committed late is sealed late, after
    those that were there before it. Chains that another sealer holds are left to it.
    """
    sealed = 0
    for chain_id in WaitingEvent.objects.order_by("chain_id").values_list("chain_id", flat=True).distinct():
        while count := _seal_some(chain_id, now):
            sealed += count
    return sealed


@transaction.atomic
def _seal_some(chain_id: UUID, now: datetime) -> int:
    Chain.objects.bulk_create([Chain(pk=chain_id, digest=FIRST)], ignore_conflicts=True)
    chain = Chain.objects.select_for_update(skip_locked=True, no_key=True).filter(pk=chain_id).first()
    if chain is None:
        return 0
    waiting = WaitingEvent.objects.filter(chain_id=chain_id).values("pk")
    events = list(AuditEvent.objects.filter(pk__in=waiting).order_by("occurred_at", "pk")[:_SEALED_AT_ONCE])
    seals = []
    for event in events:
        chain.position += 1
        chain.digest = digest_of(bytes(chain.digest), event)
        place = {"position": chain.position, "digest": chain.digest, "sealed_at": now}
        seals.append(Seal(event=event, chain_id=chain_id, **place))
    if not seals:
        return 0
    Seal.objects.bulk_create(seals)
    WaitingEvent.objects.filter(pk__in=[event.pk for event in events]).delete()
    chain.save(update_fields=["position", "digest"])
    # Also where this database's owner cannot reach: the log.
    logger.info(
        "audit_sealed", chain=str(chain_id), position=chain.position, digest=bytes(chain.digest).hex()
    )
    return len(seals)


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it; decimals, ids and moments become strings."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return _encoder.default(value)
