"""Splitting the body of a request into events, a chunk at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import batched
from typing import Any

import msgspec
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.core.errors import DomainError, InvalidRequest
from apps.metering.events.envelope import CloudEvent, Malformed, Received
from apps.metering.events.reading import lenient, read

ONE_OR_MANY = frozenset({"application/json"})
ONE = frozenset({"application/cloudevents+json"})
MANY = frozenset({"application/cloudevents-batch+json"})
LINES = frozenset({"application/x-ndjson", "application/ndjson"})

# So many events are held as objects at once, whatever the body holds.
CHUNK_EVENTS = 1_000
# An array up to here is decoded to types at once, in C; of a larger one only where each event begins and ends is kept.
_AT_ONCE_BYTES_MAX = 512 * 1024
_SPACE = re.compile(r"[ \t\r\n]*")
_MARK = re.compile(r"[ \t\r\n]*[],][ \t\r\n]*")
_LENIENT = json.JSONDecoder(parse_float=str, parse_int=str)
_EVENTS = msgspec.json.Decoder(list[CloudEvent])
_RAW = msgspec.json.Decoder(list[msgspec.Raw])


class UnsupportedContentType(DomainError):
    """The body is sent as something that events cannot be."""

    code, http_status = "unsupported_media_type", 415
    default_message = gettext_lazy(
        "Send events as application/json, application/cloudevents+json, application/cloudevents-batch+json"
        " or application/x-ndjson."
    )


def chunks(body: bytes, content_type: str, *, events_max: int) -> Iterator[list[Received | Malformed]]:
    """Yield every event of a body in its order, `CHUNK_EVENTS` at a time.

    Before the first: InvalidRequest if the body as a whole cannot be read or has too many events, and
    UnsupportedContentType.
    """
    for chunk in batched(_split(body, content_type, events_max), CHUNK_EVENTS):
        yield [read(event) for event in chunk]


def _split(body: bytes, content_type: str, events_max: int) -> Iterable[Any]:
    """Return the events of a body, each still to be read."""
    kind, _semicolon, parameters = content_type.partition(";")
    kind = kind.strip().lower() or "application/json"
    if "charset" in parameters.lower() and "utf-8" not in parameters.lower():
        raise InvalidRequest(_("JSON is UTF-8; leave the charset out."))
    if kind in LINES:
        # Lines are counted exactly only where blank ones decide.
        if body.count(b"\n") >= events_max:
            _limit(sum(1 for _line in _lines(body)), events_max)
        return _lines(body)
    if kind not in ONE_OR_MANY | ONE | MANY:
        raise UnsupportedContentType
    events = _split_json(body, kind, events_max)
    _limit(len(events), events_max)
    return events


def _lines(body: bytes) -> Iterable[bytes]:
    return filter(bytes.strip, BytesIO(body))


def _limit(count: int, events_max: int) -> None:
    if count > events_max:
        raise InvalidRequest(
            _("One request takes at most %(max)d events.") % {"max": events_max}, events_max=events_max
        )


def _split_json(body: bytes, kind: str, events_max: int) -> Sequence[Any]:
    """Return the events of one JSON text: typed if it is small and all of them can be, else each still to be read."""
    start = body.lstrip()[:1]
    if start not in {b"{", b"["}:
        raise InvalidRequest(_("The body must be one event as a JSON object, or an array of them."))
    if (kind in ONE and start == b"[") or (kind in MANY and start == b"{"):
        raise InvalidRequest(_("The body does not match its content type: one event or a batch?"))
    try:
        if not body.isascii():
            body.decode()
        if start == b"{":
            return [msgspec.json.decode(body, type=msgspec.Raw)]
        if len(body) > _AT_ONCE_BYTES_MAX:
            return _RAW.decode(body)
        try:
            return _EVENTS.decode(body)
        except msgspec.ValidationError:
            return _RAW.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            events = _split_array(body, events_max) if start == b"[" else [body]
        except (ValueError, RecursionError):
            events = []
        if not events or (start == b"{" and lenient(body) is None):
            raise InvalidRequest(_("The body is not valid JSON: %(why)s.") % {"why": error}) from error
        return events


def _split_array(body: bytes, events_max: int) -> list[bytes]:
    """Return the elements of a JSON array, in which NaN and its like may stand; ValueError if it is none even so.

    Each element is made and dropped again to find where it ends, so that never two are here as objects.
    """
    text = body.decode()
    found: list[bytes] = []
    mark = _SPACE.match(text, text.index("[") + 1)
    while mark and "]" not in mark[0]:
        start = mark.end()
        end = _LENIENT.raw_decode(text, start)[1]
        found.append(text[start:end].encode())
        _limit(len(found), events_max)
        mark = _MARK.match(text, end)
    if mark is None or mark.end() != len(text):
        raise ValueError
    return found
