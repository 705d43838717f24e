from __future__ import annotations

from datetime import UTC, datetime

import pytest

from apps.organizations.models import Organization
from tests import build


@pytest.fixture
def lab(db: None) -> Organization:
    return build.organization("lab", now=datetime(2026, 5, 1, tzinfo=UTC))
