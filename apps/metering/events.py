"""Reading usage events: CloudEvents 1.0, one, a batch or one a line, each checked by itself.

No database here: names are taken as sent. A body that cannot be split into events is refused as a whole; anything wrong
inside one event refuses that event alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from hashlib import sha256
from io import BytesIO
from typing import Annotated, Any, NoReturn

import msgspec
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.core.errors import DomainError, InvalidRequest
from apps.metering.intervals import (
    GPU_HOURS,
    HEARTBEAT,
    INSTANCE_HOURS,
    RECORDED,
    RESIZED,
    STARTED,
    STOPPED,
    from_ms,
    to_ms,
)
from apps.metering.models import (
    EVENT_ID_LENGTH_MAX,
    METER_LENGTH_MAX,
    REGION_LENGTH_MAX,
    SKU_LENGTH_MAX,
    SOURCE_LENGTH_MAX,
    SUBJECT_LENGTH_MAX,
)

GPUS_MAX = 100_000
QUANTITY_MAX = 10**12
INTERVAL_MAX = timedelta(days=5 * 366)
YEAR_MIN, YEAR_MAX = 2000, 2100
NAME_LENGTH_MAX = 63
TYPE_LENGTH_MAX = 64
LABELS_MAX = 64
LABEL_LENGTH_MAX = 255

ONE_OR_MANY = frozenset({"application/json"})
ONE = frozenset({"application/cloudevents+json"})
MANY = frozenset({"application/cloudevents-batch+json"})
LINES = frozenset({"application/x-ndjson", "application/ndjson"})

# RFC 3339, with zeros alone beyond the millisecond.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_MILLISECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3}0*)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_TOO_FINE = re.compile(r"\.\d{3}\d*[1-9]", re.ASCII)
_EXACT = Context(prec=80, rounding=ROUND_HALF_UP, traps=[Inexact, InvalidOperation, Overflow, DivisionByZero])
_PLACE = re.compile(r"^(?P<problem>.*?)(?: - at `(?P<place>[^`]*)`)?$", re.DOTALL)
_TOO_LONG = re.compile(r"Expected str of length <= (\d+)")
_ALLOCATION_TYPES = frozenset({STARTED, HEARTBEAT, RESIZED, STOPPED})
_PRICED_TYPES = frozenset({STARTED, RECORDED})
_SIZED_TYPES = frozenset({STARTED, RESIZED})


class UnsupportedContentType(DomainError):
    """The body is sent as something that events cannot be."""

    code, http_status = "unsupported_media_type", 415
    default_message = gettext_lazy(
        "Send events as application/json, application/cloudevents+json, application/cloudevents-batch+json"
        " or application/x-ndjson."
    )


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH_MAX)]
Sku = Annotated[str, msgspec.Meta(min_length=1, max_length=SKU_LENGTH_MAX)]
RegionCode = Annotated[str, msgspec.Meta(min_length=1, max_length=REGION_LENGTH_MAX)]
MeterCode = Annotated[str, msgspec.Meta(min_length=1, max_length=METER_LENGTH_MAX)]
EventId = Annotated[str, msgspec.Meta(min_length=1, max_length=EVENT_ID_LENGTH_MAX)]
Source = Annotated[str, msgspec.Meta(min_length=1, max_length=SOURCE_LENGTH_MAX)]
Subject = Annotated[str, msgspec.Meta(min_length=1, max_length=SUBJECT_LENGTH_MAX)]
TypeName = Annotated[str, msgspec.Meta(min_length=1, max_length=TYPE_LENGTH_MAX)]


class EventData(msgspec.Struct, gc=False):
    """The payload; which members an event needs depends on its type."""

    organization: Name
    project: Name | None = None
    sku: Sku | None = None
    region: RegionCode | None = None
    gpus: Decimal | None = None
    api_key: Name | None = None
    labels: dict[str, str] | None = None
    started_at: str | None = None
    ended_at: str | None = None
    meter: MeterCode | None = None
    quantity: Decimal | None = None


class CloudEvent(msgspec.Struct, gc=False):
    """The envelope."""

    specversion: str
    id: EventId
    source: Source
    type: TypeName
    data: EventData
    subject: Subject | None = None
    time: str | None = None


# Decoding to types, whole batches at once, happens in C; what this refuses is looked at event by event.
_EVENT = msgspec.json.Decoder(CloudEvent)
_EVENTS = msgspec.json.Decoder(list[CloudEvent])


class Received(msgspec.Struct, frozen=True, gc=False):
    """One well-formed event: numbers and times are exact integers, names are not resolved yet.

    time, started, ended: milliseconds since 1970. tested: the one that the time window applies to.
    milli_gpus: thousandths of a GPU. quantity: millionths of the meter's unit.
    """

    id: str
    source: str
    subject: str | None
    type: str
    time: int
    tested: int
    organization: str
    project: str | None
    sku: str
    region: str
    milli_gpus: int | None
    api_key: str | None
    meter: str
    quantity: int | None
    started: int | None
    ended: int | None
    labels: str
    payload_hash: bytes


class Malformed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event that cannot be taken, with the reason; `id` as far as it could be read."""

    id: str | None
    message: str


