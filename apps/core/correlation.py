"""The correlation id: one id from the request through log lines, audit rows, outbox rows and jobs.

It is kept in structlog's context, which django-structlog hands on to Celery's messages and back.
"""

from __future__ import annotations

import re

import structlog

from apps.core.ids import uuid7

_KEY = "correlation_id"
_ACCEPTED = re.compile(r"[\w.:-]{1,128}", re.ASCII)


def current() -> str:
    """Return the id of what runs now; a command that has none yet gets a new one."""
    found = structlog.contextvars.get_contextvars().get(_KEY)
    return str(found) if found else bind(str(uuid7()))


def bind(correlation_id: str) -> str:
    """Make this the id of what runs from here on, and return it."""
    structlog.contextvars.bind_contextvars(**{_KEY: correlation_id})
    return correlation_id


def accept(candidate: str) -> str:
    """Return the id that a caller sent if it can be kept, else a new one."""
    return candidate if _ACCEPTED.fullmatch(candidate) else str(uuid7())
