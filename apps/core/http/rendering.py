"""JSON going out: decimals as plain strings, moments in UTC, and never a float."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
from django.utils.functional import Promise
from rest_framework.renderers import BaseRenderer


class JSONRenderer(BaseRenderer):
    """Renders what a view returns; an answer without a body stays empty."""

    media_type = "application/json"
    format = "json"
    charset = None  # JSON is UTF-8 by definition; a charset parameter has no meaning.

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        return b"" if data is None else render_json(data)


def render_json(data: Any) -> bytes:
    """Return data as JSON. Floats are refused: whoever returns one has lost an exact number before."""
    return msgspec.json.encode(_plain(data))


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in {str, int, bool} or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, (date, UUID, Promise, str)):
        return str(value)
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"{kind.__name__} does not belong into an answer")
