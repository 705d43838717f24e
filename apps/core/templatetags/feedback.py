"""What a message says beside its words."""

from __future__ import annotations

import json
from typing import Any

from django import template
from django.contrib.messages.storage.base import Message

register = template.Library()


@register.filter
def undo(message: Message) -> dict[str, Any] | None:
    """Return what takes back what the message tells of, `url` and `fields`, if `Page.done` was given it."""
    tags = message.extra_tags or ""
    return dict(json.loads(tags)) if tags.startswith("{") else None
