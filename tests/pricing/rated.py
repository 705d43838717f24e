"""Stands in for billing: how far usage is rated is what a test says. Named in settings, so it is a module."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import connection

RATED: dict[UUID, datetime] = {}
# Since when was asked, and whether charging was locked out meanwhile.
ASKED: list[tuple[datetime, bool]] = []


def rated_until(
    *, since: datetime, book_id: UUID | None = None, organization_id: UUID | None = None
) -> datetime | None:
    """Return what a test put into RATED, if it lies after `since`."""
    scope = book_id or organization_id
    assert scope, "pricing asks for a book or an organization"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
            " AND mode = 'ExclusiveLock' AND granted"
        )
        (locks,) = cursor.fetchone()
    ASKED.append((since, locks > 0))
    found = RATED.get(scope)
    return found if found and found > since else None
