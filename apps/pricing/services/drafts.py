"""Drafts: edited by whoever saw their present state, discarded, published."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NoReturn

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.audit import services as audit
from apps.core.actor import Actor
from apps.core.errors import Conflict, DomainError, FieldError, ValidationFailed
from apps.outbox import services as outbox
from apps.pricing import selectors
from apps.pricing.models import PriceBook, PriceBookVersion, VersionState
from apps.pricing.rows import PriceRow
from apps.pricing.services.books import (
    VersionNotDraft,
    create_book,
    create_version,
    ensure_catalog,
    lock_book,
    publish_version,
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
    lock_book(version.book)
    version = PriceBookVersion.objects.select_related("book").get(pk=version.pk)
    if version.state != VersionState.DRAFT:
        raise VersionNotDraft
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
