"""How facts read in a mail."""

from __future__ import annotations

from datetime import datetime

from django import template

from apps.core.periods import moment_in_words

register = template.Library()


@register.filter
def when(moment: str) -> str:
    """Return an ISO 8601 moment as a person reads it, such as `15 May 2026, 12:00 UTC`."""
    return moment_in_words(datetime.fromisoformat(moment))
