"""The tick: from events to hourly usage, one organization at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

from apps.core import binary_copy, failpoints
from apps.core.money import EXACT
from apps.core.periods import floor_hour
from apps.metering import intervals
from apps.metering.facts import Window, count_usage
from apps.metering.intervals import HOUR_MS, HourKey, from_ms, to_ms
from apps.metering.models import DIRTY_RESOURCES_MAX, MeteringState, Resource
from apps.organizations import services as organizations
from apps.organizations.models import BillingPeriod

# A step may take longer than other locks are waited for; whoever comes second still wants its turn.
LOCK_WAIT_MS = 60_000
# Hours are computed, compared and written in slices of about so many, so that a backlog of years needs no more memory.
SLICE_HOURS = 20_000
# Batches that wait are folded when there are more than so many, and so many at once.
FOLDED_FROM, FOLDED_MAX = 8, 4_000
_MILLIONTHS = -6


_FOLD = """
    WITH oldest AS MATERIALIZED (
        SELECT id FROM metering_dirtybatch
         WHERE organization_id = %(organization)s AND NOT is_folded ORDER BY id LIMIT %(most)s
    ), taken AS (
        DELETE FROM metering_dirtybatch batch USING oldest
         WHERE batch.id = oldest.id AND (SELECT count(*) FROM oldest) > %(few)s
        RETURNING batch.resource_ids, batch.since
    ), news AS (
        SELECT resource_id, min(news.since) AS since, row_number() OVER (ORDER BY resource_id) - 1 AS place
          FROM taken CROSS JOIN unnest(taken.resource_ids, taken.since) AS news (resource_id, since)
         GROUP BY resource_id
    )
    INSERT INTO metering_dirtybatch (organization_id, resource_ids, since, is_folded)
    SELECT %(organization)s, array_agg(resource_id), array_agg(since), true
      FROM news GROUP BY place / %(row)s ORDER BY place / %(row)s
"""
_CLAIM = """
    WITH oldest AS MATERIALIZED (
        SELECT id, sum(cardinality(resource_ids)) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING)
                   - cardinality(resource_ids) AS before
          FROM metering_dirtybatch WHERE organization_id = %(organization)s ORDER BY id LIMIT %(limit)s
    ), claimed AS (
        DELETE FROM metering_dirtybatch batch USING oldest
         WHERE batch.id = oldest.id AND oldest.before < %(limit)s
        RETURNING batch.resource_ids, batch.since
    )
    SELECT news.resource_id, min(news.since), sum(count(*)) OVER ()
      FROM claimed CROSS JOIN unnest(claimed.resource_ids, claimed.since) AS news (resource_id, since)
     GROUP BY news.resource_id ORDER BY news.resource_id
"""
_COPY_HOURS = """
    COPY metering_usagehour (
        organization_id, resource_id, meter, sku, region, project_id, credential_id, revision, hour, quantity
    ) FROM STDIN (FORMAT binary)
"""
_HOUR_FIELDS = (10).to_bytes(2)
_PUT_BACK = """
    INSERT INTO metering_dirtybatch (organization_id, resource_ids, since, is_folded)
    SELECT %s, array_agg(resource_id), array_agg(since), true
      FROM unnest(%s::uuid[], %s::timestamptz[]) WITH ORDINALITY AS news (resource_id, since, place)
     GROUP BY (place - 1) / %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteringStep:
    """What one step did.

    resources: how many were counted. more: whether another step is needed now.
    metered_until: how far the organization is counted; it moves with the last step only.
    """

    resources: int
    more: bool
    metered_until: datetime | None


class _Ends(NamedTuple):
    """Until when events prove a resource's usage at all, and the part that no stop has ended; in milliseconds."""

    live_until: int | None
    running_until: int | None


class _Row(NamedTuple):
    """One hour of one resource: as stored, with its id, or as it should be."""

    resource_id: UUID
    key: HourKey


class MeteringBusy(Exception):
    """Somebody else meters, charges or closes this organization at the moment."""


