"""Moments as clients write them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, tzinfo

from django.utils.dateparse import parse_datetime


def parse_moment(text: str) -> datetime:
    """Return the moment that a text names, in UTC; ValueError if it names none or no offset from UTC.

    In UTC because PostgreSQL refuses offsets of sixteen hours and more, which Python takes.
    """
    moment = parse_datetime(text)
    if moment is None or moment.tzinfo is None:
        raise ValueError(text)
    return in_utc(moment)


def in_utc(moment: datetime) -> datetime:
    """Return the same moment in UTC; ValueError if it lies outside of the years 1 to 9999 there."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(moment)) from error


def day_begins(day: date, zone: tzinfo) -> datetime:
    """Return the moment at which a day begins in a time zone; ValueError if that is before year 1 in UTC."""
    return in_utc(datetime.combine(day, time.min, zone))
