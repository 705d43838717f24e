"""Drafts: edited by whoever saw their present state, discarded, published."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.audit import services as audit
from apps.core.actor import Actor
from apps.core.errors import Conflict, DomainError, FieldError, ValidationFailed
from apps.outbox import services as outbox
from apps.pricing import selectors
from apps.pricing.models import Price, PriceBook, PriceBookVersion, VersionState
from apps.pricing.rows import PriceRow, row_of
from apps.pricing.services.books import (
    VersionNotDraft,
    check_codes,
    create_book,
    create_version,
    ensure_catalog,
    lock_book,
    publish_version,
    record_rows,
    replace_prices,
    version_facts,
)

ANY_TAG = "*"  # Matches whatever is there.


class PreconditionRequired(DomainError):
    """A draft is only changed by who says, with `If-Match`, which state of it they saw."""

    code, http_status = "precondition_required", 428
    default_message = gettext_lazy("Send If-Match with the ETag that you read.")


class PreconditionFailed(DomainError):
    """Somebody changed the book since it was read; read it again."""

    code, http_status = "precondition_failed", 412
    default_message = gettext_lazy("The price book has changed since you read it. Read it again.")


class NoDraft(Conflict):
    """The book has no draft to publish or discard."""

    code = "no_draft"
    default_message = gettext_lazy("This price book has no draft. Begin one by changing its prices.")


class PriceGone(Conflict):
    """The price is no longer in the draft."""

    code = "price_gone"
    default_message = gettext_lazy("This price is no longer in the draft. Look at its prices again.")


@transaction.atomic
def create_book_with_draft(
    *,
    actor: Actor,
    name: str,
    currency: str,
    rows: Sequence[PriceRow],
    effective_from: datetime | None,
    now: datetime,
) -> PriceBook:
    """Make a price book, with a draft if there are rows. Raises what its two steps raise."""
    book = create_book(actor=actor, name=name, currency=currency, now=now)
    if rows:
        ensure_catalog(rows)
        create_version(actor=actor, book=book, rows=rows, effective_from=effective_from, now=now)
    return book


@transaction.atomic
def edit_draft(
    *, actor: Actor, book: PriceBook, rows: Sequence[PriceRow], tags: Collection[str], now: datetime
) -> PriceBookVersion:
    """Give the book's newest draft exactly these rows, or start one with them; SKUs and regions are made when new.

    tags: the states of the book that the caller saw, see `selectors.tag_of_book`, or `*`.
    Raises PreconditionFailed, ValidationFailed.
    """
    book = _lock_as_seen(book, tags)
    ensure_catalog(rows)
    draft = selectors.newest_draft(book)
    if draft is None:
        return create_version(actor=actor, book=book, rows=rows, now=now)
    return replace_prices(actor=actor, version=draft, rows=rows, now=now)


@transaction.atomic
def put_price(
    *,
    actor: Actor,
    version: PriceBookVersion,
    row: PriceRow,
    instead_of: UUID | None = None,
    now: datetime,
) -> Price:
    """Put one row into a draft, beside the others or instead of one of them, and return it.

    Raises VersionNotDraft, PriceGone, and ValidationFailed for codes that do not exist or a place that is taken.
    """
    version = _lock_draft(version)
    check_codes([row])
    before: list[dict[str, Any]] = []
    if instead_of is not None:
        replaced = _price_of(version, instead_of)
        before = [row_of(replaced).as_json()]
        # The new row is another, so that whoever still looks at the old one is told.
        replaced.delete()
    meter, sku, region = row.place
    if version.prices.filter(meter__code=meter, sku=sku, region=region).exists():
        message = _("This meter, SKU and region already have a price in this version.")
        raise ValidationFailed(fields=[FieldError(path="meter", code="repeated", message=message)])
    price = Price.objects.create(version=version, **row.as_columns())
    record_rows(actor, version, before, [row.as_json()], now)
    return price


@transaction.atomic
def remove_price(*, actor: Actor, version: PriceBookVersion, price_id: UUID, now: datetime) -> None:
    """Remove one row from a draft. Raises VersionNotDraft, PriceGone."""
    version = _lock_draft(version)
    price = _price_of(version, price_id)
    before = [row_of(price).as_json()]
    price.delete()
    record_rows(actor, version, before, [], now)


def _lock_draft(version: PriceBookVersion) -> PriceBookVersion:
    lock_book(version.book)
    version = PriceBookVersion.objects.select_related("book").get(pk=version.pk)
    if version.state != VersionState.DRAFT:
        raise VersionNotDraft
    return version


def _price_of(version: PriceBookVersion, price_id: UUID) -> Price:
    price = version.prices.filter(pk=price_id).first()
    if price is None:
        raise PriceGone
    return price


@transaction.atomic
def publish_draft_of(
    *,
    actor: Actor,
    book: PriceBook,
    effective_from: datetime | None,
    tags: Collection[str] | None,
    now: datetime,
) -> PriceBookVersion:
    """Publish the book's newest draft, from the hour that it proposes unless told.

    Raises PreconditionFailed, NoDraft, ValidationFailed without any date, and what `publish_version` raises.
    """
    # In the order that publishing takes them, or two would wait for each other.
    selectors.exclude_charging()
    book = _lock_as_seen(book, tags)
    draft = selectors.newest_draft(book) or _refuse()
    start = effective_from or draft.effective_from
    if start is None:
        message = _("Say from when these prices apply.")
        raise ValidationFailed(fields=[FieldError(path="effective_from", code="required", message=message)])
    return publish_version(actor=actor, version=draft, effective_from=start, now=now)


@transaction.atomic
def discard_draft_of(*, actor: Actor, book: PriceBook, tags: Collection[str] | None, now: datetime) -> None:
    """Discard the book's newest draft. Raises PreconditionFailed, NoDraft."""
    book = _lock_as_seen(book, tags)
    discard_draft(actor=actor, version=selectors.newest_draft(book) or _refuse(), now=now)


@transaction.atomic
def discard_draft(*, actor: Actor, version: PriceBookVersion, now: datetime) -> None:
    """Remove a draft and its rows; its number may be given again. Raises VersionNotDraft."""
    version = _lock_draft(version)
    rows = version.prices.count()
    audit.record(
        actor=actor, action="price_book.draft_discarded", target=version, diff={"prices": [rows, None]}
    )
    outbox.publish("pricing.draft_discarded", {**version_facts(version), "discarded_at": now.isoformat()})
    version.prices.all().delete()
    version.delete()


def _lock_as_seen(book: PriceBook, tags: Collection[str] | None) -> PriceBook:
    book = lock_book(book)
    if tags is not None and ANY_TAG not in tags and selectors.tag_of_book(book) not in tags:
        raise PreconditionFailed
    return book


def _refuse() -> NoReturn:
    raise NoDraft
