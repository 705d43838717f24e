"""Writing price books: versions, rows, assignments, and the catalog that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max, Q
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.audit import services as audit
from apps.core.actor import Actor
from apps.core.errors import Conflict, FieldError, ValidationFailed
from apps.core.ids import uuid7
from apps.core.money import is_currency
from apps.core.periods import is_whole_hour, moment_in_words
from apps.ledger.services import CurrencyMismatch
from apps.organizations.models import Organization
from apps.outbox import services as outbox
from apps.pricing import selectors
from apps.pricing.files import SkuFacts
from apps.pricing.models import (
    ANY,
    BookAssignment,
    Meter,
    Price,
    PriceBook,
    PriceBookVersion,
    Region,
    Sku,
    VersionState,
)
from apps.pricing.rows import PriceRow, row_of

BULK_ROWS = 1_000


class BookNameTaken(Conflict):
    """Another price book has this name."""

    code = "book_name_taken"


class VersionNotDraft(Conflict):
    """A published version never changes; make a new draft."""

    code = "version_not_draft"
    default_message = gettext_lazy("A published version never changes. Make a new draft.")


class VersionNotPublished(Conflict):
    """Only a published version can do that."""

    code = "version_not_published"


class VersionEmpty(Conflict):
    """A version without a single price cannot be published."""

    code = "version_empty"
    default_message = gettext_lazy("This version has no prices.")


class EffectiveDateRefused(Conflict):
    """Prices and assignments change on whole UTC hours, in order, never before usage already rated."""

    code = "effective_date_refused"


class PriceExists(Conflict):
    """The published version already has a price there, so adding one would change it."""

    code = "price_exists"


@transaction.atomic
def create_book(
    *, actor: Actor, name: str, currency: str, is_demonstration: bool = False, now: datetime
) -> PriceBook:
    """Make a price book without versions. Raises ValidationFailed, BookNameTaken."""
    if not is_currency(currency):
        message = _("“%s” is no ISO 4217 currency.") % currency[:10]
        raise ValidationFailed(fields=[FieldError(path="currency", code="invalid", message=message)])
    try:
        with transaction.atomic():
            book = PriceBook.objects.create(
                name=name, currency=currency, is_demonstration=is_demonstration, created_at=now
            )
    except IntegrityError as error:
        raise BookNameTaken(_("There is a price book named “%s” already.") % name) from error
    audit.record(actor=actor, action="price_book.created", target=book, diff={"currency": [None, currency]})
    outbox.publish("pricing.book_created", {"book_id": str(book.pk), "name": name, "currency": currency})
    return book


@transaction.atomic
def create_version(
    *,
    actor: Actor,
    book: PriceBook,
    rows: Sequence[PriceRow] = (),
    effective_from: datetime | None = None,
    checksum: str = "",
    now: datetime,
) -> PriceBookVersion:
    """Make a draft with these rows, numbered after the book's newest version.

    effective_from: what the draft proposes, a whole UTC hour; publishing decides.
    """
    if effective_from is not None:
        check_whole_hour(effective_from)
    book = lock_book(book)
    newest = book.versions.aggregate(number=Max("number"))["number"] or 0
    version = PriceBookVersion.objects.create(
        book=book, number=newest + 1, effective_from=effective_from, checksum=checksum, created_at=now
    )
    _insert_rows(version, rows)
    audit.record(actor=actor, action="price_book.version_created", target=version, diff={"prices": len(rows)})
    outbox.publish("pricing.version_created", version_facts(version))
    return version


@transaction.atomic
def start_draft(*, actor: Actor, book: PriceBook, now: datetime) -> PriceBookVersion:
    """Make a draft with the rows of the book's newest version, to be edited."""
    book = lock_book(book)
    newest = book.versions.order_by("-number").first()
    return create_version(actor=actor, book=book, rows=rows_of(newest) if newest else [], now=now)


@transaction.atomic
def replace_prices(
    *, actor: Actor, version: PriceBookVersion, rows: Sequence[PriceRow], now: datetime
) -> PriceBookVersion:
    """Give a draft exactly these rows. Raises VersionNotDraft, ValidationFailed."""
    lock_book(version.book)
    version = PriceBookVersion.objects.select_related("book").get(pk=version.pk)
    if version.state != VersionState.DRAFT:
        raise VersionNotDraft
    before = [row_of(price).as_json() for price in version.prices.order_by("meter", "sku", "region")]
    version.prices.all().delete()
    _insert_rows(version, rows)
    record_rows(
        actor, version, before, [row.as_json() for row in sorted(rows, key=lambda row: row.place)], now
    )
    return version


