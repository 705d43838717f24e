"""Books, versions and the catalog: what editors, forms and imports ask."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from apps.core.errors import NotFound
from apps.organizations.models import Organization
from apps.pricing.models import (
    BookAssignment,
    Meter,
    Price,
    PriceBook,
    PriceBookVersion,
    PriceOverride,
    Region,
    VersionState,
)
from apps.pricing.selectors.terms import TERMS


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


def book_by_id(book_id: UUID) -> PriceBook:
    """Return a price book, or raise NotFound."""
    book = PriceBook.objects.filter(pk=book_id).first()
    if book is None:
        raise NotFound
    return book


def version_by_number(book_id: UUID, number: int) -> PriceBookVersion:
    """Return a version of a book with its book, or raise NotFound."""
    found = PriceBookVersion.objects.select_related("book").filter(book_id=book_id, number=number).first()
    if found is None:
        raise NotFound
    return found


def newest_draft(book: PriceBook) -> PriceBookVersion | None:
    """Return the draft of a book with the highest number."""
    return (
        PriceBookVersion.objects.filter(book=book, state=VersionState.DRAFT)
        .select_related("book")
        .order_by("-number")
        .first()
    )


def version_to_show(book: PriceBook) -> PriceBookVersion | None:
    """Return what an editor starts from: the newest draft, else the newest version."""
    return newest_draft(book) or book.versions.order_by("-number").first()


def tag_of_book(book: PriceBook) -> str:
    """Return a strong tag of a book with its versions and their rows: equal tags, equal content.

    Rows of a published version are only ever added, so that it counts them; those of drafts are read.
    """
    parts: list[Any] = [book.name, book.currency]
    versions = book.versions.order_by("number").annotate(rows=Count("prices"))
    parts += versions.values_list("pk", "number", "state", "effective_from", "effective_to", "rows")
    parts += (
        Price.objects.filter(version__book=book, version__state=VersionState.DRAFT)
        .order_by("version__number", "meter", "sku", "region")
        .values_list("version", "meter", "sku", "region", "model", *TERMS)
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def touched_by(book: PriceBook, *, now: datetime) -> QuerySet[Organization]:
    """Return the organizations that a book prices now or from a later date on: assigned to it, or by default.

    Annotated with `is_assigned` and `overrides`, the number of what it pays instead; those assigned come first.
    """
    live = BookAssignment.objects.filter(
        Q(effective_to__isnull=True) | Q(effective_to__gt=now), organization=OuterRef("pk")
    )
    covers_now = live.filter(effective_from__lte=now)
    overrides = (
        PriceOverride.objects.filter(
            Q(effective_to__isnull=True) | Q(effective_to__gt=now), organization=OuterRef("pk")
        )
        .order_by()
        .values("organization")
        .annotate(total=Count("pk"))
        .values("total")
    )
    by_default: Any = Q(pk__in=[])
    if list(PriceBook.objects.default_for(book.currency)) == [book]:
        by_default = Q(currency=book.currency) & ~Exists(covers_now)
    return (
        Organization.objects.annotate(
            is_assigned=Exists(live.filter(book=book)), overrides=Coalesce(Subquery(overrides), 0)
        )
        .filter(Q(is_assigned=True) | by_default)
        .order_by("-is_assigned", "slug")
    )
