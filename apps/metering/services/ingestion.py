"""Taking events in: set-based, in one transaction, each identity once for ever.

New events go straight into their table by COPY, in the order of their identities: batches that hold the same events in
different orders would deadlock otherwise. It bets on nearly all events being new. If an identity turns out to be taken,
the attempt is rolled back and repeated without those that are known by then. Nothing here loops over rows with queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import batched
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import Q
from django.utils.translation import gettext as _
from psycopg.errors import UniqueViolation

from apps.core import correlation, failpoints
from apps.core.actor import Actor
from apps.core.ids import uuid7
from apps.core.permissions import IntegrationScope
from apps.credentials.models import ApiKey
from apps.metering import events
from apps.metering.events import Malformed, Received
from apps.metering.intervals import from_ms, to_ms
from apps.organizations.models import OrganizationStatus, Project
from apps.organizations.selectors import find_organizations
from apps.pricing import selectors as pricing
from apps.pricing.models import Meter

INVALID_EVENT = "invalid_event"
UNKNOWN_ORGANIZATION = "unknown_organization"
UNKNOWN_PROJECT = "unknown_project"
UNKNOWN_REGION = "unknown_region"
CONFLICT = "conflict"
OUT_OF_WINDOW = "out_of_window"

_DAY_MS = 86_400_000
# So many lines of COPY text are held at once.
_CHUNK = 1_000

# Lists travel as lines of text: the driver's arrays cost more than the statements, and checked text has no line breaks.
_RESOURCES = """
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest(
                string_to_array(%s, E'\\n')::uuid[], string_to_array(%s, E'\\n'), string_to_array(%s, E'\\n'),
                string_to_array(%s, E'\\n')::boolean[]
            ) WITH ORDINALITY AS given (organization_id, source, subject, is_single_event, place)
    )
    SELECT string_agg(coalesce(known.id::text, ''), E'\\n' ORDER BY given.place)
      FROM given LEFT JOIN metering_resource known USING (organization_id, source, subject, is_single_event)
"""
_NEW_RESOURCES = """
    INSERT INTO metering_resource (id, organization_id, source, subject, is_single_event)
    SELECT * FROM unnest(
        string_to_array(%s, E'\\n')::uuid[], string_to_array(%s, E'\\n')::uuid[], string_to_array(%s, E'\\n'),
        string_to_array(%s, E'\\n'), string_to_array(%s, E'\\n')::boolean[]
    )
        ON CONFLICT DO NOTHING
"""
_COPY_EVENTS = """
    COPY metering_usageevent (
        source, event_id, payload_hash, organization_id, resource_id, type, time, sku, region, gpus, project_id,
        credential_id, meter, quantity, started_at, ended_at, labels, integration_id, received_at, correlation_id
    ) FROM STDIN
"""
_COPY_NEWS = "COPY metering_dirtyresource (organization_id, resource_id, since) FROM STDIN"
_KNOWN_HASHES = """
    SELECT known.source, known.event_id, known.payload_hash
      FROM metering_usageevent known
      JOIN unnest(string_to_array(%s, E'\\n'), string_to_array(%s, E'\\n')) AS asked (source, event_id)
        ON known.source = asked.source AND known.event_id = asked.event_id
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


class _Refusal(NamedTuple):
    code: str
    message: str


class _Resolved(NamedTuple):
    """What the names in an event stand for: ids as text, as COPY takes them."""

    organization: str
    project: str
    credential: str


type _Identity = tuple[str, str]
# The key of a resource: organization, source, subject, and whether the subject is a single event's own id.
type _Owner = tuple[str, str, str, bool]
type _Candidate = tuple[Received, _Resolved, _Owner]


