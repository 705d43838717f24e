"""Queueing work: a hint to the workers, sent after the commit; a sweep finds what was never sent."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import structlog
from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError
from prometheus_client import Counter

from apps.core import correlation

logger = structlog.get_logger(__name__)

UNSENT = Counter("countinghouse_jobs_unsent_total", "Jobs that the broker did not take.", ["task"])

JobArgument = str | int | bool | UUID | datetime | None


def enqueue(task_name: str, **arguments: JobArgument) -> None:
    """Queue a task by its name once the current transaction commits; nothing if it rolls back.

    arguments: sent as JSON; ids and moments become strings. A broker that is down is logged and counted,
    never raised: the write that asks for the job has been committed.
    """
    correlation.current()  # Bound now, so that the message carries the id of the request, not of the hook.
    sendable = {name: str(value) if isinstance(value, UUID) else value for name, value in arguments.items()}
    sendable = {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in sendable.items()
    }
    transaction.on_commit(lambda: send(task_name, sendable))


def send(task_name: str, arguments: Mapping[str, object]) -> None:
    """Hand a message to the broker now, or log that it did not take it."""
    try:
        current_app.send_task(task_name, kwargs=dict(arguments))
    except (OperationalError, OSError) as error:
        UNSENT.labels(task=task_name).inc()
        logger.warning("job_unsent", task=task_name, reason=str(error))
