"""The shapes of an event: as sent, and as read."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import msgspec

from apps.metering.models import (
    EVENT_ID_LENGTH_MAX,
    METER_LENGTH_MAX,
    REGION_LENGTH_MAX,
    SKU_LENGTH_MAX,
    SOURCE_LENGTH_MAX,
    SUBJECT_LENGTH_MAX,
)

NAME_LENGTH_MAX = 63
TYPE_LENGTH_MAX = 64

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


class Wrong(Exception):
    """What is wrong with the event at hand."""
