"""Whether one event makes sense, and what it says exactly."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from hashlib import sha256

import msgspec
from django.utils.translation import gettext as _

from apps.metering.events.envelope import CloudEvent, EventData, Received, Wrong
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

GPUS_MAX = 100_000
QUANTITY_MAX = 10**12
INTERVAL_MAX = timedelta(days=5 * 366)
YEAR_MIN, YEAR_MAX = 2000, 2100
LABELS_MAX = 64
LABEL_LENGTH_MAX = 255

# RFC 3339, with zeros alone beyond the millisecond.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_MILLISECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3}0*)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_TOO_FINE = re.compile(r"\.\d{3}\d*[1-9]", re.ASCII)
_EXACT = Context(prec=80, rounding=ROUND_HALF_UP, traps=[Inexact, InvalidOperation, Overflow, DivisionByZero])
_ALLOCATION_TYPES = frozenset({STARTED, HEARTBEAT, RESIZED, STOPPED})
_PRICED_TYPES = frozenset({STARTED, RECORDED})
_SIZED_TYPES = frozenset({STARTED, RESIZED})


def check(event: CloudEvent) -> Received:
    """Return the event with its values exact, or raise Wrong saying what is the matter."""
    data = event.data
    kind = event.type
    if event.specversion != "1.0":
        raise Wrong(_("specversion must be 1.0."))
    # One look at all texts: what is absent reads "None", and a text of blanks alone has a blank.
    texts = (
        f"{event.id}{event.source}{kind}{event.subject}{data.organization}"
        f"{data.project}{data.sku}{data.region}{data.api_key}{data.meter}"
    )
    if " " in texts or not texts.isprintable():
        _check_texts(event)
    if data.sku == "*":
        raise Wrong(_("data.sku must name one SKU."))
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
        raise Wrong(_("type %(type)s is not known.") % {"type": kind})

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


def _check_texts(event: CloudEvent) -> None:
    """Raise Wrong naming the first text that is blank or cannot be printed, if there is one."""
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


def _check_allocation(event: CloudEvent, time: int | None, milli_gpus: int | None) -> None:
    if event.subject is None:
        raise Wrong(_("subject is required: it names the allocation."))
    if time is None:
        raise Wrong(_("time is required."))
    if event.type == STARTED:
        _require(event.data, "sku", "region", "gpus")
    if event.type == RESIZED and milli_gpus is None:
        raise Wrong(_("data.gpus is required."))


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
        raise Wrong(_("data needs either started_at and ended_at, or meter and quantity."))
    if is_reading:
        _require(data, "meter", "quantity")
        if time is None:
            raise Wrong(_("time is required."))
        if milli_gpus is not None:
            raise Wrong(_("data.gpus goes with started_at and ended_at, not with a meter."))
        if data.meter in {GPU_HOURS, INSTANCE_HOURS}:
            raise Wrong(
                _("data.meter %(meter)s is counted from intervals; send started_at and ended_at.")
                % {"meter": data.meter}
            )
        return
    _require(data, "sku", "region", "gpus", "started_at", "ended_at")
    assert started is not None, "required above"
    assert ended is not None, "required above"
    if ended < started:
        raise Wrong(_("data.ended_at is before data.started_at."))
    if from_ms(ended) - from_ms(started) > INTERVAL_MAX:
        raise Wrong(_("data.started_at and data.ended_at are more than five years apart."))


def _require(data: EventData, *names: str) -> None:
    for name in names:
        if getattr(data, name) is None:
            raise Wrong(_("data.%(name)s is required.") % {"name": name})


def _check_text(name: str, text: str) -> None:
    if text.isspace():
        raise Wrong(_("%(name)s must not be empty.") % {"name": name})
    if not text.isprintable():
        problem = (
            _("%(name)s contains a NUL character.")
            if "\x00" in text
            else _("%(name)s contains a character that cannot be printed.")
        )
        raise Wrong(problem % {"name": name})


def _moment(name: str, text: str) -> int:
    """Return an RFC 3339 moment in milliseconds."""
    # As nearly everyone writes it; whatever else is allowed, or to be complained about, follows.
    if not _MILLISECONDS.fullmatch(text):
        if not _MOMENT.fullmatch(text):
            raise Wrong(
                _("%(name)s is not an RFC 3339 time with an offset, such as 2026-01-31T12:00:00Z.")
                % {"name": name}
            )
        if _TOO_FINE.search(text):
            raise Wrong(_("%(name)s is finer than a millisecond.") % {"name": name})
        text = text.upper()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Wrong(_("%(name)s is no time that exists.") % {"name": name}) from error
    if not YEAR_MIN <= moment.year < YEAR_MAX:
        raise Wrong(
            _("%(name)s must lie in the years %(min)d to %(max)d.")
            % {"name": name, "min": YEAR_MIN, "max": YEAR_MAX - 1}
        )
    return to_ms(moment)


def _scaled(name: str, value: Decimal, decimals: int, most: int) -> int:
    """Return a decimal times 10^decimals as the integer that it must be."""
    if not value.is_finite():
        raise Wrong(_("%(name)s is not a number that can be counted.") % {"name": name})
    if value < 0:
        raise Wrong(_("%(name)s must not be negative.") % {"name": name})
    if value > most:
        raise Wrong(_("%(name)s is absurd: more than %(max)d.") % {"name": name, "max": most})
    try:
        return int(_EXACT.to_integral_exact(_EXACT.scaleb(value, decimals)))
    except (Inexact, InvalidOperation) as error:
        raise Wrong(
            _("%(name)s is finer than %(step)s.") % {"name": name, "step": f"0.{'0' * (decimals - 1)}1"}
        ) from error


def _labels(labels: dict[str, str]) -> str:
    """Return the labels as JSON text with sorted keys."""
    if len(labels) > LABELS_MAX:
        raise Wrong(_("data.labels has more than %(max)d entries.") % {"max": LABELS_MAX})
    for key, value in labels.items():
        for text in (key, value) if value else (key,):
            if not text:
                raise Wrong(_("%(name)s must not be empty.") % {"name": "data.labels"})
            if len(text) > LABEL_LENGTH_MAX:
                raise Wrong(
                    _("%(name)s is longer than %(max)d characters.")
                    % {"name": "data.labels", "max": LABEL_LENGTH_MAX}
                )
            _check_text("data.labels", text)
    return msgspec.json.encode(labels, order="sorted").decode()
