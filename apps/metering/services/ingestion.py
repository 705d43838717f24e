"""Taking events in: set-based, a chunk in one transaction, each identity once for ever.

New events go straight into their table by COPY, in the order of their identities: batches that hold the same events in
different orders would deadlock otherwise. It bets on nearly all events being new. If an identity turns out to be taken,
the attempt is rolled back and repeated without those that are known by then. Nothing here loops over rows with queries.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.utils.translation import gettext as _
from prometheus_client import Counter
from psycopg.errors import ForeignKeyViolation, UniqueViolation

from apps.core import correlation, failpoints
from apps.core.actor import Actor
from apps.core.permissions import IntegrationScope
from apps.metering import events
from apps.metering.events import Malformed, Received
from apps.metering.intervals import to_ms
from apps.metering.services import copying, resources
from apps.metering.services.copying import Candidate
from apps.metering.services.names import INVALID_EVENT, Names, Refusal
from apps.metering.services.resources import Owner

CONFLICT = "conflict"
OUT_OF_WINDOW = "out_of_window"

_EVENTS = Counter(
    "countinghouse_usage_events_total",
    "Usage events taken in or not: accepted, duplicate, or the code they were rejected with.",
    ["outcome"],
)
_DAY_MS = 86_400_000
# Lists travel as lines of text: the driver's arrays cost more than the statement, and checked text has no line breaks.
# The limit has each identity looked up by itself: PostgreSQL would read all of a table that it takes for small.
_KNOWN_HASHES = """
    SELECT known.source, known.event_id, known.payload_hash
      FROM unnest(string_to_array(%s, E'\\n'), string_to_array(%s, E'\\n')) AS asked (source, event_id)
     CROSS JOIN LATERAL (
        SELECT stored.source, stored.event_id, stored.payload_hash FROM metering_usageevent stored
         WHERE stored.source = asked.source AND stored.event_id = asked.event_id LIMIT 1
    ) known
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why one event of a batch was not taken. index: its place in the batch, from 0."""

    index: int
    id: str | None
    code: str
    message: str


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of a batch; every event is in exactly one of the counts."""

    accepted: int = 0
    duplicates: int = 0
    errors: list[Rejection] = field(default_factory=list)

    @property
    def rejected(self) -> int:
        return len(self.errors)


# An event's source and id in one text, which sorts and hashes faster than a pair; neither holds a NUL.
type _Identity = str


def ingest_body(*, actor: Actor, body: bytes, content_type: str, now: datetime) -> Outcome:
    """Take in the events of an HTTP body on behalf of an integration, a chunk of them in each transaction.

    Raises InvalidRequest when the body as a whole cannot be read; a bad event is only an error in the outcome. Whoever
    gets another error sends everything again: what was stored by then is told as a duplicate.
    """
    outcome = Outcome()
    read = 0
    for chunk in events.chunks(body, content_type, events_max=settings.USAGE_BATCH_EVENTS_MAX):
        of_chunk = ingest_events(
            received=chunk,
            integration_id=actor.id,
            backfill=actor.can(IntegrationScope.USAGE_BACKFILL),
            now=now,
        )
        outcome.accepted += of_chunk.accepted
        outcome.duplicates += of_chunk.duplicates
        outcome.errors += [replace(error, index=read + error.index) for error in of_chunk.errors]
        read += len(chunk)
    return outcome


def ingest_events(
    *,
    received: Sequence[Received | Malformed],
    integration_id: UUID | None,
    backfill: bool,
    now: datetime,
) -> Outcome:
    """Store every new event once and note its resource for the next tick, all or nothing.

    An identity that is known answers `duplicate` or `conflict` whatever else is wrong with the event by now.
    backfill: lifts the limit on how old usage may be. The transaction is this function's own, unless one is open.
    """
    names = Names.of([event for event in received if isinstance(event, Received)])
    window = _Window.around(now, backfill=backfill)
    errors: dict[int, Refusal] = {}
    refused: dict[int, Refusal] = {}
    # The first acceptable event of each identity is a candidate; the others are compared with what is stored then.
    candidates: dict[_Identity, Candidate] = {}
    others: list[tuple[int, Received]] = []
    places: dict[_Identity, int] = {}
    for index, event in enumerate(received):
        if isinstance(event, Malformed):
            errors[index] = Refusal(INVALID_EVENT, event.message)
            continue
        resolved = window.refusal(event) or names.resolve(event)
        identity = _identity(event)
        if isinstance(resolved, Refusal):
            refused[index] = resolved
        elif identity not in candidates:
            subject = event.id if event.subject is None else event.subject
            owner = (resolved.organization, event.source, subject, event.subject is None)
            candidates[identity] = event, resolved, owner
            places[identity] = index
            continue
        others.append((index, event))

    known = _store_new(candidates, integration_id=integration_id, now=now)
    accepted = candidates.keys() - known.keys()
    others += [(places[identity], candidates[identity][0]) for identity in known]
    known |= _known_hashes({_identity(event) for _index, event in others} - candidates.keys())
    outcome = Outcome(accepted=len(accepted))
    for index, event in others:
        identity = _identity(event)
        stored = candidates[identity][0].payload_hash if identity in accepted else known.get(identity)
        if stored == event.payload_hash:
            outcome.duplicates += 1
        elif stored is not None:
            errors[index] = Refusal(
                CONFLICT, _("An event with this source and id, but other content, was accepted before.")
            )
        else:
            errors[index] = refused[index]
    outcome.errors = [
        Rejection(index=index, id=received[index].id, code=refusal.code, message=refusal.message)
        for index, refusal in sorted(errors.items())
    ]
    _tell(outcome)
    return outcome


