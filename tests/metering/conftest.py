import pytest

from apps.organizations.models import Organization
from tests import build
from tests.metering.events import EARLIER


@pytest.fixture
def lab(db: None) -> Organization:
    return build.organization("lab", now=EARLIER)
