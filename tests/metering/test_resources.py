"""The ids of resources that a process remembers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection

from apps.metering.models import Resource, UsageEvent
from apps.metering.services import ingestion, resources
from tests import build
from tests.metering.events import EARLIER, heartbeat, minutes, reading, send, started

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def lab():
    resources.forget()
    yield build.organization("lab", now=EARLIER)
    resources.forget()


def lookups(work: Callable[[], object]) -> int:
    """Return how often work looks resources up."""
    counted = 0

    def count(execute, sql, params, many, context):
        nonlocal counted
        counted += "FROM given LEFT JOIN metering_resource" in sql
        return execute(sql, params, many, context)

    with connection.execute_wrapper(count):
        work()
    return counted


def test_a_known_resource_is_not_looked_up_again(lab):
    send(started("a", EARLIER))

    assert lookups(lambda: send(heartbeat("a", EARLIER + minutes(1)))) == 0
    # Sought, made, read again.
    assert lookups(lambda: send(heartbeat("a", EARLIER + minutes(2)), started("b", EARLIER))) == 2

    assert sorted(Resource.objects.values_list("subject", flat=True)) == ["a", "b"]
    assert UsageEvent.objects.filter(resource__subject="a").count() == 3


def test_a_resource_of_a_single_event_is_not_remembered(lab):
    send(reading(EARLIER, "egress_gb", 1))

    assert not resources.forget()


def test_what_was_rolled_back_is_not_remembered(lab, monkeypatch):
    def fail(_point):
        raise RuntimeError

    monkeypatch.setattr(ingestion.failpoints, "reach", fail)
    with pytest.raises(RuntimeError):
        send(started("a", EARLIER))

    assert not resources.forget()
    assert not Resource.objects.exists()


def test_a_replaced_database_makes_a_process_forget(lab):
    """As after restoring a backup: the resource that is remembered is not there any more."""
    send(started("a", EARLIER), started("b", EARLIER))
    with connection.cursor() as cursor:
        cursor.execute(
            "SET session_replication_role = replica;"
            "DELETE FROM metering_usageevent; DELETE FROM metering_resource;"
            "SET session_replication_role = DEFAULT"
        )

    assert send(heartbeat("a", EARLIER + minutes(1))).accepted == 1

    event = UsageEvent.objects.get()
    assert event.resource == Resource.objects.get(subject="a")


def test_what_is_asked_for_stays_and_what_is_not_goes(lab, monkeypatch):
    monkeypatch.setattr(resources, "REMEMBERED_MAX", 2)
    send(*(started(name, EARLIER) for name in "abc"))  # More than one generation: these become the older one.
    send(heartbeat("a", EARLIER + minutes(1)))
    send(*(started(name, EARLIER) for name in "de"))  # The younger one is full again, with a.

    for subject, expected in (("a", 0), ("b", 1)):
        assert lookups(lambda subject=subject: send(heartbeat(subject, EARLIER + minutes(2)))) == expected
