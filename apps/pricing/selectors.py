"""Reads of prices: the schedule that billing rates by, and what is sold where."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol, cast
from uuid import UUID

from django.db import connection
from django.db.models import F, Q, Subquery

from apps.core.periods import floor_hour
from apps.pricing.models import ANY, BookAssignment, Meter, Price, PriceBook, PriceBookVersion, Region
from apps.pricing.rating import Model, PriceTerms, Tier

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
    """A half-open time in which one version prices everything; None while nothing does."""

    start: datetime
    version: PriceBookVersion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSchedule:
    """Every price that can apply to one organization's usage in [start, end).

    segments: contiguous, ascending; the first begins at `start`.
    """

    start: datetime
    end: datetime
    segments: Sequence[Segment]
    _starts: Sequence[datetime] = field(repr=False)
    _rows: Mapping[UUID, _Rows] = field(repr=False)

    def version_at(self, hour: datetime) -> PriceBookVersion | None:
        """Return the version in force in the whole UTC hour that contains `hour`."""
        return self.segments[self._index(hour)].version

    def rows_at(self, hour: datetime) -> Sequence[PriceTerms]:
        """Return every row of the version in force, by meter, SKU and region with `*` last."""
        version = self.version_at(hour)
        rows = self._rows[version.pk].values() if version else ()
        return sorted(
            rows, key=lambda row: [(part == ANY, part) for part in (row.meter, row.sku, row.region)]
        )

    def terms_at(self, meter: str, sku: str, region: str, hour: datetime) -> PriceTerms | None:
        """Return the most specific row in force in the whole UTC hour that contains `hour`, or None.

        The order is SKU and region, SKU and `*`, `*` and region, `*` and `*`.
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

    def _index(self, hour: datetime) -> int:
        # Effective dates are whole hours, so the hour that contains a piece has one price.
        moment = max(floor_hour(hour), self.start)
        assert self.start <= hour < self.end, "the schedule was loaded for another time"
        return bisect_right(self._starts, moment) - 1

    def _matching(self, index: int, meter: str, sku: str, region: str) -> PriceTerms | None:
        version = self.segments[index].version
        if version is None:
            return None
        rows = self._rows[version.pk]
        for pattern in ((meter, sku, region), (meter, sku, ANY), (meter, ANY, region), (meter, ANY, ANY)):
            if found := rows.get(pattern):
                return found
        return None


def schedule(*, organization_id: UUID | None, currency: str, start: datetime, end: datetime) -> PriceSchedule:
    """Return the prices of an organization's usage in [start, end), in at most three queries.

    organization_id: None for anonymous callers, who see the default book. An assignment to a book in another
    currency than the one asked for counts as none.
    start: at or before the start of every period that `terms_for` will be asked about.
    """
    assert start < end, "a schedule covers some time"
    segments = _segments(organization_id, currency, start, end)
    return PriceSchedule(
        start=start,
        end=end,
        segments=segments,
        _starts=[segment.start for segment in segments],
        _rows=_rows_of({segment.version.pk for segment in segments if segment.version}),
    )


def version_in_force(*, organization_id: UUID | None, currency: str, at: datetime) -> PriceBookVersion | None:
    """Return the version that prices an organization's usage at a moment; None for nobody in particular."""
    return _segments(organization_id, currency, at, at + timedelta(microseconds=1))[0].version


