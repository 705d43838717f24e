"""What applies when: the schedule that billing rates by, and the prices in force."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from django.contrib.postgres.expressions import ArraySubquery
from django.db import connection
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery

from apps.core.compiled import CompiledQuery
from apps.core.periods import floor_hour
from apps.pricing.models import (
    ANY,
    BookAssignment,
    Price,
    PriceBook,
    PriceBookVersion,
    PriceBookVersionQuerySet,
    PriceOverride,
    PriceOverrideQuerySet,
    VersionState,
    in_force_range,
)
from apps.pricing.rating import PriceTerms
from apps.pricing.selectors.terms import (
    ROW_AS_JSON,
    StoredKey,
    changed_by,
    terms_of_json,
    terms_of_own,
    terms_of_row,
    with_unit,
)

# Serialises the publication of prices with the charging of usage; any number nobody else uses.
_PRICES_LOCK = 7_265_110_001


class _Dated(Protocol):
    @property
    def effective_from(self) -> datetime | None: ...
    @property
    def effective_to(self) -> datetime | None: ...


type _Pattern = tuple[str, str, str]


type _Rows = Mapping[_Pattern, PriceTerms]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A time in which the same prices apply, until the next segment starts.

    version: of the book; None while there is none in force.
    own: the organization's own prices, which win over the book's; percentage: what changes the others.
    """

    start: datetime
    version: PriceBookVersion | None
    own: _Rows = field(default_factory=dict, repr=False)
    percentage: PriceOverride | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSchedule:
    """Every price that can apply to one organization's usage in [start, end).

    segments: contiguous, ascending; the first begins at `start`. overrides: all of the organization's in that time.
    """

    start: datetime
    end: datetime
    segments: Sequence[Segment]
    overrides: Sequence[PriceOverride] = field(repr=False)
    _starts: Sequence[datetime] = field(repr=False)
    _rows: Mapping[UUID, _Rows] = field(repr=False)
    # The terms that overrides make of rows, by override and row: made once, since charging asks for every hour.
    _made: dict[StoredKey, PriceTerms] = field(default_factory=dict, repr=False, compare=False)

    def version_at(self, hour: datetime) -> PriceBookVersion | None:
        """Return the version in force in the whole UTC hour that contains `hour`."""
        return self.segments[self._index(hour)].version

    def rows_at(self, hour: datetime) -> Sequence[PriceTerms]:
        """Return every row in force, by meter, SKU and region with `*` last.

        The organization's own prices stand in place of those of the book that they hide.
        """
        segment = self.segments[self._index(hour)]
        book = self._rows[segment.version.pk].values() if segment.version else ()
        rows = [
            *segment.own.values(),
            *(self._changed(row, segment) for row in book if not _hidden(row, segment.own)),
        ]
        return sorted(
            rows, key=lambda row: [(part == ANY, part) for part in (row.meter, row.sku, row.region)]
        )

    def terms_at(self, meter: str, sku: str, region: str, hour: datetime) -> PriceTerms | None:
        """Return the most specific row in force in the whole UTC hour that contains `hour`, or None.

        The order is SKU and region, SKU and `*`, `*` and region, `*` and `*`; the organization's own prices come
        before all of the book's.
        """
        return self._matching(self._index(hour), meter, sku, region)

    def terms_for(
        self, meter: str, sku: str, region: str, hour: datetime, period_start: datetime
    ) -> PriceTerms | None:
        """Return the row that prices `hour` of the billing period starting at `period_start`, or None.

        A change between per-unit rows acts at once. Where the row on either side of a change is tiered, the
        old one holds to the period's end, also when no row follows it. Usage without a price takes a new one
        at once: there is nothing to hold.
        """
        first, last = self._index(period_start), self._index(hour)
        terms = self._matching(first, meter, sku, region)
        for index in range(first + 1, last + 1):
            successor = self._matching(index, meter, sku, region)
            if terms is not None and successor is not None and successor.key_id == terms.key_id:
                terms = successor
            elif terms is not None and (terms.is_tiered or (successor is not None and successor.is_tiered)):
                return terms
            else:
                terms = successor
        return terms

    def stored_rows(self) -> Mapping[UUID, PriceTerms]:
        """Return the rows of every version in the schedule by their id, as the book has them."""
        return {
            terms.price_id: terms for rows in self._rows.values() for terms in rows.values() if terms.price_id
        }

    def _index(self, hour: datetime) -> int:
        # Effective dates are whole hours, so the hour that contains a piece has one price.
        moment = max(floor_hour(hour), self.start)
        assert self.start <= hour < self.end, "the schedule was loaded for another time"
        return bisect_right(self._starts, moment) - 1

    def _matching(self, index: int, meter: str, sku: str, region: str) -> PriceTerms | None:
        segment = self.segments[index]
        row = _most_specific(self._rows[segment.version.pk], meter, sku, region) if segment.version else None
        own = _most_specific(segment.own, meter, sku, region) if segment.own else None
        if own is not None:
            return self._beside(own, row)
        return None if row is None else self._changed(row, segment)

    def _beside(self, own: PriceTerms, row: PriceTerms | None) -> PriceTerms:
        """Return a price of the organization's own, naming the row of the book that it stands for."""
        if row is None:
            return own
        made = self._made.get((row.price_id, own.override_id))
        if made is None:
            made = self._made[row.price_id, own.override_id] = replace(own, price_id=row.price_id)
        return made

    def _changed(self, row: PriceTerms, segment: Segment) -> PriceTerms:
        if segment.percentage is None:
            return row
        made = self._made.get((row.price_id, segment.percentage.pk))
        if made is None:
            made = changed_by(row, segment.percentage)
            self._made[row.price_id, segment.percentage.pk] = made
        return made


