from __future__ import annotations

from datetime import timedelta

import pytest

from apps.organizations.models import Organization
from tests import build


@pytest.fixture
def lab(db: None) -> Organization:
    return build.organization("lab", now=build.NOW - timedelta(days=20))
