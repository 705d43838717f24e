from __future__ import annotations

from datetime import UTC, datetime

import pytest

from apps.organizations.models import Organization
from apps.pricing.models import Region, Sku
from tests import build


@pytest.fixture
def lab(db: None) -> Organization:
    return build.organization("lab", now=datetime(2026, 5, 1, tzinfo=UTC))


@pytest.fixture
def sold(db: None) -> None:
    """Make what is sold: two H100 machines of one family, an L4 without any, two regions."""
    for code, family in (("h100-sxm", "H100"), ("h100-pcie", "H100"), ("l4", "")):
        Sku.objects.create(code=code, family=family)
    for code in ("eu", "us"):
        Region.objects.create(code=code)
