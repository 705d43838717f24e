"""The proof that the audit log is what was written, recomputed from the rows; it trusts no trigger."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from django.db import connection, transaction
from django.db.models import QuerySet

from apps.audit.models import AuditEvent, Chain, Seal
from apps.audit.sealing import FIRST, chain_of, digest_of
from apps.core.proofs import SAMPLES, Check, triggers_check

CHUNK = 1_000
TRIGGERS = (
    "audit_auditevent_rows_stay",
    "audit_auditevent_table_stays",
    "audit_auditevent_waits",
    "audit_seal_rows_stay",
    "audit_seal_table_stays",
)

# Events that no chain holds although nothing waits to put them there, and those that wait although one does.
_STRAYS = """
SELECT event.id || ' (' || event.action || ') is neither sealed nor waiting'
FROM audit_auditevent event
WHERE NOT EXISTS (SELECT FROM audit_seal seal WHERE seal.event_id = event.id)
  AND NOT EXISTS (SELECT FROM audit_waitingevent waiting WHERE waiting.event_id = event.id)
UNION ALL
SELECT waiting.event_id || ' waits but is sealed or gone' FROM audit_waitingevent waiting
WHERE EXISTS (SELECT FROM audit_seal seal WHERE seal.event_id = waiting.event_id)
   OR NOT EXISTS (SELECT FROM audit_auditevent event WHERE event.id = waiting.event_id)
ORDER BY 1 LIMIT %s
"""


@transaction.atomic(durable=True)
def verify() -> list[Check]:
    """Return every check, all in one consistent snapshot."""
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    return checks()


def heads() -> QuerySet[Chain]:
    """Return where each chain ends."""
    return Chain.objects.order_by("pk")


def checks() -> list[Check]:
    """Return every check as `verify` does, as the caller's transaction sees the rows."""
    walk = _Walk()
    ids = set(Chain.objects.values_list("pk", flat=True)) | set(
        Seal.objects.order_by().values_list("chain_id", flat=True).distinct()
    )
    ends = Chain.objects.in_bulk(ids)
    for chain_id in sorted(ids):
        walk.follow(chain_id, ends.get(chain_id))
    return [
        Check(name="Every chain counts from 1 without a gap", rows=walk.seals, failures=walk.shown("gap")),
        Check(name="Every chain ends where its head says", rows=len(ids), failures=walk.shown("end")),
        Check(
            name="Every sealed event is still there, in the chain of its organization",
            rows=walk.seals,
            failures=walk.shown("place"),
        ),
        Check(
            name="Every sealed event is what was sealed, after what came before it",
            rows=walk.seals,
            failures=walk.shown("content"),
        ),
        Check(
            name="Every event is sealed or waits to be", rows=AuditEvent.objects.count(), failures=_strays()
        ),
        triggers_check("Every guard of the audit log is in force", *TRIGGERS),
    ]


class _Walk:
    """Follows chains from their first seal, and notes what is wrong by kind."""

    def __init__(self) -> None:
        self.seals = 0
        self._failures: dict[str, list[str]] = {"gap": [], "end": [], "place": [], "content": []}

    def shown(self, kind: str) -> tuple[str, ...]:
        return tuple(self._failures[kind])

    def follow(self, chain_id: UUID, end: Chain | None) -> None:
        position, digest = 0, FIRST
        for seal, event in _sealed(chain_id):
            self.seals += 1
            name = f"{chain_id} at {seal.position}"
            if seal.position != position + 1:
                self._note("gap", f"{name}: nothing between it and {position}")
            if event is None:
                self._note("place", f"{name}: event {seal.event_id} is gone")
            elif chain_of(event) != chain_id:
                self._note("place", f"{name}: event {seal.event_id} belongs elsewhere")
            elif digest_of(digest, event) != bytes(seal.digest):
                self._note("content", f"{name}: event {seal.event_id} ({event.action})")
            position, digest = seal.position, bytes(seal.digest)
        if end is None:
            self._note("end", f"{chain_id}: it has no head")
        elif (end.position, bytes(end.digest)) != (position, digest):
            self._note("end", f"{chain_id}: it ends at {position}, its head at {end.position}")

    def _note(self, kind: str, what: str) -> None:
        if len(self._failures[kind]) < SAMPLES:
            self._failures[kind].append(what)


def _sealed(chain_id: UUID) -> Iterator[tuple[Seal, AuditEvent | None]]:
    """Yield a chain's seals in order, each with its event if that is still there."""
    after = 0
    while rows := list(
        Seal.objects.filter(chain_id=chain_id, position__gt=after).order_by("position")[:CHUNK]
    ):
        events = AuditEvent.objects.in_bulk([row.event_id for row in rows])
        for row in rows:
            yield row, events.get(row.event_id)
        after = rows[-1].position


def _strays() -> tuple[str, ...]:
    with connection.cursor() as cursor:
        cursor.execute(_STRAYS, [SAMPLES])
        return tuple(what for (what,) in cursor.fetchall())
