"""From JSON to one event, or to the reason why it is none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
from django.utils.translation import gettext as _

from apps.metering.events.checking import check
from apps.metering.events.envelope import CloudEvent, Malformed, Received, Wrong
from apps.metering.models import EVENT_ID_LENGTH_MAX

_PLACE = re.compile(r"^(?P<problem>.*?)(?: - at `(?P<place>[^`]*)`)?$", re.DOTALL)
_TOO_LONG = re.compile(r"Expected str of length <= (\d+)")
_EVENT = msgspec.json.Decoder(CloudEvent)


class _Constant:
    """NaN or an infinity, which JSON does not know but some senders write."""

    def __init__(self, name: str) -> None:
        self.name = name


def build(
    *,
    id: str,  # noqa: A002  The envelope's own words.
    source: str,
    type: str,  # noqa: A002  As above.
    data: dict[str, Any],
    subject: str | None = None,
    time: str | None = None,
) -> Received | Malformed:
    """Return the event that a program of ours makes, checked like any other; decimals and times may be strings."""
    return read(
        {
            "specversion": "1.0",
            "id": id,
            "source": source,
            "type": type,
            "data": data,
            "subject": subject,
            "time": time,
        }
    )


def read(event: Any) -> Received | Malformed:
    """Return what an event says, or why it cannot be taken.

    event: typed already, as JSON text, or as what `lenient` made of such text.
    """
    try:
        return check(event if type(event) is CloudEvent else _typed(event))
    except Wrong as wrong:
        return Malformed(id=_id_of(event), message=str(wrong))


def _typed(event: Any) -> CloudEvent:
    try:
        if isinstance(event, (bytes, msgspec.Raw)):
            return _EVENT.decode(event)
        if constant := next(_constants(event), None):
            raise Wrong(_("%(name)s is not a number that can be counted.") % {"name": constant})
        return msgspec.convert(event, CloudEvent)
    except msgspec.ValidationError as error:
        raise Wrong(_explain(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if isinstance(event, (bytes, msgspec.Raw)) and (found := lenient(bytes(event))) is not None:
            return _typed(found)
        raise Wrong(_("This event is not valid JSON: %(why)s.") % {"why": error}) from error


def _constants(value: Any) -> Iterator[str]:
    if isinstance(value, _Constant):
        yield value.name
    elif isinstance(value, dict):
        for part in value.values():
            yield from _constants(part)
    elif isinstance(value, list):
        for part in value:
            yield from _constants(part)


def _explain(error: msgspec.ValidationError) -> str:
    """Return the decoder's complaint with the member in front: `data.gpus: Expected decimal, got bool`."""
    match = _PLACE.match(str(error))
    assert match, "the pattern matches any text"
    problem = match["problem"].replace("`", "").replace(" | null", "")
    place = (match["place"] or "").removeprefix("$").removeprefix(".")
    if problem == "Expected str of length >= 1":
        return _("%(name)s must not be empty.") % {"name": place}
    if too_long := _TOO_LONG.fullmatch(problem):
        return _("%(name)s is longer than %(max)d characters.") % {"name": place, "max": int(too_long[1])}
    return f"{place}: {problem}" if place else problem


def _id_of(event: Any) -> str | None:
    """Return the event's id as far as it can be read and shown."""
    if isinstance(event, CloudEvent):
        return event.id[:EVENT_ID_LENGTH_MAX] if event.id.isprintable() else None
    if isinstance(event, (bytes, msgspec.Raw)):
        event = lenient(bytes(event))
    found = event.get("id") if isinstance(event, dict) else None
    return found[:EVENT_ID_LENGTH_MAX] if isinstance(found, str) and found.isprintable() else None


def lenient(text: bytes) -> Any:
    """Return what is JSON but for NaN, Infinity or half a surrogate pair, so that just those events are refused.

    None if it is no JSON in any case.
    """
    try:
        return json.loads(text.decode(), parse_constant=_Constant, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