def schedule(*, organization_id: UUID | None, currency: str, start: datetime, end: datetime) -> PriceSchedule:
    """Return the prices of an organization's usage in [start, end), in one query, and one of its overrides if any.

    organization_id: None for anonymous callers, who see the default book. An assignment to a book in another
    currency than the one asked for counts as none.
    start: at or before the start of every period that `terms_for` will be asked about.
    """
    assert start < end, "a schedule covers some time"
    if organization_id is None:
        versions: list[Any] = list(_versions_with_rows(None, currency, start, end))
    else:
        versions = _VERSIONS_OF_ORGANIZATION.all(
            organization_id=organization_id, currency=currency, start=start, end=end
        )
    overrides = _overrides_beside(versions, organization_id, currency, start, end)
    segments = _segments(versions, overrides, start, end)
    return PriceSchedule(
        start=start,
        end=end,
        segments=segments,
        overrides=overrides,
        _starts=[segment.start for segment in segments],
        _rows={version.pk: _by_pattern(map(terms_of_json, version.rows)) for version in versions},
    )


def prices_in_force(*, organization_id: UUID | None, currency: str, at: datetime) -> Segment:
    """Return what prices an organization's usage at a moment: the version, its own prices, its percentage."""
    end = at + timedelta(microseconds=1)
    versions = list(_versions(organization_id, currency, at, end))
    overrides = _overrides_beside(versions, organization_id, currency, at, end)
    return _segments(versions, overrides, at, end)[0]


def rows_of_book(segment: Segment) -> QuerySet[Price]:
    """Return the rows of the version in force that no price of the organization's own hides."""
    prices = Price.objects.select_related("meter", "version__book").annotate(
        unit_seconds=F("meter__unit_seconds")
    )
    if segment.version is None:
        return prices.none()
    hidden = Q(pk__in=[])
    for meter, sku, region in segment.own:
        wider = {name: code for name, code in (("sku", sku), ("region", region)) if code != ANY}
        hidden |= Q(meter=meter, **wider)
    return prices.filter(version=segment.version).exclude(hidden)


def rows_of_own(segment: Segment) -> PriceOverrideQuerySet:
    """Return the prices of the organization's own that are in force."""
    ids = [terms.override_id for terms in segment.own.values() if terms.override_id]
    return with_unit(PriceOverride.objects.filter(pk__in=ids).select_related("meter"))


