"""What the arguments of commands have in common."""

from __future__ import annotations

from datetime import UTC, datetime

from django.utils.dateparse import parse_datetime

from apps.core.moments import in_utc


def moment(text: str) -> datetime:
    """Return the moment that an argument names, in UTC where it says no offset; ValueError for anything else."""
    found = parse_datetime(text)
    if found is None:
        raise ValueError(text)
    return in_utc(found) if found.tzinfo else found.replace(tzinfo=UTC)