@transaction.atomic
def lock_metering(*, organization_id: UUID, wait: bool = True) -> MeteringState:
    """Return the organization's metering state, locked until the transaction ends.

    Metering, charging and closing of one organization wait for each other here, up to `LOCK_WAIT_MS`; who does not
    want to wait gets `MeteringBusy`.
    """
    states = MeteringState.objects.filter(pk=organization_id)
    if not wait:
        if found := states.select_for_update(no_key=True, skip_locked=True).first():
            return found
        if states.exists():
            raise MeteringBusy
        # Its first time; nobody holds what does not exist.
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(LOCK_WAIT_MS)])
        state = states.select_for_update(no_key=True).first()
        if state is None:
            cursor.execute(
                "INSERT INTO metering_meteringstate (organization_id) VALUES (%s) ON CONFLICT DO NOTHING",
                [organization_id],
            )
            state = states.select_for_update(no_key=True).get()
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(settings.LOCK_TIMEOUT_MS)])
    return state


@transaction.atomic
def meter_organization(
    *, organization_id: UUID, until: datetime, now: datetime, limit: int = 500, wait: bool = True
) -> MeteringStep:
    """Count up to `limit` resources of an organization that have news or that run on; call again while `more`.

    until: the cut-off; one before the last is taken as the last, so that counted usage never shrinks by itself.
    wait: for whoever else works on the organization; MeteringBusy otherwise.
    Each step is a transaction of its own. What it claims it deletes; what commits later keeps its own claim.
    """
    state = lock_metering(organization_id=organization_id, wait=wait)
    cutoff = max(until.astimezone(UTC), state.metered_until or until)
    news, more_news = _claim_news(organization_id, limit)
    failpoints.reach("metering.after_claim")
    resources = list(Resource.objects.filter(organization_id=organization_id, pk__in=news).order_by("pk"))
    unfinished = list(
        Resource.objects.filter(organization_id=organization_id)
        .unfinished(cutoff)
        .exclude(pk__in=news)
        .order_by("metered_until", "pk")[: limit - len(news) + 1]
    )
    more = more_news or len(unfinished) > limit - len(news)
    resources += unfinished[: limit - len(news)]

    ends: dict[UUID, _Ends] = {}
    for windows in _slices(_count(resources, news, cutoff), ends):
        boundaries = _boundaries(organization_id, windows, now=now)
        failpoints.reach("metering.before_write")
        _write_hours(organization_id, windows, boundaries)
    _write_resources(ends, cutoff)
    if not more:
        state.metered_until = cutoff
        state.save(update_fields=["metered_until"])
    failpoints.reach("metering.before_commit")
    return MeteringStep(resources=len(resources), more=more, metered_until=state.metered_until)


def _claim_news(organization_id: UUID, limit: int) -> tuple[dict[UUID, datetime], bool]:
    """Delete the oldest dirty rows; return the earliest moment that concerns each of at most `limit` resources.

    Also returns whether to ask again.
    Exactly the rows that a statement saw are deleted: an event that commits from now on has a row of its own. Batches
    that repeat the same resources, as a backlog of heartbeats does, are first folded into rows that name each once.
    What is one row with a claimed resource, but beyond the limit, goes back to the end of the queue.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _FOLD,
            {
                "organization": organization_id,
                "few": FOLDED_FROM,
                "most": FOLDED_MAX,
                "row": DIRTY_RESOURCES_MAX,
            },
        )
        cursor.execute(_CLAIM, {"organization": organization_id, "limit": limit})
        claimed = cursor.fetchall()
        if excess := claimed[limit:]:
            ids, since, _changes = zip(*excess, strict=True)
            cursor.execute(_PUT_BACK, [organization_id, list(ids), list(since), DIRTY_RESOURCES_MAX])
    may_be_more = bool(claimed) and claimed[0][2] >= limit
    return {resource_id: since for resource_id, since, _changes in claimed[:limit]}, may_be_more


def _count(
    resources: Iterable[Resource], news: Mapping[UUID, datetime], cutoff: datetime
) -> Iterator[Window]:
    """Yield the usage of each resource, reading only the events that the changed hours depend on."""
    return count_usage(
        {resource.pk: _changed_since(resource, news.get(resource.pk)) for resource in resources},
        to_ms(cutoff),
    )


def _changed_since(resource: Resource, news_since: datetime | None) -> int:
    """Return the start of the first hour that may differ from what is stored, in milliseconds; 0 for all.

    Usage before all of these is settled: the new events, the last cut-off, and the end of an open run, whose
    continuity beyond it a new event can prove.
    """
    if resource.metered_until is None:
        return 0
    moments = [news_since, resource.metered_until, resource.running_until]
    return to_ms(floor_hour(min(moment for moment in moments if moment is not None)))


def _boundaries(organization_id: UUID, windows: Sequence[Window], *, now: datetime) -> list[int]:
    """Return the starts of the organization's billing periods, where the counted usage is to be cut."""
    spans = [span for window in windows if (span := _span(window))]
    if not spans:
        return []
    earliest, latest = min(first for first, _last in spans), max(last for _first, last in spans)
    starts = _period_starts(organization_id, from_ms(earliest), from_ms(latest), now=now)
    return [to_ms(start) for start in starts]


