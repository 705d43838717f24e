"""Probes that know the address of a process only."""

from __future__ import annotations

import pytest

from tests import build

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("path", "status"),
    [("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/", 400), ("/api/v1/me", 400)],
)
def test_only_probes_may_come_by_any_host(path, status):
    answer = build.client().get(path, headers={"Host": "10.0.0.7:8000"})

    assert answer.status_code == status
