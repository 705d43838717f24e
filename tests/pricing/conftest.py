"""What the tests of prices share: how far usage is rated, without any usage."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

RATED: dict[UUID, datetime] = {}


def rated_until(*, book_id: UUID | None = None, organization_id: UUID | None = None) -> datetime | None:
    """Stand in for billing: what a test put into RATED."""
    scope = book_id or organization_id
    assert scope, "pricing asks for a book or an organization"
    return RATED.get(scope)


@pytest.fixture
def rated(settings: Any) -> dict[UUID, datetime]:
    """Return a dictionary of what is rated until when, by id of the book or organization."""
    RATED.clear()
    settings.RATED_UNTIL = "tests.pricing.conftest.rated_until"
    return RATED