@transaction.atomic
def publish_version(
    *, actor: Actor, version: PriceBookVersion, effective_from: datetime, now: datetime
) -> PriceBookVersion:
    """Put a draft in force from a whole UTC hour on, ending the book's version before it there.

    Rows whose terms did not change keep the identity that charges and tiers are counted under.
    Raises VersionNotDraft, VersionEmpty, EffectiveDateRefused.
    """
    if version.state == VersionState.DRAFT:
        check_unrated(effective_from, book_id=version.book_id)  # A refusal need not stop all charging first.
    selectors.exclude_charging()
    book = lock_book(version.book)
    version = PriceBookVersion.objects.select_for_update(no_key=True).get(pk=version.pk)
    if version.state != VersionState.DRAFT:
        raise VersionNotDraft
    prices = list(version.prices.all())
    if not prices:
        raise VersionEmpty
    check_unrated(effective_from, book_id=book.pk)
    predecessor = book.versions.ever_published().order_by("-effective_from").first()
    if predecessor is not None:
        _end_predecessor(predecessor, effective_from)
        if predecessor.effective_to == effective_from:
            _continue_keys(prices, predecessor)
    version.state = VersionState.PUBLISHED
    version.effective_from = effective_from
    version.published_at = now
    version.save(update_fields=["state", "effective_from", "published_at"])
    diff = {
        "state": [VersionState.DRAFT, VersionState.PUBLISHED],
        "effective_from": [None, effective_from],
        "replaces": predecessor.number if predecessor else None,
    }
    audit.record(actor=actor, action="price_book.published", target=version, diff=diff)
    outbox.publish("pricing.version_published", version_facts(version))
    return version


@transaction.atomic
def retire_version(
    *, actor: Actor, version: PriceBookVersion, effective_to: datetime | None = None, now: datetime
) -> PriceBookVersion:
    """Retire a published version; it still prices the usage of its time.

    effective_to: the whole UTC hour at which it ends, when nothing ended it yet.
    Raises VersionNotPublished, EffectiveDateRefused.
    """
    selectors.exclude_charging()
    book = lock_book(version.book)
    version = PriceBookVersion.objects.select_for_update(no_key=True).get(pk=version.pk)
    if version.state != VersionState.PUBLISHED:
        raise VersionNotPublished(_("Only a published version can be retired."))
    if version.effective_to is None:
        if effective_to is None:
            raise EffectiveDateRefused(_("Say when this version ends: nothing follows it yet."))
        check_unrated(effective_to, book_id=book.pk)
        if version.effective_from is not None and effective_to <= version.effective_from:
            raise EffectiveDateRefused(_("A version ends after it begins."))
        version.effective_to = effective_to
    version.state = VersionState.RETIRED
    version.save(update_fields=["state", "effective_to"])
    diff = {"state": [VersionState.PUBLISHED, VersionState.RETIRED], "effective_to": version.effective_to}
    audit.record(actor=actor, action="price_book.retired", target=version, diff=diff)
    outbox.publish("pricing.version_retired", {**version_facts(version), "retired_at": now.isoformat()})
    return version


@transaction.atomic
def add_price_to_published(*, actor: Actor, version: PriceBookVersion, row: PriceRow, now: datetime) -> Price:
    """Add a row to a published version where none matched, so that its unpriced usage can be rated.

    Terms that the version next to it has for the same place continue under the same identity, as if published with it.
    Raises VersionNotPublished, ValidationFailed, and PriceExists when the row would change what something costs: in
    this version, or what follows in the same month, since tiers hold to its end.
    """
    selectors.exclude_charging()
    lock_book(version.book)
    version = PriceBookVersion.objects.select_related("book").get(pk=version.pk)
    if version.state == VersionState.DRAFT:
        raise VersionNotPublished(_("A draft is edited, not added to."))
    for price in version.prices.filter(meter__code=row.meter):
        if _would_lose(row_of(price), row):
            message = _("Version %(number)d already prices %(sku)s in %(region)s.")
            raise PriceExists(message % {"number": version.number, "sku": price.sku, "region": price.region})
    (price,) = _insert_rows(version, [row], key_id=_key_beside(version, row))
    rated_otherwise: Callable[..., bool] = import_string(settings.RATED_OTHERWISE)
    if rated_otherwise(price=price):
        message = _(
            "Usage of the same month is rated by another price, which this one would replace, because tiers hold to"
            " the month's end. Add the terms of the price that follows."
        )
        raise PriceExists(message)
    audit.record(
        actor=actor, action="price_book.price_added", target=version, diff={"added": [row.as_json()]}
    )
    facts = {
        **version_facts(version),
        "price_id": str(price.pk),
        **row.as_json(),
        "added_at": now.isoformat(),
    }
    outbox.publish("pricing.price_added", facts)
    return price


