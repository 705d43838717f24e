"""Identifiers: UUIDs version 7 sort by time, which keeps indexes compact."""

from uuid import UUID

from uuid_utils import compat


def uuid7() -> UUID:
    """Return a new time-ordered UUID; made here because PostgreSQL has `uuidv7()` only from 18 on."""
    return compat.uuid7()
