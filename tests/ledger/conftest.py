from __future__ import annotations

import pytest

from apps.core.ids import uuid7
from apps.ledger import services as ledger
from apps.ledger.services import Book
from tests.build import NOW


@pytest.fixture
def book(db: None) -> Book:
    return ledger.open_book(organization_id=uuid7(), currency="USD", now=NOW)