def ingest_body(*, actor: Actor, body: bytes, content_type: str, now: datetime) -> Outcome:
    """Take in the events of an HTTP body on behalf of an integration.

    Raises InvalidRequest when the body as a whole cannot be read; a bad event is only an error in the outcome.
    """
    received = events.decode(body, content_type, events_max=settings.USAGE_BATCH_EVENTS_MAX)
    return ingest_events(
        received=received,
        integration_id=actor.id,
        backfill=actor.can(IntegrationScope.USAGE_BACKFILL),
        now=now,
    )


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
    names = _Names.of([event for event in received if isinstance(event, Received)])
    window = _Window.around(now, backfill=backfill)
    errors: dict[int, _Refusal] = {}
    refused: dict[int, _Refusal] = {}
    # The first acceptable event of each identity is a candidate; the others are compared with what is stored then.
    candidates: dict[_Identity, _Candidate] = {}
    others: list[tuple[int, Received]] = []
    places: dict[_Identity, int] = {}
    for index, event in enumerate(received):
        if isinstance(event, Malformed):
            errors[index] = _Refusal(INVALID_EVENT, event.message)
            continue
        resolved = window.refusal(event) or names.resolve(event)
        identity = (event.source, event.id)
        if isinstance(resolved, _Refusal):
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
    unsure = {(event.source, event.id) for _index, event in others} - candidates.keys()
    known |= _known_hashes(unsure)
    outcome = Outcome(accepted=len(accepted))
    for index, event in others:
        identity = (event.source, event.id)
        stored = candidates[identity][0].payload_hash if identity in accepted else known.get(identity)
        if stored == event.payload_hash:
            outcome.duplicates += 1
        elif stored is not None:
            errors[index] = _Refusal(
                CONFLICT, _("An event with this source and id, but other content, was accepted before.")
            )
        else:
            errors[index] = refused[index]
    outcome.errors = [
        Rejection(index=index, id=received[index].id, code=refusal.code, message=refusal.message)
        for index, refusal in sorted(errors.items())
    ]
    return outcome


@dataclass(frozen=True, slots=True)
class _Window:
    """The times that are acceptable, in milliseconds."""

    earliest: int | None
    latest: int

    @classmethod
    def around(cls, now: datetime, *, backfill: bool) -> _Window:
        latest = to_ms(now) + settings.USAGE_FUTURE_SECONDS_MAX * 1000
        return cls(None if backfill else to_ms(now) - settings.USAGE_PAST_DAYS_MAX * _DAY_MS, latest)

    def refusal(self, event: Received) -> _Refusal | None:
        if event.tested > self.latest:
            return _Refusal(OUT_OF_WINDOW, _("The event lies more than five minutes ahead."))
        if self.earliest is not None and event.tested < self.earliest:
            return _Refusal(
                OUT_OF_WINDOW,
                _("The event is more than %(days)d days old; that needs the scope usage:backfill.")
                % {"days": settings.USAGE_PAST_DAYS_MAX},
            )
        return None


