"""Keeping out of the logs what opens a door: tokens in paths, and secrets wherever somebody put one."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

_HIDDEN = (
    (re.compile(r"(/accounts/(?:confirm|confirm-email|password/reset/key)/)[^/?\s'\"]+"), r"\1…"),
    (re.compile(r"(/invites/)(?!mine(?:[/?\s'\"]|$))[^/?\s'\"]+"), r"\1…"),
    (re.compile(r"\b([a-z][a-z0-9]{0,9}_(?:live|int)_[0-9A-Za-z]{8})_[0-9A-Za-z]{49}"), r"\1_…"),
    (re.compile(r"\b((?:sk|rk)_(?:live|test)|whsec)_\w{8,}"), r"\1_…"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+"), "…"),
)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return a log event without tokens of invites, keys or access tokens in any of its texts; structlog calls this."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact_text(value)
    return event


def redact_text(text: str) -> str:
    """Return a text without tokens."""
    for pattern, shown in _HIDDEN:
        text = pattern.sub(shown, text)
    return text
