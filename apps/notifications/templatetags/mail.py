"""How facts read in a mail."""

from __future__ import annotations

from datetime import UTC, datetime

from django import template
from django.utils.formats import date_format

register = template.Library()


@register.filter
def when(moment: str) -> str:
    """Return an ISO 8601 moment as a person reads it, such as `15 May 2026, 12:00 UTC`."""
    at = datetime.fromisoformat(moment).astimezone(UTC)
    return f"{date_format(at, 'j M Y, H:i')} UTC"