def _span(window: Window) -> tuple[int, int] | None:
    """Return the first and the last instant of the usage in a window; None if there is none."""
    segments = [
        segment
        for segment in window.usage.segments
        if segment.end > window.since and segment.start < window.until
    ]
    readings = [fact.time for fact in window.usage.readings if window.since <= fact.time < window.until]
    starts = [max(segment.start, window.since) for segment in segments[:1]] + readings[:1]
    ends = [min(segment.end, window.until) - 1 for segment in segments[-1:]] + readings[-1:]
    return (min(starts), max(ends)) if starts else None


def _slices(counted: Iterable[Window], ends: dict[UUID, _Ends]) -> Iterator[list[Window]]:
    """Yield what was counted in parts of about `SLICE_HOURS` hours: many resources, or some years of one.

    ends: gets the ends of every resource's usage.
    """
    windows: list[Window] = []
    room = SLICE_HOURS
    for window in counted:
        if window.is_last:
            ends[window.resource_id] = _Ends(window.usage.live_until, window.usage.running_until)
        first, last = _span(window) or (window.since, window.since)
        first -= first % HOUR_MS
        since = window.since
        # The first part also covers what is stored before and the last what is stored after the usage.
        while last - first > SLICE_HOURS * HOUR_MS:
            first += SLICE_HOURS * HOUR_MS
            yield [window._replace(since=since, until=first)]
            since = first
        windows.append(window._replace(since=since))
        room -= (last - first) // HOUR_MS + 1
        if room <= 0:
            yield windows
            windows, room = [], SLICE_HOURS
    if windows:
        yield windows


def _period_starts(
    organization_id: UUID, earliest: datetime, latest: datetime, *, now: datetime
) -> list[datetime]:
    """Return the starts of all billing periods, made as far as the usage needs them.

    Usage before a first period that is final has none; its hours are whole.
    """
    for moment in (earliest, latest):
        try:
            organizations.ensure_periods(organization_id=organization_id, covering=moment, now=now)
        except organizations.PeriodsFinal:
            continue
    return list(BillingPeriod.objects.of(organization_id).values_list("starts_at", flat=True))


def _write_hours(organization_id: UUID, windows: Sequence[Window], boundaries: Sequence[int]) -> None:
    """Bring the stored hours of the windows to what was counted and queue every sum that changed for charging."""
    stored = _stored_hours(windows)
    changed: list[tuple[int, int]] = []
    added: list[tuple[_Row, int]] = []
    sums: dict[tuple[str, str, str, int], int] = defaultdict(int)

    def note(key: HourKey, difference: int) -> None:
        sums[key.meter, key.sku, key.region, key.hour] += difference

    for window in windows:
        for key, quantity in intervals.hours(window.usage, boundaries, window.since, window.until).items():
            pk, before = stored.pop(_Row(window.resource_id, key), (None, 0))
            if pk is None:
                added.append((_Row(window.resource_id, key), quantity))
            elif quantity != before:
                changed.append((pk, quantity))
            note(key, quantity - before)
    for row, (pk, before) in stored.items():
        if before:
            changed.append((pk, 0))
            note(row.key, -before)

    _insert_hours(organization_id, added)
    _update_hours(changed)
    _queue_changes(organization_id, sorted(slot for slot, difference in sums.items() if difference))