@dataclass(frozen=True, slots=True)
class _Names:
    """Everything that the events of a batch refer to, as far as it exists.

    answers: what was found before, by the names in an event; most events of a batch name the same.
    """

    organizations: Mapping[str, UUID]
    projects: Mapping[tuple[UUID, str], UUID]
    keys: Mapping[tuple[UUID, str], UUID]
    regions: frozenset[str]
    meters: frozenset[str]
    answers: dict[tuple[str | None, ...], _Resolved | _Refusal] = field(default_factory=dict)

    @classmethod
    def of(cls, received: Iterable[Received]) -> _Names:
        """Return what a batch refers to, in a handful of queries however large it is."""
        references: set[str] = set()
        project_names: set[str] = set()
        key_names: set[str] = set()
        regional = metered = False
        for event in received:
            references.add(event.organization)
            if event.project:
                project_names.add(event.project)
            if event.api_key:
                key_names.add(event.api_key)
            regional = regional or bool(event.region)
            metered = metered or bool(event.meter)
        # A suspended organization still pays for what it used; a deleted one has nobody left to pay.
        organizations = {
            reference: organization.pk
            for reference, organization in find_organizations(references).items()
            if organization.status != OrganizationStatus.DELETED
        }
        return cls(
            organizations=organizations,
            projects=_projects(set(organizations.values()), project_names) if project_names else {},
            keys=_keys(set(organizations.values()), key_names) if key_names else {},
            regions=pricing.region_codes() if regional else frozenset(),
            meters=frozenset(Meter.objects.values_list("code", flat=True)) if metered else frozenset(),
        )

    def resolve(self, event: Received) -> _Resolved | _Refusal:
        """Return what the event's names stand for, or the first reason to refuse it."""
        names = (event.organization, event.project, event.region, event.api_key, event.meter)
        answer = self.answers.get(names)
        if answer is None:
            answer = self.answers[names] = self._answer(event)
        return answer

    def _answer(self, event: Received) -> _Resolved | _Refusal:
        organization_id = self.organizations.get(event.organization)
        if organization_id is None:
            return _Refusal(
                UNKNOWN_ORGANIZATION, _("There is no organization %(name)s.") % {"name": event.organization}
            )
        project_id = self.projects.get((organization_id, event.project)) if event.project else None
        if event.project and project_id is None:
            return _Refusal(
                UNKNOWN_PROJECT,
                _("Organization %(organization)s has no project %(name)s.")
                % {"organization": event.organization, "name": event.project},
            )
        if event.region and self.regions and event.region not in self.regions:
            return _Refusal(UNKNOWN_REGION, _("There is no region %(name)s.") % {"name": event.region})
        credential_id = self.keys.get((organization_id, event.api_key)) if event.api_key else None
        if event.api_key and credential_id is None:
            return _Refusal(
                INVALID_EVENT,
                _("data.api_key %(name)s is no key of organization %(organization)s.")
                % {"name": event.api_key, "organization": event.organization},
            )
        if event.meter and event.meter not in self.meters:
            return _Refusal(INVALID_EVENT, _("There is no meter %(name)s.") % {"name": event.meter})
        return _Resolved(str(organization_id), _optional(project_id), _optional(credential_id))


def _projects(organization_ids: set[UUID], names: set[str]) -> dict[tuple[UUID, str], UUID]:
    ids = {name: pk for name in names if (pk := _uuid(name)) is not None}
    rows = Project.objects.filter(
        Q(slug__in=names) | Q(pk__in=ids.values()), organization__in=organization_ids
    ).values_list("organization_id", "slug", "pk")
    found: dict[tuple[UUID, str], UUID] = {}
    by_id: dict[UUID, UUID] = {}
    for organization_id, slug, pk in rows:
        found[organization_id, slug] = pk
        by_id[pk] = organization_id
    return found | {(by_id[pk], name): pk for name, pk in ids.items() if pk in by_id}


