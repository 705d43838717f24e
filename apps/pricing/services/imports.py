"""Importing a price book: the same content again changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import transaction
from django.utils.translation import gettext as _

from apps.core.actor import Actor
from apps.core.periods import moment_in_words
from apps.ledger.services import CurrencyMismatch
from apps.pricing.diffs import Change, compare
from apps.pricing.files import BookContent
from apps.pricing.models import PriceBook, PriceBookVersion, VersionState
from apps.pricing.services.books import (
    EffectiveDateRefused,
    create_book,
    create_version,
    ensure_catalog,
    lock_book,
    publish_version,
    rows_of,
)

# A book's first version prices everything since ever, unless told otherwise.
FIRST_EFFECTIVE_FROM = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What an import did: `changed` is False when the same content was there already."""

    book: PriceBook
    version: PriceBookVersion
    changed: bool
    messages: tuple[str, ...]


@transaction.atomic
def import_price_book(
    *,
    actor: Actor,
    content: BookContent,
    effective_from: datetime | None = None,
    publish: bool,
    is_demonstration: bool = False,
    now: datetime,
) -> ImportResult:
    """Make the book, its SKUs and regions, and a draft with the content; publish it when asked.

    The same content again changes nothing. Other content for the same name becomes a new version, and
    publishing that needs a date.
    effective_from: comes before what the content says.
    Raises what `publish_version` raises, CurrencyMismatch and ValidationFailed.
    """
    effective_from = effective_from or content.effective_from
    checksum = _checksum(content)
    book = PriceBook.objects.filter(name=content.name).first() or create_book(
        actor=actor,
        name=content.name,
        currency=content.currency,
        is_demonstration=is_demonstration,
        now=now,
    )
    book = lock_book(book)
    _check_currency(book, content)
    messages = list(content.notes)
    version = _version_with(book, checksum, effective_from)
    changed = version is None
    if version is None:
        ensure_catalog(content.rows, content.skus)
        version = create_version(
            actor=actor,
            book=book,
            rows=content.rows,
            effective_from=effective_from,
            checksum=checksum,
            now=now,
        )
        facts = {"version": version, "prices": len(content.rows)}
        messages.append(_("%(version)s: a draft with %(prices)d prices.") % facts)
    if publish and version.state == VersionState.DRAFT:
        start = effective_from or version.effective_from or _first_date(book)
        version = publish_version(actor=actor, version=version, effective_from=start, now=now)
        changed = True
        facts = {"version": version, "moment": moment_in_words(start)}
        messages.append(_("%(version)s: published, in force from %(moment)s.") % facts)
    if not changed:
        messages.append(_("Nothing changed: %(version)s has exactly these prices.") % {"version": version})
    return ImportResult(book=book, version=version, changed=changed, messages=tuple(messages))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an import would change; `against` is the version that it is compared with, None for a new book.

    repeats: the version that has exactly these prices already, so that the import would make none.
    """

    against: PriceBookVersion | None
    repeats: PriceBookVersion | None
    changes: tuple[Change, ...]
    unchanged: int
    notes: tuple[str, ...]

    def sums(self) -> str:
        """Return in a sentence how many rows change how."""
        counts = Counter(change.kind for change in self.changes)
        return _("%(added)d added, %(removed)d removed, %(changed)d changed, %(unchanged)d unchanged.") % {
            "added": counts["added"],
            "removed": counts["removed"],
            "changed": counts["changed"],
            "unchanged": self.unchanged,
        }

    def lines(self) -> Iterator[str]:
        """Yield the preview as lines of text."""
        yield from self.notes
        if self.against is None:
            yield _("A new price book with %d prices:") % len(self.changes)
        else:
            yield _("Compared with %s:") % self.against
        yield from (str(change) for change in self.changes)
        yield self.sums()
        if self.repeats is not None:
            yield _("%s has exactly these prices: importing them would make no new version.") % self.repeats


def preview_import(*, content: BookContent, effective_from: datetime | None = None, now: datetime) -> Preview:
    """Return what importing the content would change in the version in force, writing nothing.

    Without a version in force it is compared with the newest one. Raises CurrencyMismatch.
    """
    book = PriceBook.objects.filter(name=content.name).first()
    if book is None:
        changes = compare((), content.rows)
        return Preview(against=None, repeats=None, changes=tuple(changes), unchanged=0, notes=content.notes)
    _check_currency(book, content)
    against = book.versions.in_force_at(now).first() or book.versions.order_by("-number").first()
    before = rows_of(against) if against else []
    changes = compare(before, content.rows)
    return Preview(
        against=against,
        repeats=_version_with(book, _checksum(content), effective_from or content.effective_from),
        changes=tuple(changes),
        unchanged=len(content.rows) - sum(change.after is not None for change in changes),
        notes=content.notes,
    )


def _check_currency(book: PriceBook, content: BookContent) -> None:
    if book.currency != content.currency:
        message = _("The price book “%(name)s” is in %(currency)s.")
        raise CurrencyMismatch(message % {"name": book.name, "currency": book.currency})


def _first_date(book: PriceBook) -> datetime:
    if book.versions.ever_published().exists():
        raise EffectiveDateRefused(_("Say from when these prices apply: others are published already."))
    return FIRST_EFFECTIVE_FROM


def _version_with(book: PriceBook, checksum: str, effective_from: datetime | None) -> PriceBookVersion | None:
    """Return the version that an import of this content would repeat.

    The newest one, any draft, or an older one that was published for the very date asked for. Without a date
    the prices of an older version are a return to them, so they make a new version.
    """
    versions = list(book.versions.order_by("-number"))
    for version in versions:
        same_date = effective_from is not None and version.effective_from == effective_from
        if version.checksum == checksum and (
            version is versions[0] or version.state == VersionState.DRAFT or same_date
        ):
            return version
    return None


def _checksum(content: BookContent) -> str:
    rows = sorted(
        (row.as_json() for row in content.rows), key=lambda row: (row["meter"], row["sku"], row["region"])
    )
    canonical = json.dumps([content.currency, rows], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