@transaction.atomic
def assign_book(
    *, actor: Actor, organization: Organization, book: PriceBook, effective_from: datetime, now: datetime
) -> BookAssignment:
    """Price an organization's usage by a book from a whole UTC hour on, ending its assignment before there.

    Raises EffectiveDateRefused, and CurrencyMismatch for a book in another currency than the organization's.
    """
    selectors.exclude_charging()
    if book.currency != organization.currency:
        message = _("The organization is billed in %(organization)s, the book is in %(book)s.")
        raise CurrencyMismatch(message % {"organization": organization.currency, "book": book.currency})
    check_unrated(effective_from, organization_id=organization.pk)
    rows = BookAssignment.objects.filter(organization=organization)
    latest = rows.select_for_update(no_key=True).order_by("-effective_from").first()
    if latest is not None:
        check_after(str(latest.book), latest.effective_from, latest.effective_to, effective_from)
        if latest.effective_to is None:
            latest.effective_to = effective_from
            latest.save(update_fields=["effective_to"])
    assignment = BookAssignment.objects.create(
        organization=organization, book=book, effective_from=effective_from, created_at=now
    )
    diff = {"book": [latest.book.name if latest else None, book.name], "effective_from": effective_from}
    audit.record(actor=actor, action="price_book.assigned", target=assignment, diff=diff)
    outbox.publish(
        "pricing.book_assigned",
        {"book_id": str(book.pk), "effective_from": effective_from.isoformat()},
        organization_id=organization.pk,
    )
    return assignment


@transaction.atomic
def save_entry(*, actor: Actor, entry: Meter | Sku | Region) -> None:
    """Store a new or changed meter, SKU or region. A meter keeps its code and unit; the database sees to it."""
    kind = entry._meta.model_name
    action = f"catalog.{kind}_created" if entry._state.adding else f"catalog.{kind}_changed"
    entry.save()
    audit.record(actor=actor, action=action, target=entry, diff={"name": entry.name})
    outbox.publish("pricing.catalog_changed", {"kind": kind, "code": entry.code})


def lock_book(book: PriceBook) -> PriceBook:
    """Return the book, locked until the transaction ends: its versions are numbered and dated under this lock."""
    return PriceBook.objects.select_for_update(no_key=True).get(pk=book.pk)


def check_whole_hour(moment: datetime) -> None:
    """Raise EffectiveDateRefused for what is no whole UTC hour."""
    if not is_whole_hour(moment):
        raise EffectiveDateRefused(_("Prices change on whole UTC hours only."))


def check_unrated(
    moment: datetime, *, book_id: UUID | None = None, organization_id: UUID | None = None
) -> None:
    """Raise EffectiveDateRefused unless it is a whole hour and all usage rated by a book, or of an organization, ended.

    Only usage from the moment on is looked for: what was rated before is much, and changes nothing.
    """
    check_whole_hour(moment)
    scope = {"book_id": book_id} if book_id else {"organization_id": organization_id}
    rated_until: datetime | None = import_string(settings.RATED_UNTIL)(since=moment, **scope)
    if rated_until is not None:
        raise EffectiveDateRefused(
            _("Usage until %s is already rated; a change cannot begin before.")
            % moment_in_words(rated_until),
            rated_until=rated_until.isoformat(),
        )


def check_after(name: str, begins: datetime, ends: datetime | None, effective_from: datetime) -> None:
    """Raise EffectiveDateRefused for what would begin before the newest of its kind, or while that is in force.

    begins, ends: of the newest, which this one's beginning ends where nothing else does.
    """
    if effective_from <= begins:
        message = _("%(name)s applies from %(moment)s; a new one begins after that.")
        raise EffectiveDateRefused(message % {"name": name, "moment": moment_in_words(begins)})
    if ends is not None and effective_from < ends:
        message = _("%(name)s applies until %(moment)s; a new one begins then or later.")
        raise EffectiveDateRefused(message % {"name": name, "moment": moment_in_words(ends)})


def _end_predecessor(predecessor: PriceBookVersion, effective_from: datetime) -> None:
    assert predecessor.effective_from is not None, "the database refuses a published version without a date"
    if effective_from <= predecessor.effective_from:
        message = _("Version %(number)d is in force from %(moment)s; the next one begins after that.")
        facts = {"number": predecessor.number, "moment": moment_in_words(predecessor.effective_from)}
        raise EffectiveDateRefused(message % facts)
    if predecessor.effective_to is None:
        predecessor.effective_to = effective_from
        predecessor.save(update_fields=["effective_to"])
    elif effective_from < predecessor.effective_to:
        message = _("Version %(number)d is in force until %(moment)s; the next one begins then or later.")
        facts = {"number": predecessor.number, "moment": moment_in_words(predecessor.effective_to)}
        raise EffectiveDateRefused(message % facts)


