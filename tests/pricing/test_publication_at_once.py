"""Publication and charging at the same time, on real transactions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from apps.pricing import selectors, services
from apps.pricing.models import PriceBookVersion, VersionState
from tests import build
from tests.threads import PATIENCE_SECONDS, at_once

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("rated")]

MAY = datetime(2026, 5, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start work on a connection of its own; the list gets its result or its exception."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001  The test looks at it.
            results.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def draft(version: PriceBookVersion) -> PriceBookVersion:
    return services.start_draft(actor=build.actor(), book=version.book, now=build.NOW)


def publish(version: PriceBookVersion, since: datetime) -> PriceBookVersion:
    return services.publish_version(actor=build.actor(), version=version, effective_from=since, now=build.NOW)


def test_publication_waits_for_whoever_charges_by_the_old_prices() -> None:
    version = build.price_book({"unit_price": "1"}, effective_from=MAY)
    following = draft(version)

    with transaction.atomic():
        selectors.hold_prices_still()
        thread, results = in_thread(lambda: publish(following, JUNE))
        thread.join(timeout=0.5)
        assert thread.is_alive()
        prices = selectors.schedule(
            organization_id=None, currency="USD", start=MAY, end=JUNE.replace(month=7)
        )
        assert prices.version_at(JUNE) == version
    thread.join(PATIENCE_SECONDS)

    assert results[0].state == VersionState.PUBLISHED


def test_chargers_do_not_wait_for_each_other() -> None:
    with transaction.atomic():
        selectors.hold_prices_still()

        def charge() -> bool:
            with transaction.atomic():
                selectors.hold_prices_still()
            return True

        thread, results = in_thread(charge)
        thread.join(PATIENCE_SECONDS)
        assert results == [True]


def test_two_publications_at_once_end_as_one() -> None:
    version = build.price_book({"unit_price": "1"}, effective_from=MAY)
    drafts = [draft(version), draft(version)]

    outcomes = at_once(*(partial(publish, one, JUNE) for one in drafts))

    assert sorted(type(outcome).__name__ for outcome in outcomes) == [
        "EffectiveDateRefused",
        "PriceBookVersion",
    ]
    assert PriceBookVersion.objects.filter(state=VersionState.PUBLISHED).count() == 2


def test_a_row_cannot_slip_into_a_version_that_is_being_published() -> None:
    version = build.price_book({"unit_price": "1"}, effective_from=MAY)
    following = draft(version)

    with transaction.atomic():
        publish(following, JUNE)
        thread, results = in_thread(lambda: following.prices.update(unit_price=7))
        thread.join(timeout=0.5)
        assert thread.is_alive()
    thread.join(PATIENCE_SECONDS)

    assert "never changed or deleted" in str(results[0])
    assert not isinstance(results[0], OperationalError)
    assert following.prices.get().unit_price == 1
