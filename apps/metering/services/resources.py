"""The ids of resources, found or made; a process remembers those it met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from threading import Lock

from django.db import transaction
from django.db.backends.utils import CursorWrapper

from apps.core.ids import uuid7

# The key of a resource: organization, source, subject, and whether the subject is a single event's own id.
type Owner = tuple[str, str, str, bool]

# About 16 MB; as many resources again may be remembered from the generation before.
REMEMBERED_MAX = 25_000

# Lists travel as lines of text: the driver's arrays cost more than the statements, and checked text has no line breaks.
_FIND = """
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest(
                string_to_array(%s, E'\\n')::uuid[], string_to_array(%s, E'\\n'), string_to_array(%s, E'\\n'),
                string_to_array(%s, E'\\n')::boolean[]
            ) WITH ORDINALITY AS given (organization_id, source, subject, is_single_event, place)
    )
    SELECT string_agg(coalesce(encode(uuid_send(known.id), 'hex'), ''), E'\\n' ORDER BY given.place)
      FROM given LEFT JOIN metering_resource known USING (organization_id, source, subject, is_single_event)
"""
_MAKE = """
    INSERT INTO metering_resource (id, organization_id, source, subject, is_single_event)
    SELECT * FROM unnest(
        string_to_array(%s, E'\\n')::uuid[], string_to_array(%s, E'\\n')::uuid[], string_to_array(%s, E'\\n'),
        string_to_array(%s, E'\\n'), string_to_array(%s, E'\\n')::boolean[]
    )
        ON CONFLICT DO NOTHING
"""


class _Memory:
    """Ids of resources that are committed. They are never renumbered or deleted, so what is known stays true.

    Two generations: when the younger is full it becomes the older, and what of that was not asked for meanwhile goes.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._young: dict[Owner, bytes] = {}
        self._old: dict[Owner, bytes] = {}

    def find(self, wanted: Iterable[Owner]) -> dict[Owner, bytes]:
        with self._lock:
            young, old = self._young, self._old
            found: dict[Owner, bytes] = {}
            for owner in wanted:
                pk = young.get(owner)
                if pk is None:
                    pk = old.get(owner)
                    if pk is None:
                        continue
                    young[owner] = pk
                found[owner] = pk
            return found

    def add(self, known: Mapping[Owner, bytes]) -> None:
        with self._lock:
            self._young.update(known)
            if len(self._young) > REMEMBERED_MAX:
                self._old, self._young = self._young, {}

    def forget(self) -> bool:
        """Drop everything and return whether there was anything."""
        with self._lock:
            known = bool(self._young or self._old)
            self._young, self._old = {}, {}
            return known


_memory = _Memory()
# True if this process remembered resources: after the database was replaced they may be others.
forget = _memory.forget


def resource_ids(cursor: CursorWrapper, wanted: Iterable[Owner]) -> dict[Owner, bytes]:
    """Return the ids of the resources, made where there are none yet; inside the transaction that refers to them."""
    owners = sorted(wanted)
    found = _memory.find(owners)
    if unknown := [owner for owner in owners if owner not in found]:
        asked = _find(cursor, unknown)
        if missing := [owner for owner in unknown if owner not in asked]:
            ids = [str(uuid7()) for _owner in missing]
            cursor.execute(_MAKE, ["\n".join(ids), *_columns(missing)])
            # Another batch may have made some of them first, under ids of its own.
            asked |= _find(cursor, missing)
        found |= asked
        # A resource of a single event is not met again; one that is not committed may never be.
        lasting = {owner: pk for owner, pk in asked.items() if not owner[3]}
        transaction.on_commit(partial(_memory.add, lasting))
    return found


def _find(cursor: CursorWrapper, owners: Sequence[Owner]) -> dict[Owner, bytes]:
    cursor.execute(_FIND, _columns(owners))
    (ids,) = cursor.fetchone()
    return {owner: bytes.fromhex(pk) for owner, pk in zip(owners, ids.split("\n"), strict=True) if pk}


def _columns(owners: Sequence[Owner]) -> list[str]:
    return [
        "\n".join([owner[0] for owner in owners]),
        "\n".join([owner[1] for owner in owners]),
        "\n".join([owner[2] for owner in owners]),
        "\n".join(["t" if owner[3] else "f" for owner in owners]),
    ]
