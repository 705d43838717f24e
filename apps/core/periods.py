"""Calendar months in a time zone, and whole UTC hours. All moments are UTC, ranges half-open."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from django.utils.formats import date_format

HOUR = timedelta(hours=1)
LAST_HOUR = datetime.max.replace(minute=0, second=0, microsecond=0, tzinfo=UTC)  # No moment follows it.
SECONDS_PER_HOUR = 3600
# Years are from 1 to 9999, and every month has a next one.
_LABEL = re.compile(r"(?!0000|9999-12)[0-9]{4}-(0[1-9]|1[0-2])")


@cache
def zone_names() -> frozenset[str]:
    """Return the names of the IANA time zones: read from several hundred files once per process."""
    return frozenset(available_timezones())


def is_label(text: str) -> bool:
    """Return whether the text is a period's label, YYYY-MM."""
    return _LABEL.fullmatch(text) is not None


def label_of(moment: datetime, zone: str) -> str:
    """Return the label YYYY-MM of the month that contains the moment in the zone."""
    return f"{moment.astimezone(ZoneInfo(zone)):%Y-%m}"


def next_label(label: str) -> str:
    """Return the label of the following month."""
    year, month = _parts(label)
    return f"{year + month // 12:04d}-{month % 12 + 1:02d}"


def previous_label(label: str) -> str:
    """Return the label of the preceding month."""
    year, month = _parts(label)
    return f"{year - (month == 1):04d}-{(month - 2) % 12 + 1:02d}"


def month_start(label: str, zone: str) -> datetime:
    """Return the moment, in UTC, at which the month starts in the zone.

    Midnight that a daylight-saving change skips is taken with the offset before the change, as zoneinfo does.
    """
    year, month = _parts(label)
    return datetime(year, month, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def floor_hour(moment: datetime) -> datetime:
    """Return the start of the whole UTC hour that contains the moment."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def is_whole_hour(moment: datetime) -> bool:
    """Return whether the moment is a whole UTC hour."""
    return floor_hour(moment) == moment


def moment_in_words(moment: datetime) -> str:
    """Return a moment as a person reads it where no zone is known, such as `15 May 2026, 12:00 UTC`."""
    return f"{date_format(moment.astimezone(UTC), 'j M Y, H:i')} UTC"


def _parts(label: str) -> tuple[int, int]:
    year, month = label.split("-")
    return int(year), int(month)
