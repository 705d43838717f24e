"""Cleaning up."""

from __future__ import annotations

from celery import shared_task

from apps.limits import services


@shared_task(name="limits.purge_guesses")
def purge_guesses(**_newer: object) -> None:
    """Delete the buckets that are whole again."""
    services.purge_guesses()
