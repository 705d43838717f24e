"""Events and the notes about them as rows of PostgreSQL's binary COPY format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import batched
from struct import Struct
from uuid import UUID

from apps.core import binary_copy
from apps.metering.events import Received
from apps.metering.intervals import to_ms
from apps.metering.models import DIRTY_RESOURCES_MAX
from apps.metering.services.names import Resolved
from apps.metering.services.resources import Owner

type Candidate = tuple[Received, Resolved, Owner]

COPY_EVENTS = """
    COPY metering_usageevent (
        event_id, payload_hash, resource_id, time, started_at, ended_at, quantity, source, organization_id, type, sku,
        region, gpus, project_id, credential_id, meter, labels, integration_id, received_at, correlation_id
    ) FROM STDIN (FORMAT binary)
"""
COPY_DIRTY = "COPY metering_dirtybatch (organization_id, resource_ids, since) FROM STDIN (FORMAT binary)"
# So many rows are sent at once.
_CHUNK = 1_000

# The number of fields and the length of the event's id; then the hash, the resource and the time, with their lengths.
_START = Struct("!hi")
_FIXED = Struct("!i32si16siq")
_DIRTY_FIELDS = (3).to_bytes(2)
_NEITHER_START_NOR_END = binary_copy.NULL * 2


def event_rows(
    candidates: Iterable[Candidate],
    ids: Mapping[Owner, bytes],
    *,
    integration_id: UUID | None,
    correlation_id: str,
    now: datetime,
) -> Iterator[bytes]:
    """Yield the events in their order as COPY takes them, header and trailer included."""
    tail = (
        binary_copy.uuid(integration_id) + binary_copy.moment(to_ms(now)) + binary_copy.text(correlation_id)
    )
    # What the events of an organization mostly have in common is made once.
    common: dict[tuple[object, ...], bytes] = {}
    start, fixed, micros = _START.pack, _FIXED.pack, binary_copy.postgres_micros
    yield binary_copy.HEADER
    for chunk in batched(candidates, _CHUNK):
        parts: list[bytes] = []
        for event, resolved, owner in chunk:
            shape = (
                event.source,
                resolved,
                event.type,
                event.sku,
                event.region,
                event.milli_gpus,
                event.meter,
                event.labels,
            )
            rest = common.get(shape)
            if rest is None:
                rest = common[shape] = _common(event, resolved) + tail
            event_id = event.id.encode()
            parts += (
                start(20, len(event_id)),
                event_id,
                fixed(32, event.payload_hash, 16, ids[owner], 8, micros(event.time)),
                _NEITHER_START_NOR_END
                if event.started is None
                else binary_copy.moment(event.started) + binary_copy.moment(event.ended),
                binary_copy.numeric(event.quantity, 6),
                rest,
            )
        yield b"".join(parts)
    yield binary_copy.TRAILER


def _common(event: Received, resolved: Resolved) -> bytes:
    return b"".join(
        (
            binary_copy.text(event.source),
            _uuid(resolved.organization),
            binary_copy.text(event.type),
            binary_copy.text(event.sku),
            binary_copy.text(event.region),
            binary_copy.numeric(event.milli_gpus, 3),
            _uuid(resolved.project),
            _uuid(resolved.credential),
            binary_copy.text(event.meter),
            binary_copy.json(event.labels),
        )
    )


def dirty_rows(earliest: Mapping[Owner, int], ids: Mapping[Owner, bytes]) -> bytes:
    """Return the resources and the earliest moments that events concern, one row for each organization, or a few."""
    owners: dict[str, list[Owner]] = {}
    for owner in earliest:
        owners.setdefault(owner[0], []).append(owner)
    rows = [
        _dirty_row(organization, part, earliest, ids)
        for organization, of_organization in owners.items()
        for part in batched(of_organization, DIRTY_RESOURCES_MAX)
    ]
    return b"".join((binary_copy.HEADER, *rows, binary_copy.TRAILER))


def _dirty_row(
    organization: str, owners: Sequence[Owner], earliest: Mapping[Owner, int], ids: Mapping[Owner, bytes]
) -> bytes:
    resources = [b"\0\0\0\x10" + ids[owner] for owner in owners]
    moments = [binary_copy.moment(earliest[owner]) for owner in owners]
    return b"".join(
        (
            _DIRTY_FIELDS,
            _uuid(organization),
            binary_copy.array(binary_copy.UUID_OID, resources),
            binary_copy.array(binary_copy.TIMESTAMPTZ_OID, moments),
        )
    )


def _uuid(text: str | None) -> bytes:
    return binary_copy.uuid(None if text is None else UUID(text))
