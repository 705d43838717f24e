"""Taking events in: set-based, in one transaction, each identity once for ever.

Rows are staged by COPY and inserted in the order of their keys: batches that hold the same events in different orders
would deadlock otherwise. Nothing here loops over rows with queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.utils.translation import gettext as _

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

_STAGE = """
    CREATE TEMPORARY TABLE IF NOT EXISTS metering_staged (
        ordinal integer, source text, event_id text, payload_hash bytea, organization_id uuid, resource_id uuid,
        subject text, is_single_event boolean, type text, time timestamptz, sku text, region text,
        gpus numeric, project_id uuid, credential_id uuid, meter text, quantity numeric,
        started_at timestamptz, ended_at timestamptz, labels jsonb, since timestamptz
    ) ON COMMIT DELETE ROWS
"""
_NEW_RESOURCES = """
    INSERT INTO metering_resource (id, organization_id, source, subject, is_single_event)
    SELECT DISTINCT ON (organization_id, source, subject, is_single_event)
           resource_id, organization_id, source, subject, is_single_event
      FROM metering_staged staged
     WHERE NOT EXISTS (SELECT FROM metering_resource known
                        WHERE (known.organization_id, known.source, known.subject, known.is_single_event)
                            = (staged.organization_id, staged.source, staged.subject, staged.is_single_event))
       AND NOT EXISTS (SELECT FROM metering_usageevent known
                        WHERE (known.source, known.event_id) = (staged.source, staged.event_id))
     ORDER BY organization_id, source, subject, is_single_event
        ON CONFLICT DO NOTHING
"""
# Returns the staged rows that were not inserted: their identity is taken already.
_NEW_EVENTS = """
    WITH inserted AS (
        INSERT INTO metering_usageevent (
            source, event_id, payload_hash, organization_id, resource_id, type, time, sku, region, gpus, project_id,
            credential_id, meter, quantity, started_at, ended_at, labels, integration_id, received_at, correlation_id)
        SELECT staged.source, staged.event_id, staged.payload_hash, staged.organization_id, known.id, staged.type,
               staged.time, staged.sku, staged.region, staged.gpus, staged.project_id, staged.credential_id,
               staged.meter, staged.quantity, staged.started_at, staged.ended_at, staged.labels, %s, %s, %s
          FROM metering_staged staged
          JOIN metering_resource known
            ON known.organization_id = staged.organization_id AND known.source = staged.source
           AND known.subject = staged.subject AND known.is_single_event = staged.is_single_event
         ORDER BY staged.source, staged.event_id
            ON CONFLICT (source, event_id) DO NOTHING
     RETURNING source, event_id, organization_id, resource_id, coalesce(started_at, time) AS since
    ), noted AS (
        INSERT INTO metering_dirtyresource (organization_id, resource_id, since)
        SELECT organization_id, resource_id, min(since) FROM inserted GROUP BY organization_id, resource_id
    )
    SELECT staged.ordinal
      FROM metering_staged staged LEFT JOIN inserted USING (source, event_id)
     WHERE inserted.event_id IS NULL
"""
_KNOWN_HASHES = """
    SELECT known.source, known.event_id, known.payload_hash
      FROM metering_usageevent known
      JOIN unnest(%s::text[], %s::text[]) AS asked (source, event_id)
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
    """What the names in an event stand for."""

    organization_id: UUID
    project_id: UUID | None
    credential_id: UUID | None


class _Item(NamedTuple):
    """An event with its place in the batch."""

    place: int
    event: Received
    resolved: _Resolved | _Refusal

    @property
    def identity(self) -> tuple[str, str]:
        return self.event.source, self.event.id


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