def rows_in_force(*, organization_id: UUID | None, currency: str, at: datetime) -> Sequence[PriceTerms]:
    """Return every row that can price an organization's usage at a moment; None for nobody in particular."""
    start = floor_hour(at)
    found = schedule(
        organization_id=organization_id, currency=currency, start=start, end=start + timedelta(hours=1)
    )
    return found.rows_at(start)


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
    return PriceSchedule(
        start=start,
        end=start + timedelta(hours=1),
        segments=[Segment(start=start, version=version)],
        _starts=[start],
        _rows=_rows_of({version.pk} if version else set()),
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


def unit_seconds() -> dict[str, int]:
    """Return the seconds per unit of every meter by its code: 3600 where quantities are seconds and hours are sold."""
    return dict(Meter.objects.values_list("code", "unit_seconds"))


def known_region(code: str) -> bool:
    """Return whether the operator has a region of that code."""
    return Region.objects.filter(code=code).exists()


def meter_codes() -> frozenset[str]:
    """Return the codes of all meters."""
    return frozenset(Meter.objects.values_list("code", flat=True))


def region_codes() -> frozenset[str]:
    """Return the codes of all regions."""
    return frozenset(Region.objects.values_list("code", flat=True))


def terms_of(price: Price, *, book_id: UUID, unit_seconds: int) -> PriceTerms:
    """Return a row as rating needs it."""
    return PriceTerms(
        key_id=price.key_id,
        price_id=price.pk,
        version_id=price.version_id,
        book_id=book_id,
        meter=price.meter_id,
        sku=price.sku,
        region=price.region,
        model=cast("Model", price.model),
        unit_price=price.unit_price,
        tiers=tiers_of(price.tiers),
        package_size=price.package_size,
        package_price=price.package_price,
        free_units=price.free_units,
        unit_seconds=unit_seconds,
    )


def tiers_of(stored: Iterable[Mapping[str, Any]] | None) -> tuple[Tier, ...]:
    """Return stored tiers with their decimal strings as decimals."""
    return tuple(
        Tier(
            up_to=None if tier["up_to"] is None else Decimal(tier["up_to"]),
            unit_price=Decimal(tier["unit_price"]),
            flat_fee=Decimal(tier["flat_fee"]),
        )
        for tier in stored or ()
    )


def _assignments(
    organization_id: UUID | None, currency: str, start: datetime, end: datetime
) -> list[BookAssignment]:
    if organization_id is None:
        return []
    return list(
        BookAssignment.objects.filter(
            Q(effective_to__isnull=True) | Q(effective_to__gt=start),
            organization_id=organization_id,
            book__currency=currency,
            effective_from__lt=end,
        ).order_by("effective_from", "pk")
    )


def _segments(organization_id: UUID | None, currency: str, start: datetime, end: datetime) -> list[Segment]:
    assignments = _assignments(organization_id, currency, start, end)
    assigned = {assignment.book_id for assignment in assignments}
    versions = list(
        PriceBookVersion.objects.in_force_during(start, end)
        .annotate(default_book_id=Subquery(PriceBook.objects.default_for(currency).values("pk")))
        .filter(Q(book__in=assigned) | Q(book=F("default_book_id")))
        .select_related("book")
        .order_by("effective_from", "pk")
    )
    default_book_id = cast("Any", versions[0]).default_book_id if versions else None
    by_book: dict[UUID, list[PriceBookVersion]] = {}
    for version in versions:
        by_book.setdefault(version.book_id, []).append(version)
    changes = {start}
    dated: list[_Dated] = [*assignments, *versions]
    for row in dated:
        changes |= {moment for moment in (row.effective_from, row.effective_to) if moment}
    segments = []
    for moment in sorted(change for change in changes if start <= change < end):
        assignment = _covering(assignments, moment)
        book_id = assignment.book_id if assignment else default_book_id
        version_then = _covering(by_book.get(book_id, ()), moment) if book_id else None
        segments.append(Segment(start=moment, version=version_then))
    return segments


def _covering[T: _Dated](rows: Iterable[T], moment: datetime) -> T | None:
    for row in rows:
        if row.effective_from is None or row.effective_from > moment:
            continue
        if row.effective_to is None or row.effective_to > moment:
            return row
    return None


def _rows_of(version_ids: Iterable[UUID]) -> dict[UUID, dict[_Pattern, PriceTerms]]:
    rows: dict[UUID, dict[_Pattern, PriceTerms]] = {version_id: {} for version_id in version_ids}
    if not rows:
        return rows
    prices = Price.objects.filter(version__in=rows).annotate(
        book_id=F("version__book"), unit_seconds=F("meter__unit_seconds")
    )
    for price in prices.iterator():
        terms = terms_of(price, book_id=price.book_id, unit_seconds=price.unit_seconds)
        rows[price.version_id][terms.meter, terms.sku, terms.region] = terms
    return rows
