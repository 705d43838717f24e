from __future__ import annotations

from datetime import UTC, datetime

import pytest

from apps.organizations.models import Organization
from tests import build

APRIL = datetime(2026, 4, 10, tzinfo=UTC)


@pytest.fixture
def lab(db: None) -> Organization:
    return build.organization("lab", now=APRIL)
