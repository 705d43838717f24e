"""Publishing, adding, assigning: what is allowed, what is refused, and that a refusal writes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from apps.audit.models import AuditEvent
from apps.core.errors import ValidationFailed
from apps.ledger.services import CurrencyMismatch
from apps.outbox.models import OutboxEvent
from apps.pricing import services
from apps.pricing.models import BookAssignment, Price, PriceBook, PriceBookVersion, Region, Sku, VersionState
from apps.pricing.rows import PriceRow
from tests import build
from tests.pricing.rated import ASKED

pytestmark = pytest.mark.django_db

MAY = datetime(2026, 5, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
H100 = PriceRow(meter="gpu_hours", sku="h100", unit_price=Decimal("2.49"))


@pytest.fixture(autouse=True)
def h100() -> None:
    Sku.objects.create(code="h100")
    Region.objects.create(code="eu")


def new_book(name: str = "Standard", currency: str = "USD") -> PriceBook:
    return services.create_book(actor=build.actor(), name=name, currency=currency, now=build.NOW)


def draft(book: PriceBook, *rows: PriceRow) -> PriceBookVersion:
    return services.create_version(actor=build.actor(), book=book, rows=rows or (H100,), now=build.NOW)


def publish(version: PriceBookVersion, since: datetime = MAY) -> PriceBookVersion:
    return services.publish_version(actor=build.actor(), version=version, effective_from=since, now=build.NOW)


def assign(organization: Any, book: PriceBook, since: datetime = MAY) -> BookAssignment:
    return services.assign_book(
        actor=build.actor(), organization=organization, book=book, effective_from=since, now=build.NOW
    )


def test_a_book_has_a_name_of_its_own_and_a_currency() -> None:
    new_book()

    with pytest.raises(services.BookNameTaken):
        new_book()
    with pytest.raises(ValidationFailed):
        new_book("Moon", currency="XXQ")
    assert PriceBook.objects.count() == 1


def test_publishing_ends_the_version_before(rated: dict[UUID, datetime]) -> None:
    book = new_book()
    first = publish(draft(book))
    second = publish(draft(book), JUNE)

    first.refresh_from_db()
    assert (first.state, first.effective_from, first.effective_to) == (VersionState.PUBLISHED, MAY, JUNE)
    assert (second.number, second.effective_from, second.effective_to) == (2, JUNE, None)
    assert second.published_at == build.NOW
    assert AuditEvent.objects.filter(action="price_book.published").count() == 2
    assert OutboxEvent.objects.filter(event_type="pricing.version_published").count() == 2


@pytest.mark.parametrize("since", [MAY, MAY - HOUR, JUNE + timedelta(minutes=30), JUNE - HOUR])
def test_a_version_begins_on_a_whole_hour_after_the_last_and_after_what_is_rated(
    rated: dict[UUID, datetime], since: datetime
) -> None:
    book = new_book()
    first = publish(draft(book))
    second = draft(book)
    rated[book.pk] = JUNE

    with pytest.raises(services.EffectiveDateRefused):
        publish(second, since)
    first.refresh_from_db()
    second.refresh_from_db()
    assert first.effective_to is None
    assert second.state == VersionState.DRAFT
    publish(second, JUNE)


def test_charging_stops_only_to_look_at_what_was_rated_since_the_version_begins(
    rated: dict[UUID, datetime],
) -> None:
    book = new_book()
    version = draft(book)
    rated[book.pk] = JUNE

    with pytest.raises(services.EffectiveDateRefused):
        publish(version, JUNE - HOUR)
    publish(version, JUNE)

    assert ASKED == [
        (JUNE - HOUR, False),  # Refused while everybody charges.
        (JUNE, False),
        (JUNE, True),
    ]


def test_a_version_is_published_once_and_not_empty(rated: dict[UUID, datetime]) -> None:
    book = new_book()
    version = publish(draft(book))
    empty = services.create_version(actor=build.actor(), book=book, now=build.NOW)

    with pytest.raises(services.VersionNotDraft):
        publish(version, JUNE)
    with pytest.raises(services.VersionEmpty):
        publish(empty, JUNE)
    with pytest.raises(services.VersionNotDraft):
        services.replace_prices(actor=build.actor(), version=version, rows=[H100], now=build.NOW)


def test_a_key_does_not_continue_over_a_gap(rated: dict[UUID, datetime]) -> None:
    book = new_book()
    first = publish(draft(book))
    services.retire_version(actor=build.actor(), version=first, effective_to=JUNE, now=build.NOW)
    second = publish(draft(book), JUNE + HOUR)
    third = publish(draft(book), JUNE + 2 * HOUR)

    keys = [version.prices.get().key_id for version in (first, second, third)]
    assert keys[0] != keys[1]
    assert keys[1] == keys[2]


def test_a_key_follows_the_row_of_the_same_place_only(rated: dict[UUID, datetime]) -> None:
    book = new_book()
    anywhere = PriceRow(meter="gpu_hours", sku="h100", region="*", unit_price=Decimal(1))
    in_eu = PriceRow(meter="gpu_hours", sku="h100", region="eu", unit_price=Decimal(1))
    first = publish(draft(book, anywhere))
    second = publish(draft(book, anywhere, in_eu), JUNE)

    key_id = first.prices.get().key_id
    assert second.prices.get(region="*").key_id == key_id
    assert second.prices.get(region="eu").key_id != key_id


def test_retiring_needs_an_end(rated: dict[UUID, datetime]) -> None:
    book = new_book()
    version = publish(draft(book))
    rated[book.pk] = JUNE

    for end in (None, MAY, JUNE - HOUR, JUNE + timedelta(minutes=1)):
        with pytest.raises(services.EffectiveDateRefused):
            services.retire_version(actor=build.actor(), version=version, effective_to=end, now=build.NOW)
    retired = services.retire_version(actor=build.actor(), version=version, effective_to=JUNE, now=build.NOW)
    assert (retired.state, retired.effective_to) == (VersionState.RETIRED, JUNE)
    with pytest.raises(services.VersionNotPublished):
        services.retire_version(actor=build.actor(), version=version, now=build.NOW)


def test_a_replaced_version_retires_as_it_ended(rated: dict[UUID, datetime]) -> None:
    book = new_book()
    first = publish(draft(book))
    publish(draft(book), JUNE)

    retired = services.retire_version(actor=build.actor(), version=first, now=build.NOW)
    assert (retired.state, retired.effective_to) == (VersionState.RETIRED, JUNE)


def test_a_price_is_added_where_none_matched(rated: dict[UUID, datetime]) -> None:
    book = new_book()
    version = publish(
        draft(book, PriceRow(meter="gpu_hours", sku="h100", region="eu", unit_price=Decimal(1)))
    )
    rated[book.pk] = JUNE
    fallback = PriceRow(meter="gpu_hours", unit_price=Decimal(3))

    def add(row: PriceRow) -> Price:
        return services.add_price_to_published(actor=build.actor(), version=version, row=row, now=build.NOW)

    added = add(fallback)
    assert version.prices.count() == 2
    assert added.unit_price == 3
    event = OutboxEvent.objects.get(event_type="pricing.price_added")
    assert event.payload["price_id"] == str(added.pk)
    for row in (
        fallback,
        PriceRow(meter="gpu_hours", sku="h100", unit_price=Decimal(1)),
        PriceRow(meter="gpu_hours", region="eu", unit_price=Decimal(1)),
    ):
        with pytest.raises(services.PriceExists):
            add(row)
    with pytest.raises(ValidationFailed):
        add(PriceRow(meter="tokens", sku="unheard-of", unit_price=Decimal(1)))
    with pytest.raises(services.VersionNotPublished):
        services.add_price_to_published(actor=build.actor(), version=draft(book), row=H100, now=build.NOW)
    assert version.prices.count() == 2


def test_a_draft_takes_new_rows_as_a_whole() -> None:
    version = draft(new_book())
    row = PriceRow(meter="tokens", unit_price=Decimal("0.0000002"))

    services.replace_prices(actor=build.actor(), version=version, rows=[row], now=build.NOW)

    assert [str(price) for price in version.prices.all()] == ["tokens · * · *"]
    audited = AuditEvent.objects.get(action="price_book.draft_changed")
    assert audited.diff["added"] == [row.as_json()]


def test_rows_name_what_exists_once() -> None:
    book = new_book()
    wrong = [
        PriceRow(meter="nothing", unit_price=Decimal(1)),
        PriceRow(meter="gpu_hours", sku="nobody", region="nowhere", unit_price=Decimal(1)),
        H100,
        H100,
    ]

    with pytest.raises(ValidationFailed) as refusal:
        draft(book, *wrong)

    assert [(field.path, field.code) for field in refusal.value.fields] == [
        ("prices.0.meter", "unknown_meter"),
        ("prices.1.sku", "unknown_sku"),
        ("prices.1.region", "unknown_region"),
        ("prices.3", "repeated"),
    ]


def test_an_assignment_ends_the_one_before(rated: dict[UUID, datetime]) -> None:
    organization = build.organization()
    first = assign(organization, new_book("One"))
    second = assign(organization, new_book("Two"), JUNE)

    first.refresh_from_db()
    assert (first.effective_to, second.effective_to) == (JUNE, None)
    event = OutboxEvent.objects.filter(event_type="pricing.book_assigned").latest("created_at")
    assert event.organization_id == organization.pk


def test_an_assignment_changes_nothing_rated_and_no_currency(rated: dict[UUID, datetime]) -> None:
    organization = build.organization()
    book = new_book()
    rated[organization.pk] = JUNE

    for since in (MAY, JUNE - HOUR, JUNE + timedelta(seconds=1)):
        with pytest.raises(services.EffectiveDateRefused):
            assign(organization, book, since)
    with pytest.raises(CurrencyMismatch):
        assign(organization, new_book("Euro", "EUR"), JUNE)
    assert not BookAssignment.objects.exists()
    assign(organization, book, JUNE)
    with pytest.raises(services.EffectiveDateRefused):
        assign(organization, book, JUNE)
