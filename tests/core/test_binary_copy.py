"""Fields of the binary COPY format arrive in PostgreSQL as what they stand for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.core import binary_copy

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

milliseconds = st.integers(0, 4_102_444_800_000)
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))])
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@pytest.fixture
def table(db):
    columns = (
        "a text, b uuid, c timestamptz, d numeric(38, 6), e numeric(12, 3), f jsonb, g uuid[], h timestamptz[], "
        "i bigint, j integer, k timestamptz"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE copied ({columns}) ON COMMIT DROP")
        yield cursor


@given(
    text=texts,
    id=st.none() | st.uuids(),
    moment=st.none() | milliseconds,
    quantity=st.none() | st.integers(0, 10**18) | st.sampled_from([1, 9_999, 10_000, 10**6, 10**10]),
    gpus=st.none() | st.integers(0, 10**8),
    ids=st.lists(st.uuids(), min_size=1, max_size=5),
    moments=st.lists(milliseconds, min_size=1, max_size=5),
    big=st.integers(-(2**63), 2**63 - 1),
    small=st.integers(-(2**31), 2**31 - 1),
    instant=st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=zones),  # noqa: DTZ001
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_value_arrives(table, text, id, moment, quantity, gpus, ids, moments, big, small, instant):  # noqa: A002
    fields = [
        binary_copy.text(text),
        binary_copy.uuid(id),
        binary_copy.moment(moment),
        binary_copy.numeric(quantity, 6),
        binary_copy.numeric(gpus, 3),
        binary_copy.json('{"a": 1.50}'),
        binary_copy.array(binary_copy.UUID_OID, [binary_copy.uuid(one) for one in ids]),
        binary_copy.array(binary_copy.TIMESTAMPTZ_OID, [binary_copy.moment(one) for one in moments]),
        binary_copy.bigint(big),
        binary_copy.integer(small),
        binary_copy.instant(instant),
    ]
    table.execute("DELETE FROM copied")
    binary_copy.send("COPY copied FROM STDIN (FORMAT binary)", [len(fields).to_bytes(2) + b"".join(fields)])
    table.execute("SELECT a, b, c, d::text, e::text, f::text, g, h, i, j, k FROM copied")

    assert table.fetchone() == (
        text,
        id,
        at(moment),
        None if quantity is None else f"{Decimal(quantity).scaleb(-6):f}",
        None if gpus is None else f"{Decimal(gpus).scaleb(-3):f}",
        '{"a": 1.50}',
        ids,
        [at(one) for one in moments],
        big,
        small,
        instant,
    )


def at(ms: int | None) -> datetime | None:
    return None if ms is None else EPOCH + timedelta(milliseconds=ms)


def test_a_numeric_without_decimals_and_one_below_one(table):
    table.execute("CREATE TEMPORARY TABLE numbers (a numeric, b numeric) ON COMMIT DROP")
    row = binary_copy.numeric(1_000_000, 0) + binary_copy.numeric(5, 5)
    with table.copy("COPY numbers FROM STDIN (FORMAT binary)") as copy:
        copy.write(binary_copy.HEADER + (2).to_bytes(2) + row + binary_copy.TRAILER)
    table.execute("SELECT a::text, b::text FROM numbers")

    assert table.fetchone() == ("1000000", "0.00005")


def test_a_negative_numeric_is_a_bug():
    with pytest.raises(AssertionError):
        binary_copy.numeric(-1, 6)


def test_no_uuid_is_null():
    assert binary_copy.uuid(None) == binary_copy.NULL != binary_copy.uuid(UUID(int=0))
