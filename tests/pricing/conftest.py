"""What the tests of prices share."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from tests.pricing.rated import ASKED, RATED


@pytest.fixture
def rated(settings: Any) -> dict[UUID, datetime]:
    """Return a dictionary of what is rated until when, by id of the book or organization."""
    RATED.clear()
    ASKED.clear()
    settings.RATED_UNTIL = "tests.pricing.rated.rated_until"
    return RATED