def _stored_hours(windows: Sequence[Window]) -> dict[_Row, tuple[int, int]]:
    """Return the stored hours of the windows as (id, millionths), in one query."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT stored.id, stored.resource_id, stored.meter, stored.project_id, stored.sku, stored.region,
                   stored.credential_id, (extract(epoch FROM stored.hour) * 1000)::bigint,
                   trunc(stored.quantity * 1000000)
              FROM metering_usagehour stored
              JOIN unnest(%s::uuid[], %s::timestamptz[], %s::timestamptz[]) AS counted (resource_id, since, until)
                ON stored.resource_id = counted.resource_id
               AND stored.hour >= counted.since AND stored.hour < counted.until
            """,
            [
                [window.resource_id for window in windows],
                [from_ms(window.since) for window in windows],
                [from_ms(window.until) for window in windows],
            ],
        )
        return {
            _Row(resource_id, HourKey(meter, project, sku, region, credential, hour)): (pk, int(quantity))
            for pk, resource_id, meter, project, sku, region, credential, hour, quantity in cursor
        }


def _insert_hours(organization_id: UUID, rows: Collection[tuple[_Row, int]]) -> None:
    if not rows:
        return
    organization, first_revision = binary_copy.uuid(organization_id), binary_copy.integer(1)
    # What the hours of a resource have in common is made once.
    common: dict[tuple[object, ...], bytes] = {}
    packed: list[bytes] = []
    for (resource_id, (meter, project, sku, region, credential, hour)), quantity in rows:
        shape = (resource_id, meter, project, sku, region, credential)
        start = common.get(shape)
        if start is None:
            start = common[shape] = b"".join(
                (
                    _HOUR_FIELDS,
                    organization,
                    binary_copy.uuid(resource_id),
                    binary_copy.text(meter),
                    binary_copy.text(sku),
                    binary_copy.text(region),
                    binary_copy.uuid(project),
                    binary_copy.uuid(credential),
                    first_revision,
                )
            )
        packed += (start, binary_copy.moment(hour), binary_copy.numeric(quantity, -_MILLIONTHS))
    binary_copy.send(_COPY_HOURS, packed)


def _update_hours(rows: Sequence[tuple[int, int]]) -> None:
    if not rows:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE metering_usagehour stored SET quantity = counted.quantity, revision = revision + 1
              FROM unnest(%s::bigint[], %s::numeric[]) AS counted (id, quantity)
             WHERE stored.id = counted.id
            """,
            [[pk for pk, _quantity in rows], [_decimal(quantity) for _pk, quantity in rows]],
        )


def _queue_changes(organization_id: UUID, slots: Collection[tuple[str, str, str, int]]) -> None:
    if not slots:
        return
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY metering_usagechange (organization_id, meter, sku, region, hour) FROM STDIN"
        ) as copy,
    ):
        for meter, sku, region, hour in slots:
            copy.write_row((organization_id, meter, sku, region, from_ms(hour)))


def _write_resources(ends: Mapping[UUID, _Ends], cutoff: datetime) -> None:
    """Remember of each resource where its usage ends, so that the next tick knows whether it runs on."""
    if not ends:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE metering_resource stored
               SET live_until = counted.live_until, running_until = counted.running_until, metered_until = %s
              FROM unnest(%s::uuid[], %s::timestamptz[], %s::timestamptz[])
                   AS counted (id, live_until, running_until)
             WHERE stored.id = counted.id
            """,
            [
                cutoff,
                list(ends),
                [_moment(found.live_until) for found in ends.values()],
                [_moment(found.running_until) for found in ends.values()],
            ],
        )


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else from_ms(milliseconds)


def _decimal(millionths: int) -> Decimal:
    return Decimal(millionths).scaleb(_MILLIONTHS, EXACT)