@transaction.atomic
def ingest_events(
    *,
    received: Sequence[Received | Malformed],
    integration_id: UUID | None,
    backfill: bool,
    now: datetime,
) -> Outcome:
    """Store every new event once and note its resource for the next tick, all or nothing.

    An identity that is known answers `duplicate` or `conflict` whatever else is wrong with the event by now.
    backfill: lifts the limit on how old usage may be.
    """
    errors: dict[int, _Refusal] = {}
    good: list[tuple[int, Received]] = []
    for index, event in enumerate(received):
        if isinstance(event, Malformed):
            errors[index] = _Refusal(INVALID_EVENT, event.message)
        else:
            good.append((index, event))
    names = _resolve([event for _index, event in good])
    window = _Window.around(now, backfill=backfill)
    items = [_Item(index, event, names.of(event, window)) for index, event in good]

    # The first acceptable event of each identity is staged; the others are compared with what is stored then.
    staged: dict[tuple[str, str], _Item] = {}
    for item in items:
        if isinstance(item.resolved, _Resolved):
            staged.setdefault(item.identity, item)
    taken = _store(list(staged.values()), integration_id=integration_id, now=now)
    accepted = {item.place for item in staged.values() if item.identity not in taken}
    failpoints.reach("ingest.before_commit")

    stored = {
        identity: item.event.payload_hash for identity, item in staged.items() if item.place in accepted
    }
    others = [item for item in items if item.place not in accepted]
    stored |= _known_hashes({item.identity for item in others} - stored.keys())
    outcome = Outcome(accepted=len(accepted))
    for item in others:
        known = stored.get(item.identity)
        if known == item.event.payload_hash:
            outcome.duplicates += 1
        elif known is not None:
            errors[item.place] = _Refusal(
                CONFLICT, _("An event with this source and id, but other content, was accepted before.")
            )
        else:
            assert isinstance(item.resolved, _Refusal), (
                "an acceptable event is staged or its identity is known"
            )
            errors[item.place] = item.resolved
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
    """Everything that the events of a batch refer to, as far as it exists."""

    organizations: Mapping[str, UUID]
    projects: Mapping[tuple[UUID, str], UUID]
    keys: Mapping[tuple[UUID, str], UUID]
    regions: frozenset[str]
    meters: frozenset[str]

    def of(self, event: Received, window: _Window) -> _Resolved | _Refusal:
        """Return what the event's names stand for, or the first reason to refuse it."""
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
        return window.refusal(event) or _Resolved(organization_id, project_id, credential_id)


def _resolve(received: Iterable[Received]) -> _Names:
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
    return _Names(
        organizations=organizations,
        projects=_projects(set(organizations.values()), project_names) if project_names else {},
        keys=_keys(set(organizations.values()), key_names) if key_names else {},
        regions=pricing.region_codes() if regional else frozenset(),
        meters=frozenset(Meter.objects.values_list("code", flat=True)) if metered else frozenset(),
    )


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


def _store(items: Sequence[_Item], *, integration_id: UUID | None, now: datetime) -> set[tuple[str, str]]:
    """Insert the events, their resources and the notes for the tick; return the identities that were taken."""
    if not items:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(_STAGE)
        # Within one transaction, as in a test, an earlier batch is still there.
        cursor.execute("DELETE FROM metering_staged")
        with cursor.copy("COPY metering_staged FROM STDIN") as copy:
            copy.write("".join(_lines(items)).encode())
        cursor.execute(_NEW_RESOURCES)
        cursor.execute(_NEW_EVENTS, [integration_id, now, correlation.current()])
        return {items[ordinal].identity for (ordinal,) in cursor}


def _known_hashes(identities: set[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """Return the payload hashes of the identities that are stored, those that others just committed included."""
    if not identities:
        return {}
    asked = list(identities)
    with connection.cursor() as cursor:
        cursor.execute(_KNOWN_HASHES, [[source for source, _id in asked], [pk for _source, pk in asked]])
        return {(source, event_id): bytes(payload_hash) for source, event_id, payload_hash in cursor}


def _lines(items: Sequence[_Item]) -> Iterator[str]:
    """Yield the staged rows in COPY's text format.

    Checked text has no control characters, so that the backslash is all there is to escape.
    """
    resources: dict[tuple[Any, ...], UUID] = {}
    for ordinal, item in enumerate(items):
        event, resolved = item.event, item.resolved
        assert isinstance(resolved, _Resolved), "refused events are not staged"
        is_single_event = event.subject is None
        subject = event.id if event.subject is None else event.subject
        owner = (resolved.organization_id, event.source, subject, is_single_event)
        resource_id = resources.get(owner) or resources.setdefault(owner, uuid7())
        time = _time(event.time)
        started = _time(event.started)
        text = "\t".join(
            (
                str(ordinal),
                event.source,
                event.id,
                "\0" + event.payload_hash.hex(),
                str(resolved.organization_id),
                str(resource_id),
                subject,
                "t" if is_single_event else "f",
                event.type,
                time,
                event.sku,
                event.region,
                _number(event.milli_gpus, 3),
                _optional(resolved.project_id),
                _optional(resolved.credential_id),
                event.meter,
                _number(event.quantity, 6),
                started,
                _time(event.ended),
                event.labels,
                time if event.started is None else started,
            )
        )
        yield text.replace("\\", "\\\\").replace("\0", "\\\\x").replace("\1", "\\N") + "\n"


# Placeholders for what must survive the escaping: checked text holds no control characters.
_NULL = "\1"


def _time(milliseconds: int | None) -> str:
    return _NULL if milliseconds is None else from_ms(milliseconds).isoformat()


def _number(scaled: int | None, decimals: int) -> str:
    return _NULL if scaled is None else f"{scaled}e-{decimals}"


def _optional(value: UUID | None) -> str:
    return _NULL if value is None else str(value)