def _tell(outcome: Outcome) -> None:
    told = collections.Counter(error.code for error in outcome.errors)
    told |= {"accepted": outcome.accepted, "duplicate": outcome.duplicates}
    for name, count in told.items():
        _EVENTS.labels(outcome=name).inc(count)


def _identity(event: Received) -> _Identity:
    return f"{event.source}\0{event.id}"


@dataclass(frozen=True, slots=True)
class _Window:
    """The times that are acceptable, in milliseconds."""

    earliest: int | None
    latest: int

    @classmethod
    def around(cls, now: datetime, *, backfill: bool) -> _Window:
        latest = to_ms(now) + settings.USAGE_FUTURE_SECONDS_MAX * 1000
        return cls(None if backfill else to_ms(now) - settings.USAGE_PAST_DAYS_MAX * _DAY_MS, latest)

    def refusal(self, event: Received) -> Refusal | None:
        if event.tested > self.latest:
            return Refusal(OUT_OF_WINDOW, _("The event lies more than five minutes ahead."))
        if self.earliest is not None and event.tested < self.earliest:
            return Refusal(
                OUT_OF_WINDOW,
                _("The event is more than %(days)d days old; that needs the scope usage:backfill.")
                % {"days": settings.USAGE_PAST_DAYS_MAX},
            )
        return None


def _store_new(
    candidates: Mapping[_Identity, Candidate], *, integration_id: UUID | None, now: datetime
) -> dict[_Identity, bytes]:
    """Store the candidates whose identity is free; return the others with the payload hash that is stored for them."""
    known: dict[_Identity, bytes] = {}
    while fresh := sorted(candidates.keys() - known.keys()):
        try:
            with transaction.atomic():
                _store([candidates[identity] for identity in fresh], integration_id=integration_id, now=now)
                failpoints.reach("ingest.before_commit")
            break
        except IntegrityError as error:
            if _violates(error, ForeignKeyViolation, "metering_usageevent_resource_tenant"):
                # Resources stay for ever, unless the database was replaced by another under this process.
                if resources.forget():
                    continue
                raise
            if not _violates(error, UniqueViolation, "metering_usageevent_once"):
                raise
        # Whoever took it has committed: the insertion had to wait for that. So each turn knows more than the last.
        found = _known_hashes(fresh)
        assert found, "an identity is taken, and events are never deleted"
        known |= found
    return known


def _violates(error: IntegrityError, kind: type[Exception], constraint: str) -> bool:
    cause = error.__cause__
    return (
        isinstance(cause, (UniqueViolation, ForeignKeyViolation))
        and isinstance(cause, kind)
        and cause.diag.constraint_name == constraint
    )


def _store(candidates: Sequence[Candidate], *, integration_id: UUID | None, now: datetime) -> None:
    """Insert events in the given order, the resources that they are the first of, and the notes for the tick."""
    earliest: dict[Owner, int] = {}
    for event, _resolved, owner in candidates:
        since = event.time if event.started is None else event.started
        before = earliest.get(owner)
        if before is None or since < before:
            earliest[owner] = since
    with connection.wrap_database_errors, connection.cursor() as cursor:
        ids = resources.resource_ids(cursor, earliest)
        with cursor.copy(copying.COPY_EVENTS) as copy:
            for rows in copying.event_rows(
                candidates,
                ids,
                integration_id=integration_id,
                correlation_id=correlation.current(),
                now=now,
            ):
                copy.write(rows)
        with cursor.copy(copying.COPY_DIRTY) as copy:
            copy.write(copying.dirty_rows(earliest, ids))


def _known_hashes(identities: Collection[_Identity]) -> dict[_Identity, bytes]:
    """Return the payload hashes of the identities that are stored, those that others just committed included."""
    if not identities:
        return {}
    asked = [identity.split("\0") for identity in identities]
    with connection.cursor() as cursor:
        cursor.execute(
            _KNOWN_HASHES,
            [
                "\n".join([source for source, _id in asked]),
                "\n".join([event_id for _source, event_id in asked]),
            ],
        )
        return {f"{source}\0{event_id}": bytes(payload_hash) for source, event_id, payload_hash in cursor}