def _keys(organization_ids: set[UUID], public_ids: set[str]) -> dict[tuple[UUID, str], UUID]:
    rows = ApiKey.objects.filter(organization__in=organization_ids, public_id__in=public_ids)
    return {
        (organization_id, public_id): pk
        for organization_id, public_id, pk in rows.values_list("organization_id", "public_id", "pk")
    }


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _store_new(
    candidates: Mapping[_Identity, _Candidate], *, integration_id: UUID | None, now: datetime
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
            if not _is_taken(error):
                raise
        # Whoever took it has committed: the insertion had to wait for that. So each turn knows more than the last.
        found = _known_hashes(fresh)
        assert found, "an identity is taken, and events are never deleted"
        known |= found
    return known


def _is_taken(error: IntegrityError) -> bool:
    cause = error.__cause__
    return isinstance(cause, UniqueViolation) and cause.diag.constraint_name == "metering_usageevent_once"


def _store(candidates: Sequence[_Candidate], *, integration_id: UUID | None, now: datetime) -> None:
    """Insert events in the given order, the resources that they are the first of, and the notes for the tick."""
    earliest: dict[_Owner, int] = {}
    for event, _resolved, owner in candidates:
        since = event.time if event.started is None else event.started
        before = earliest.get(owner)
        if before is None or since < before:
            earliest[owner] = since
    tail = f"{_optional(integration_id)}\t{now.isoformat()}\t{correlation.current()}\n"
    with connection.wrap_database_errors, connection.cursor() as cursor:
        ids = _resource_ids(cursor, earliest)
        with cursor.copy(_COPY_EVENTS) as copy:
            for chunk in batched(candidates, _CHUNK):
                copy.write(
                    _escaped([_line(event, resolved, ids[owner], tail) for event, resolved, owner in chunk])
                )
        with cursor.copy(_COPY_NEWS) as copy:
            copy.write(
                _escaped([f"{owner[0]}\t{ids[owner]}\t{_time(since)}\n" for owner, since in earliest.items()])
            )


def _resource_ids(cursor: CursorWrapper, wanted: Iterable[_Owner]) -> dict[_Owner, str]:
    """Return the ids of the resources, made where there are none yet."""
    owners = sorted(wanted)
    found = _find_resources(cursor, owners)
    if missing := [owner for owner in owners if owner not in found]:
        ids = [str(uuid7()) for _owner in missing]
        cursor.execute(_NEW_RESOURCES, ["\n".join(ids), *_columns(missing)])
        # Another batch may have made some of them first, under ids of its own.
        found |= _find_resources(cursor, missing)
    return found


def _find_resources(cursor: CursorWrapper, owners: Sequence[_Owner]) -> dict[_Owner, str]:
    cursor.execute(_RESOURCES, _columns(owners))
    (ids,) = cursor.fetchone()
    return {owner: pk for owner, pk in zip(owners, ids.split("\n"), strict=True) if pk}


def _columns(owners: Sequence[_Owner]) -> list[str]:
    return [
        "\n".join([owner[0] for owner in owners]),
        "\n".join([owner[1] for owner in owners]),
        "\n".join([owner[2] for owner in owners]),
        "\n".join(["t" if owner[3] else "f" for owner in owners]),
    ]


def _known_hashes(identities: Iterable[_Identity]) -> dict[_Identity, bytes]:
    """Return the payload hashes of the identities that are stored, those that others just committed included."""
    asked = list(identities)
    if not asked:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            _KNOWN_HASHES,
            [
                "\n".join([source for source, _id in asked]),
                "\n".join([event_id for _source, event_id in asked]),
            ],
        )
        return {(source, event_id): bytes(payload_hash) for source, event_id, payload_hash in cursor}


def _line(event: Received, resolved: _Resolved, resource_id: str, tail: str) -> str:
    """Return the event as a line of COPY's text format, still to be escaped."""
    started = _NULL if event.started is None else _time(event.started)
    ended = _NULL if event.ended is None else _time(event.ended)
    gpus = _NULL if event.milli_gpus is None else f"{event.milli_gpus}e-3"
    quantity = _NULL if event.quantity is None else f"{event.quantity}e-6"
    return (
        f"{event.source}\t{event.id}\t\0{event.payload_hash.hex()}\t{resolved.organization}\t{resource_id}\t"
        f"{event.type}\t{_time(event.time)}\t{event.sku}\t{event.region}\t{gpus}\t{resolved.project}\t"
        f"{resolved.credential}\t{event.meter}\t{quantity}\t{started}\t{ended}\t{event.labels}\t{tail}"
    )


def _escaped(lines: Iterable[str]) -> bytes:
    """Return lines as COPY takes them: checked text has no control characters, so only the backslash needs escaping."""
    text = "".join(lines)
    return text.replace("\\", "\\\\").replace("\0", "\\\\x").replace("\1", "\\N").encode()


# Placeholders for what must survive the escaping: checked text holds no control characters.
_NULL = "\1"


@lru_cache(maxsize=4096)
def _time(milliseconds: int) -> str:
    return from_ms(milliseconds).isoformat()


def _optional(value: UUID | None) -> str:
    return _NULL if value is None else str(value)
