"""The changes of an audit row as a page shows them."""

from __future__ import annotations

from typing import Any

from django import template

register = template.Library()

PAIR = 2


@register.filter
def changes(event: Any) -> list[tuple[str, str | None, str]]:
    """Return the name of each field with what it was, None for a plain fact, and what it is.

    What was made has facts only: there a list of two is a list, not before and after.
    """
    found: list[tuple[str, str | None, str]] = []
    was_made = event.action.endswith(".created")
    for name, value in event.diff.items():
        if isinstance(value, list) and len(value) == PAIR and not was_made:
            found.append((name, _text(value[0]), _text(value[1])))
        else:
            found.append((name, None, _text(value)))
    return found


def _text(value: Any) -> str:
    if value in (None, "", []):
        return "–"
    return ", ".join(str(each) for each in value) if isinstance(value, list) else str(value)