def terms_in(segment: Segment, row: Price | PriceOverride) -> PriceTerms:
    """Return what a row of `rows_of_book` or `rows_of_own` comes to for the organization."""
    if isinstance(row, PriceOverride):
        return terms_of_own(row)
    terms = terms_of_row(row)
    return changed_by(terms, segment.percentage) if segment.percentage else terms


def rows_in_force(*, organization_id: UUID | None, currency: str, at: datetime) -> Sequence[PriceTerms]:
    """Return every row that can price an organization's usage at a moment; None for nobody in particular."""
    start = floor_hour(at)
    found = schedule(
        organization_id=organization_id, currency=currency, start=start, end=start + timedelta(hours=1)
    )
    return found.rows_at(start)


def ever_priced(organization_id: UUID, places: Iterable[_Pattern]) -> set[_Pattern]:
    """Return those of some meters, SKUs and regions of usage that any price names, whenever it applies and to whom.

    Prices are those of all books that were ever published and the organization's own. Two queries at most.
    """
    wanted = set(places)
    meters, skus, regions = (set(codes) for codes in zip(*wanted, strict=True))
    named = Q(meter__in=meters, sku__in=skus | {ANY}, region__in=regions | {ANY})
    published = Price.objects.filter(named).exclude(version__state=VersionState.DRAFT)
    own = PriceOverride.objects.filter(named, organization_id=organization_id)
    found = {
        *published.values_list("meter__code", "sku", "region").distinct(),
        *own.values_list("meter__code", "sku", "region").distinct(),
    }
    return {place for place in wanted if not found.isdisjoint(_patterns(*place))}


def hourly_prices(rows: Iterable[PriceTerms], sku: str) -> list[PriceTerms]:
    """Return the rows that price a SKU's time: its own, and those for any SKU that none of its own hides."""
    hourly = [row for row in rows if row.unit_seconds > 1 and row.sku in (sku, ANY)]
    own = {(row.meter, row.region) for row in hourly if row.sku == sku}
    everywhere = {meter for meter, region in own if region == ANY}
    return [
        row
        for row in hourly
        if row.sku == sku or ((row.meter, row.region) not in own and row.meter not in everywhere)
    ]


def schedule_of_book(*, book: PriceBook, at: datetime) -> PriceSchedule:
    """Return the prices of one book in the hour that contains a moment, whoever it is assigned to."""
    start = floor_hour(at)
    version = PriceBookVersion.objects.filter(book=book).in_force_at(start).select_related("book").first()
    rows = Price.objects.filter(version=version).values_list(ROW_AS_JSON, flat=True) if version else ()
    return PriceSchedule(
        start=start,
        end=start + timedelta(hours=1),
        segments=[Segment(start=start, version=version)],
        overrides=(),
        _starts=[start],
        _rows={version.pk: _by_pattern(map(terms_of_json, rows))} if version else {},
    )


def hold_prices_still() -> None:
    """Wait for any publication under way and keep new ones out until this transaction ends.

    Whoever posts amounts calls this before loading a schedule, so that "not before usage already rated" stays
    true between the check and the commit. Holders do not exclude each other.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [_PRICES_LOCK])


def exclude_charging() -> None:
    """Wait until nobody charges by the present prices, and keep chargers out until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_PRICES_LOCK])


def _versions(
    organization_id: UUID | None, currency: str, start: datetime, end: datetime
) -> PriceBookVersionQuerySet:
    """Return the versions that may price an organization's usage in [start, end), each with when its book does.

    assigned: the times in which its book is assigned; assigned_any: those in which any book is, so that the default
    book is not in force. has_overrides: whether the organization pays anything else in [start, end).
    """
    assignments = BookAssignment.objects.filter(
        Q(effective_to__isnull=True) | Q(effective_to__gt=start),
        Q(organization_id=organization_id),
        book__currency=currency,
        effective_from__lt=end,
    )
    times = assignments.order_by("effective_from", "pk").values(time=in_force_range())
    throughout = assignments.filter(
        Q(effective_to__isnull=True) | Q(effective_to__gte=end), effective_from__lte=start
    )
    return (
        PriceBookVersion.objects.in_force_during(start, end)
        .annotate(
            default_book_id=Subquery(PriceBook.objects.default_for(currency).values("pk")),
            assigned=ArraySubquery(times.filter(book=OuterRef("book"))),
            assigned_any=ArraySubquery(times),
            has_overrides=Exists(_overrides(organization_id, currency, start, end)),
        )
        .filter(Q(book__in=assignments.values("book")) | Q(book=F("default_book_id")) & ~Exists(throughout))
        .select_related("book")
        .order_by("effective_from", "pk")
    )


