"""The audit log as a file, written while it is read: memory stays the same however long it is."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.db.models import Q

from apps.audit.models import AuditEvent, AuditEventQuerySet
from apps.core.http.rendering import render_json
from apps.core.spreadsheets import neutral

CHUNK = 1_000


def shown(event: AuditEvent) -> dict[str, Any]:
    """Return an event as the API shows it."""
    return {
        "id": event.id,
        "occurred_at": event.occurred_at,
        "action": event.action,
        "actor": {"kind": event.actor_kind, "id": event.actor_id, "label": event.actor_label},
        "on_behalf_of": event.on_behalf_of,
        "credential_id": event.credential_id,
        "address": event.address,
        "target": {"type": event.target_type, "id": event.target_id, "label": event.target_label},
        "diff": event.diff,
        "reason": event.reason,
        "correlation_id": event.correlation_id,
    }


def in_order(events: AuditEventQuerySet) -> Iterator[AuditEvent]:
    """Yield events oldest first, in chunks that each begin where the one before ended: no transaction stays open."""
    after = Q()
    while chunk := list(events.filter(after).order_by("occurred_at", "pk")[:CHUNK]):
        yield from chunk
        last = chunk[-1]
        after = Q(occurred_at__gte=last.occurred_at) & (
            Q(occurred_at__gt=last.occurred_at) | Q(occurred_at=last.occurred_at, pk__gt=last.pk)
        )


def as_jsonl(events: AuditEventQuerySet) -> Iterator[bytes]:
    """Yield one JSON object a line."""
    for event in in_order(events):
        yield render_json(shown(event)) + b"\n"


def as_csv(events: AuditEventQuerySet) -> Iterator[str]:
    """Yield a header and one row an event; no cell is run as a formula by a spreadsheet."""
    writer = csv.writer(_Line())
    header = [name for name, _read in _COLUMNS]
    yield writer.writerow(header)
    for event in in_order(events):
        row = shown(event)
        yield writer.writerow([neutral(read(row)) for _name, read in _COLUMNS])


class _Line:
    """Hands each row back to whoever wrote it."""

    def write(self, line: str) -> str:
        return line


_COLUMNS: tuple[tuple[str, Callable[[Mapping[str, Any]], object]], ...] = (
    ("occurred_at", lambda row: row["occurred_at"].isoformat()),
    ("action", lambda row: row["action"]),
    ("actor_kind", lambda row: row["actor"]["kind"]),
    ("actor_id", lambda row: row["actor"]["id"]),
    ("actor", lambda row: row["actor"]["label"]),
    ("on_behalf_of", lambda row: row["on_behalf_of"]),
    ("credential_id", lambda row: row["credential_id"]),
    ("address", lambda row: row["address"]),
    ("target_type", lambda row: row["target"]["type"]),
    ("target_id", lambda row: row["target"]["id"]),
    ("target", lambda row: row["target"]["label"]),
    ("diff", lambda row: json.dumps(row["diff"], ensure_ascii=False, sort_keys=True)),
    ("reason", lambda row: row["reason"]),
    ("correlation_id", lambda row: row["correlation_id"]),
    ("id", lambda row: row["id"]),
)