def _continue_keys(prices: Sequence[Price], predecessor: PriceBookVersion) -> None:
    """Give each row the identity of the predecessor's row for the same place, if the terms are the same."""
    before = {row_of(price).place: price for price in predecessor.prices.all()}
    continued = []
    for price in prices:
        old = before.get(row_of(price).place)
        if old is not None and row_of(old) == row_of(price):
            price.key_id = old.key_id
            continued.append(price)
    Price.objects.bulk_update(continued, ["key_id"], batch_size=BULK_ROWS)


def _would_lose(row: PriceRow, added: PriceRow) -> bool:
    """Return whether the row would stop pricing something that the added one also matches."""
    meets = (row.sku == added.sku or ANY in (row.sku, added.sku)) and (
        row.region == added.region or ANY in (row.region, added.region)
    )
    return meets and (row.sku == ANY, row.region == ANY) >= (added.sku == ANY, added.region == ANY)


def _key_beside(version: PriceBookVersion, row: PriceRow) -> UUID | None:
    """Return the identity of the same terms in the version that follows without a gap, or in the one before."""
    beside = Q(version__effective_from=version.effective_to) | Q(version__effective_to=version.effective_from)
    neighbours = Price.objects.filter(
        beside, version__book=version.book_id, meter__code=row.meter, sku=row.sku, region=row.region
    ).exclude(version__state=VersionState.DRAFT)
    same = (price for price in neighbours.order_by("-version__effective_from") if row_of(price) == row)
    return next((price.key_id for price in same), None)


def _insert_rows(
    version: PriceBookVersion, rows: Sequence[PriceRow], *, key_id: UUID | None = None
) -> list[Price]:
    check_codes(rows)
    return Price.objects.bulk_create(
        [Price(version=version, key_id=key_id or uuid7(), **row.as_columns()) for row in rows],
        batch_size=BULK_ROWS,
    )


def check_codes(rows: Sequence[PriceRow]) -> None:
    """Raise ValidationFailed naming each meter, SKU or region that does not exist, and each repeated row."""
    meters, regions = selectors.meter_codes(), selectors.region_codes() | {ANY}
    asked = {row.sku for row in rows}
    skus = {ANY, *Sku.objects.filter(code__in=asked).values_list("code", flat=True)}
    errors = []
    seen = set()
    for index, row in enumerate(rows):
        for name, value, known in (
            ("meter", row.meter, meters),
            ("sku", row.sku, skus),
            ("region", row.region, regions),
        ):
            if value not in known:
                message = _("There is no “%s”.") % value
                errors.append(
                    FieldError(path=f"prices.{index}.{name}", code=f"unknown_{name}", message=message)
                )
        if row.place in seen:
            message = _("This meter, SKU and region already have a price in this version.")
            errors.append(FieldError(path=f"prices.{index}", code="repeated", message=message))
        seen.add(row.place)
    if errors:
        raise ValidationFailed(fields=errors)


def record_rows(
    actor: Actor,
    version: PriceBookVersion,
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
    now: datetime,
) -> None:
    """Record what of a draft's rows is other than before, if anything; they are no longer what was imported."""
    version.checksum = ""
    version.save(update_fields=["checksum"])
    if before != after:
        removed = [row for row in before if row not in after]
        added = [row for row in after if row not in before]
        diff = {"removed": removed, "added": added}
        audit.record(actor=actor, action="price_book.draft_changed", target=version, diff=diff)
        outbox.publish("pricing.draft_changed", {**version_facts(version), "changed_at": now.isoformat()})


def rows_of(version: PriceBookVersion) -> list[PriceRow]:
    """Return a version's rows as values, by meter, SKU and region."""
    return [row_of(price) for price in version.prices.order_by("meter", "sku", "region")]


def ensure_catalog(rows: Iterable[PriceRow], skus: Iterable[SkuFacts] = ()) -> None:
    """Make the SKUs and regions that do not exist; those that do keep what staff wrote."""
    rows = list(rows)
    facts = {row.sku: SkuFacts(code=row.sku) for row in rows if row.sku != ANY} | {
        sku.code: sku for sku in skus
    }
    Sku.objects.bulk_create(
        [
            Sku(code=sku.code, name=sku.code, family=sku.family, attributes=sku.attributes)
            for sku in facts.values()
        ],
        batch_size=BULK_ROWS,
        ignore_conflicts=True,
    )
    codes = sorted({row.region for row in rows if row.region != ANY})
    Region.objects.bulk_create([Region(code=code, name=code) for code in codes], ignore_conflicts=True)


def version_facts(version: PriceBookVersion) -> dict[str, str | int | None]:
    """Return what an outbox row says of a version."""
    effective_from = version.effective_from
    return {
        "book_id": str(version.book_id),
        "version_id": str(version.pk),
        "number": version.number,
        "state": str(version.state),
        "effective_from": effective_from.isoformat() if effective_from else None,
    }
