"""Jobs are hints: sent after the commit, with the correlation id, and never in the way of the write."""

from __future__ import annotations

import time
from uuid import UUID

from celery import Celery, current_app, shared_task
from celery.contrib.testing.worker import start_worker
from django.db import transaction

from apps.core import correlation, jobs
from tests import build
from tests.threads import PATIENCE_SECONDS

ID = UUID("01920000-0000-7000-8000-000000000001")
original_send = jobs.send
seen: list[dict] = []


@shared_task(name="tests.remember")
def remember(**arguments: object) -> None:
    seen.append(arguments | {"correlation_id": correlation.current()})


def test_a_job_is_sent_after_the_commit_with_plain_arguments(transactional_db, captured_jobs):
    with transaction.atomic():
        jobs.enqueue("tests.remember", id=ID, at=build.NOW, count=3)
        assert captured_jobs.queued == []

    assert captured_jobs.queued == [
        ("tests.remember", {"id": str(ID), "at": "2026-05-15T12:00:00+00:00", "count": 3})
    ]


def test_a_job_of_a_rolled_back_transaction_is_never_sent(db, captured_jobs):
    with transaction.atomic():
        jobs.enqueue("tests.remember")
        transaction.set_rollback(True)

    assert captured_jobs.queued == []


def test_a_dead_broker_is_counted_and_never_raised(transactional_db, monkeypatch):
    before = jobs.UNSENT.labels(task="tests.remember")._value.get()
    monkeypatch.setattr(jobs, "send", original_send)
    without_broker = Celery("dead", set_as_current=False)
    without_broker.config_from_object("django.conf:settings", namespace="CELERY")
    without_broker.conf.broker_url = "redis://127.0.0.1:1/0"
    monkeypatch.setattr(jobs, "current_app", without_broker)

    jobs.enqueue("tests.remember")  # Loads the client.
    started = time.monotonic()
    jobs.enqueue("tests.remember")

    assert jobs.UNSENT.labels(task="tests.remember")._value.get() == before + 2
    assert time.monotonic() - started < 20


def test_the_correlation_id_reaches_the_worker(transactional_db, monkeypatch):
    monkeypatch.setattr(jobs, "send", original_send)
    seen.clear()
    correlation.bind("from-the-request")

    with start_worker(current_app, perform_ping_check=False, shutdown_timeout=20):
        jobs.enqueue("tests.remember", id=ID)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not seen and time.monotonic() < deadline:
            time.sleep(0.02)

    assert seen == [{"id": str(ID), "correlation_id": "from-the-request"}]