def _versions_with_rows(
    organization_id: UUID | None, currency: str, start: datetime, end: datetime
) -> PriceBookVersionQuerySet:
    rows = Price.objects.filter(version=OuterRef("pk")).values(row=ROW_AS_JSON)
    return _versions(organization_id, currency, start, end).annotate(rows=ArraySubquery(rows))


_VERSIONS_OF_ORGANIZATION = CompiledQuery(
    _versions_with_rows,
    organization_id=UUID(int=1),
    currency="currency",
    start=datetime(2000, 1, 1, tzinfo=UTC),
    end=datetime(2000, 1, 2, tzinfo=UTC),
)


def _overrides(
    organization_id: UUID | None, currency: str, start: datetime, end: datetime
) -> PriceOverrideQuerySet:
    return (
        with_unit(PriceOverride.objects.in_force_during(start, end))
        .filter(Q(percent__isnull=False) | Q(currency=currency), Q(organization_id=organization_id))
        .order_by("effective_from", "pk")
    )


def _overrides_beside(
    versions: Sequence[Any], organization_id: UUID | None, currency: str, start: datetime, end: datetime
) -> list[PriceOverride]:
    """Return the organization's overrides, without asking where the versions say that there are none."""
    if organization_id is None or (versions and not versions[0].has_overrides):
        return []
    return list(_overrides(organization_id, currency, start, end))


def _segments(
    versions: Sequence[Any], overrides: Sequence[PriceOverride], start: datetime, end: datetime
) -> list[Segment]:
    own = [(override, terms_of_own(override)) for override in overrides if not override.is_percentage]
    percentages = [override for override in overrides if override.is_percentage]
    changes: set[datetime | None] = {start}
    dated: list[_Dated] = [*versions, *overrides]
    for row in dated:
        changes |= {row.effective_from, row.effective_to}
    for time in versions[0].assigned_any if versions else ():
        changes |= {time.lower, time.upper}
    return [
        Segment(
            start=moment,
            version=next((version for version in versions if _prices(version, moment)), None),
            own={
                (terms.meter, terms.sku, terms.region): terms
                for override, terms in own
                if _covering([override], moment)
            },
            percentage=_covering(percentages, moment),
        )
        for moment in sorted(change for change in changes if change and start <= change < end)
    ]


def _prices(version: Any, moment: datetime) -> bool:
    """Return whether a version of `_versions` prices a moment: of the book assigned then, else of the default."""
    if _covering([version], moment) is None:
        return False
    if any(moment in time for time in version.assigned):
        return True
    is_default: bool = version.book_id == version.default_book_id
    return is_default and not any(moment in time for time in version.assigned_any)


def _by_pattern(rows: Iterable[PriceTerms]) -> _Rows:
    return {(terms.meter, terms.sku, terms.region): terms for terms in rows}


def _most_specific(rows: _Rows, meter: str, sku: str, region: str) -> PriceTerms | None:
    for pattern in _patterns(meter, sku, region):
        if found := rows.get(pattern):
            return found
    return None


def _patterns(meter: str, sku: str, region: str) -> tuple[_Pattern, ...]:
    """Return what a row that matches can name, the most specific first."""
    return (meter, sku, region), (meter, sku, ANY), (meter, ANY, region), (meter, ANY, ANY)


def _hidden(row: PriceTerms, own: _Rows) -> bool:
    """Return whether a price of the organization's own takes everything that a row of the book would price."""
    return any((row.meter, sku, region) in own for sku in {row.sku, ANY} for region in {row.region, ANY})


def _covering[T: _Dated](rows: Iterable[T], moment: datetime) -> T | None:
    for row in rows:
        if row.effective_from is None or row.effective_from > moment:
            continue
        if row.effective_to is None or row.effective_to > moment:
            return row
    return None