class _Wrong(Exception):
    """What is wrong with the event at hand."""


class _Constant:
    """NaN or an infinity, which JSON does not know but some senders write."""

    def __init__(self, name: str) -> None:
        self.name = name


def decode(body: bytes, content_type: str, *, events_max: int) -> list[Received | Malformed]:
    """Return every event of a body in its order; InvalidRequest if the body as a whole cannot be read."""
    kind, _semicolon, parameters = content_type.partition(";")
    kind = kind.strip().lower() or "application/json"
    if "charset" in parameters.lower() and "utf-8" not in parameters.lower():
        raise InvalidRequest(_("JSON is UTF-8; leave the charset out."))
    if kind in LINES:
        return [_read(line) for line in _limited(filter(bytes.strip, BytesIO(body)), events_max)]
    if kind not in ONE_OR_MANY | ONE | MANY:
        raise UnsupportedContentType
    return [_read(event) for event in _limited(_split(body, kind), events_max)]


def _limited(found: Iterable[Any], events_max: int) -> Iterator[Any]:
    """Yield the events, or refuse the body once there are too many; lines are read one at a time."""
    for count, event in enumerate(found):
        if count == events_max:
            raise InvalidRequest(
                _("One request takes at most %(max)d events.") % {"max": events_max}, events_max=events_max
            )
        yield event


def build(
    *,
    id: str,  # noqa: A002  The envelope's own words.
    source: str,
    type: str,  # noqa: A002
    data: dict[str, Any],
    subject: str | None = None,
    time: str | None = None,
) -> Received | Malformed:
    """Return the event that a program of ours makes, checked like any other; decimals and times may be strings."""
    return _read(
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


def _split(body: bytes, kind: str) -> Iterable[Any]:
    """Return the events of one JSON text, typed if all of them can be, else each still to be read."""
    start = body.lstrip()[:1]
    if start not in {b"{", b"["}:
        raise InvalidRequest(_("The body must be one event as a JSON object, or an array of them."))
    if (kind in ONE and start == b"[") or (kind in MANY and start == b"{"):
        raise InvalidRequest(_("The body does not match its content type: one event or a batch?"))
    try:
        if start == b"{":
            return [msgspec.json.decode(body, type=msgspec.Raw)]
        try:
            return _EVENTS.decode(body)
        except msgspec.ValidationError:
            return msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        events = _lenient(body)
        if events is None:
            raise InvalidRequest(_("The body is not valid JSON: %(why)s.") % {"why": error}) from error
        return events if isinstance(events, list) else [events]


def _lenient(text: bytes) -> Any:
    """Return what is JSON but for NaN, Infinity or half a surrogate pair, so that just those events are refused.

    None if it is no JSON in any case.
    """
    try:
        return json.loads(text.decode(), parse_constant=_Constant, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None


def _read(event: Any) -> Received | Malformed:
    try:
        return _checked(event if type(event) is CloudEvent else _typed(event))
    except _Wrong as wrong:
        return Malformed(id=_id_of(event), message=str(wrong))


def _typed(event: Any) -> CloudEvent:
    try:
        if isinstance(event, (bytes, msgspec.Raw)):
            return _EVENT.decode(event)
        if constant := next(_constants(event), None):
            raise _Wrong(_("%(name)s is not a number that can be counted.") % {"name": constant})
        return msgspec.convert(event, CloudEvent)
    except msgspec.ValidationError as error:
        raise _Wrong(_explain(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if isinstance(event, (bytes, msgspec.Raw)) and (lenient := _lenient(bytes(event))) is not None:
            return _typed(lenient)
        raise _Wrong(_("This event is not valid JSON: %(why)s.") % {"why": error}) from error


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
        event = _lenient(bytes(event))
    found = event.get("id") if isinstance(event, dict) else None
    return found[:EVENT_ID_LENGTH_MAX] if isinstance(found, str) and found.isprintable() else None


def _checked(event: CloudEvent) -> Received:
    """Return the event with its values exact, or raise _Wrong saying what is the matter."""
    data = event.data
    if event.specversion != "1.0":
        raise _Wrong(_("specversion must be 1.0."))
    for text in (
        event.id,
        event.source,
        event.type,
        event.subject,
        data.organization,
        data.project,
        data.sku,
        data.region,
        data.api_key,
        data.meter,
    ):
        if text is not None and (not text.isprintable() or text.isspace()):
            _complain(event)
    if data.sku == "*":
        raise _Wrong(_("data.sku must name one SKU."))
    kind = event.type
    time = None if event.time is None else _moment("time", event.time)
    started = None if data.started_at is None else _moment("data.started_at", data.started_at)
    ended = None if data.ended_at is None else _moment("data.ended_at", data.ended_at)
    milli_gpus = None if data.gpus is None else _scaled("data.gpus", data.gpus, 3, GPUS_MAX)
    quantity = None if data.quantity is None else _scaled("data.quantity", data.quantity, 6, QUANTITY_MAX)
    labels = _labels(data.labels) if data.labels else "{}"

    if kind in _ALLOCATION_TYPES:
        _check_allocation(event, time, milli_gpus)
    elif kind == RECORDED:
        _check_recorded(event, time, started, ended, milli_gpus, quantity)
    else:
        raise _Wrong(_("type %(type)s is not known.") % {"type": kind})

    payload = (
        kind,
        event.subject,
        time,
        data.organization,
        data.project,
        data.sku,
        data.region,
        milli_gpus,
        data.api_key,
        data.meter,
        quantity,
        started,
        ended,
        labels,
    )
    is_recorded = kind == RECORDED
    is_interval = is_recorded and ended is not None
    has_price = kind in _PRICED_TYPES
    moment = time if time is not None else ended
    assert moment is not None, "each type needs one of them"
    return Received(
        event.id,
        event.source,
        event.subject,
        kind,
        moment,
        ended if is_interval and ended is not None else moment,
        data.organization,
        data.project if has_price else None,
        (data.sku or "") if has_price else "",
        (data.region or "") if has_price else "",
        milli_gpus if is_interval or kind in _SIZED_TYPES else None,
        data.api_key if has_price else None,
        (data.meter or "") if is_recorded else "",
        quantity if is_recorded else None,
        started if is_interval else None,
        ended if is_interval else None,
        labels,
        sha256(msgspec.json.encode(payload)).digest(),
    )


def _complain(event: CloudEvent) -> NoReturn:
    """Raise _Wrong naming the first text that is blank or cannot be printed."""
    data = event.data
    for name, text in (
        ("id", event.id),
        ("source", event.source),
        ("type", event.type),
        ("data.organization", data.organization),
        ("subject", event.subject),
        ("data.project", data.project),
        ("data.sku", data.sku),
        ("data.region", data.region),
        ("data.api_key", data.api_key),
        ("data.meter", data.meter),
    ):
        if text is not None:
            _check_text(name, text)
    raise AssertionError("called for a text that is not in order")


def _check_allocation(event: CloudEvent, time: int | None, milli_gpus: int | None) -> None:
    if event.subject is None:
        raise _Wrong(_("subject is required: it names the allocation."))
    if time is None:
        raise _Wrong(_("time is required."))
    if event.type == STARTED:
        _require(event.data, "sku", "region", "gpus")
    if event.type == RESIZED and milli_gpus is None:
        raise _Wrong(_("data.gpus is required."))


def _check_recorded(
    event: CloudEvent,
    time: int | None,
    started: int | None,
    ended: int | None,
    milli_gpus: int | None,
    quantity: int | None,
) -> None:
    data = event.data
    is_reading = data.meter is not None or quantity is not None
    if is_reading == (started is not None or ended is not None):
        raise _Wrong(_("data needs either started_at and ended_at, or meter and quantity."))
    if is_reading:
        _require(data, "meter", "quantity")
        if time is None:
            raise _Wrong(_("time is required."))
        if milli_gpus is not None:
            raise _Wrong(_("data.gpus goes with started_at and ended_at, not with a meter."))
        if data.meter in {GPU_HOURS, INSTANCE_HOURS}:
            raise _Wrong(
                _("data.meter %(meter)s is counted from intervals; send started_at and ended_at.")
                % {"meter": data.meter}
            )
        return
    _require(data, "sku", "region", "gpus", "started_at", "ended_at")
    assert started is not None, "required above"
    assert ended is not None, "required above"
    if ended < started:
        raise _Wrong(_("data.ended_at is before data.started_at."))
    if from_ms(ended) - from_ms(started) > INTERVAL_MAX:
        raise _Wrong(_("data.started_at and data.ended_at are more than five years apart."))


def _require(data: EventData, *names: str) -> None:
    for name in names:
        if getattr(data, name) is None:
            raise _Wrong(_("data.%(name)s is required.") % {"name": name})


def _check_text(name: str, text: str) -> None:
    if text.isspace():
        raise _Wrong(_("%(name)s must not be empty.") % {"name": name})
    if not text.isprintable():
        problem = (
            _("%(name)s contains a NUL character.")
            if "\x00" in text
            else _("%(name)s contains a character that cannot be printed.")
        )
        raise _Wrong(problem % {"name": name})


def _moment(name: str, text: str) -> int:
    """Return an RFC 3339 moment in milliseconds."""
    # As nearly everyone writes it; whatever else is allowed, or to be complained about, follows.
    if not _MILLISECONDS.fullmatch(text):
        if not _MOMENT.fullmatch(text):
            raise _Wrong(
                _("%(name)s is not an RFC 3339 time with an offset, such as 2026-01-31T12:00:00Z.")
                % {"name": name}
            )
        if _TOO_FINE.search(text):
            raise _Wrong(_("%(name)s is finer than a millisecond.") % {"name": name})
        text = text.upper()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise _Wrong(_("%(name)s is no time that exists.") % {"name": name}) from error
    if not YEAR_MIN <= moment.year < YEAR_MAX:
        raise _Wrong(
            _("%(name)s must lie in the years %(min)d to %(max)d.")
            % {"name": name, "min": YEAR_MIN, "max": YEAR_MAX - 1}
        )
    return to_ms(moment)


def _scaled(name: str, value: Decimal, decimals: int, most: int) -> int:
    """Return a decimal times 10^decimals as the integer that it must be."""
    if not value.is_finite():
        raise _Wrong(_("%(name)s is not a number that can be counted.") % {"name": name})
    if value < 0:
        raise _Wrong(_("%(name)s must not be negative.") % {"name": name})
    if value > most:
        raise _Wrong(_("%(name)s is absurd: more than %(max)d.") % {"name": name, "max": most})
    try:
        return int(_EXACT.to_integral_exact(_EXACT.scaleb(value, decimals)))
    except (Inexact, InvalidOperation) as error:
        raise _Wrong(
            _("%(name)s is finer than %(step)s.") % {"name": name, "step": f"0.{'0' * (decimals - 1)}1"}
        ) from error


def _labels(labels: dict[str, str]) -> str:
    """Return the labels as JSON text with sorted keys."""
    if len(labels) > LABELS_MAX:
        raise _Wrong(_("data.labels has more than %(max)d entries.") % {"max": LABELS_MAX})
    for key, value in labels.items():
        for text in (key, value) if value else (key,):
            if not text:
                raise _Wrong(_("%(name)s must not be empty.") % {"name": "data.labels"})
            if len(text) > LABEL_LENGTH_MAX:
                raise _Wrong(
                    _("%(name)s is longer than %(max)d characters.")
                    % {"name": "data.labels", "max": LABEL_LENGTH_MAX}
                )
            _check_text("data.labels", text)
    return msgspec.json.encode(labels, order="sorted").decode()
