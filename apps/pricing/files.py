"""Price book files: our JSON, and CSV in the columns of the SkyPilot catalog. Reading writes nothing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from json.decoder import WHITESPACE  # type: ignore[attr-defined]  # Not in its stub.
from typing import Any

from django.utils.translation import gettext as _

from apps.core.errors import FieldError, ValidationFailed
from apps.core.moments import parse_moment
from apps.core.money import EXACT, is_currency, plain
from apps.pricing.models import ANY, PRICE_LIMIT
from apps.pricing.rows import PriceRow, is_code, read_number, read_row, round_price

_BOOK_FIELDS = ("name", "currency", "effective_from", "prices")
_NAME_LENGTH_MAX = 150
SPOT = ":spot"  # Ends the code of what SpotPrice prices.
_REQUIRED_COLUMNS = ("InstanceType", "AcceleratorCount", "Price", "Region")
_ATTRIBUTES = {
    "accelerator": "AcceleratorName",
    "gpus": "AcceleratorCount",
    "vcpus": "vCPUs",
    "memory_gib": "MemoryGiB",
}


class PriceBookUnreadable(ValidationFailed):
    """A price book file has mistakes; each is named with its line and column, and nothing was written."""

    code = "price_book_unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class SkuFacts:
    """What a file says about a SKU besides its prices."""

    code: str
    family: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BookContent:
    """A price book as read from a file.

    effective_from: None when neither the file nor the caller says.
    notes: what the reader decided, such as a rounded quotient, for the person who imports.
    """

    name: str
    currency: str
    effective_from: datetime | None
    rows: tuple[PriceRow, ...]
    skus: tuple[SkuFacts, ...]
    notes: tuple[str, ...] = ()


def read_file(
    text: str, *, is_csv: bool, meters: Iterable[str], name: str, currency: str, currency_default: str
) -> BookContent:
    """Return the book in either format. Raises PriceBookUnreadable."""
    if is_csv:
        return read_skypilot_csv(text, name=name, currency=currency or currency_default)
    return read_json(text, meters=meters, name=name, currency=currency)


def read_json(text: str, *, meters: Iterable[str], name: str = "", currency: str = "") -> BookContent:
    """Return the book in our JSON format.

    meters: the codes that exist. name, currency: what the caller asks for; a name replaces the file's, a
    currency must agree with it. Raises PriceBookUnreadable.
    """
    document = _load_json(text)
    unknown = [key for key in document if key not in _BOOK_FIELDS]
    errors = [_error(key, "unknown_field", _("A price book has no such field.")) for key in unknown]
    name = name or _text(document.get("name"))
    file_currency = _text(document.get("currency")) or currency
    errors += _check_head(name, file_currency)
    if currency and file_currency != currency:
        errors.append(_error("currency", "contradiction", _("The file is in %s.") % file_currency))
    effective_from = None
    if (moment := document.get("effective_from")) is not None:
        effective_from = _moment(moment)
        if effective_from is None:
            message = _("This is not a moment such as 2026-01-01T00:00:00Z.")
            errors.append(_error("effective_from", "invalid", message))
    listed = document.get("prices")
    if not isinstance(listed, list) or not listed:
        errors.append(_error("prices", "required", _("A price book lists at least one price.")))
        listed = []
    rows, row_errors = _read_rows(text, listed, frozenset(meters))
    errors += row_errors
    if errors:
        raise PriceBookUnreadable(_("The price book has mistakes; nothing was imported."), fields=errors)
    skus = dict.fromkeys(row.sku for row in rows if row.sku != ANY)
    return BookContent(
        name=name,
        currency=file_currency,
        effective_from=effective_from,
        rows=tuple(rows),
        skus=tuple(SkuFacts(code=code) for code in skus),
    )


def read_skypilot_csv(text: str, *, name: str, currency: str) -> BookContent:
    """Return the book in a CSV of the SkyPilot catalog, as it is.

    A row is the price of a machine per hour. With accelerators it becomes the price of one GPU-hour, Price
    divided by AcceleratorCount, rounded half up to ten decimals where the quotient has more; without, of an
    instance-hour. SpotPrice becomes the same under `<InstanceType>:spot`. Raises PriceBookUnreadable.
    """
    errors = _check_head(name, currency)
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    reader = _CatalogReader()
    try:
        header = next(table, [])
        missing = [column for column in _REQUIRED_COLUMNS if column not in header]
        if missing:
            message = _("These columns are missing: %s.") % ", ".join(missing)
            raise PriceBookUnreadable(message, fields=[_error("line 1", "missing_columns", message)])
        for cells in table:
            if any(cells):
                reader.read(cells, header, table.line_num)
    except csv.Error as error:
        reader.refuse(table.line_num, "", "invalid_csv", str(error))
    if not reader.rows and not reader.errors:
        reader.refuse(1, "", "required", _("A price book lists at least one price."))
    if errors := [*errors, *reader.errors]:
        raise PriceBookUnreadable(_("The price book has mistakes; nothing was imported."), fields=errors)
    return BookContent(
        name=name,
        currency=currency,
        effective_from=None,
        rows=tuple(row for row, _line in reader.rows.values()),
        skus=tuple(reader.skus.values()),
        notes=tuple(reader.notes),
    )


class _CatalogReader:
    """Collects the rows of a catalog, with the line of each for what contradicts it later."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], tuple[PriceRow, int]] = {}
        self.skus: dict[str, SkuFacts] = {}
        self.errors: list[FieldError] = []
        self.notes: list[str] = []

    def refuse(self, line: int, column: str, code: str, message: str) -> None:
        place = f"line {line}, {column}" if column else f"line {line}"
        self.errors.append(_error(place, code, message))

    def read(self, cells: list[str], header: list[str], line: int) -> None:
        if len(cells) != len(header):
            message = _("The line has %(cells)d cells, the header %(columns)d.")
            self.refuse(line, "", "invalid_csv", message % {"cells": len(cells), "columns": len(header)})
            return
        row = {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
        before = len(self.errors)
        for column, kind, suffix in (("InstanceType", "sku", SPOT), ("Region", "region", "")):
            if not row[column]:
                self.refuse(line, column, "required", _("This field is missing."))
            elif not is_code(row[column] + suffix, kind):
                self.refuse(line, column, "invalid", _("This is not a code."))
        count = self._number(row["AcceleratorCount"] or "0", line, "AcceleratorCount")
        if not row["Price"] and not row.get("SpotPrice"):
            self.refuse(line, "Price", "required", _("This field is missing."))
        offers = [
            (column, suffix, self._number(row[column], line, column))
            for column, suffix in (("Price", ""), ("SpotPrice", SPOT))
            if row.get(column)
        ]
        if len(self.errors) > before:
            return
        for column, suffix, price in offers:
            self._add(row, line, column, row["InstanceType"] + suffix, price, count)

    def _number(self, cell: str, line: int, column: str) -> Decimal:
        value = read_number(cell)
        if value is None:
            self.refuse(line, column, "not_a_number", _("“%s” is not a finite decimal number.") % cell[:40])
        elif value < 0:
            self.refuse(line, column, "negative", _("This must not be negative."))
        elif value >= PRICE_LIMIT:
            self.refuse(line, column, "too_large", _("This is too large."))
        else:
            return abs(value)
        return Decimal(0)

    def _add(
        self, row: Mapping[str, str], line: int, column: str, sku: str, price: Decimal, count: Decimal
    ) -> None:
        parts = count or Decimal(1)
        unit_price = round_price(EXACT.divide(price, parts))
        if EXACT.multiply(unit_price, parts) != price:
            message = _("line %(line)d, %(column)s: %(quotient)s is rounded to %(rounded)s, ten decimals.")
            quotient = {"quotient": f"{price} / {parts}", "rounded": plain(unit_price)}
            self.notes.append(message % {"line": line, "column": column, **quotient})
        meter = "gpu_hours" if count else "instance_hours"
        priced = PriceRow(meter=meter, sku=sku, region=row["Region"], unit_price=unit_price)
        earlier = self.rows.get(priced.place)
        if earlier is None:
            self.rows[priced.place] = (priced, line)
        elif earlier[0] == priced:
            self.notes.append(
                _("line %(line)d, %(column)s: repeats line %(earlier)d.")
                % {"line": line, "column": column, "earlier": earlier[1]}
            )
        else:
            message = _("Line %(earlier)d has another price for %(sku)s in %(region)s.")
            facts: dict[str, object] = {"earlier": earlier[1], "sku": sku, "region": row["Region"]}
            self.refuse(line, column, "contradiction", message % facts)
        attributes = {key: row[source] for key, source in _ATTRIBUTES.items() if row.get(source)}
        family = row.get("AcceleratorName") or "CPU"
        self.skus.setdefault(sku, SkuFacts(code=sku, family=family[:64], attributes=attributes))


def _load_json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(
            text, parse_float=Decimal, parse_constant=str, object_pairs_hook=_without_repetition
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _unreadable(place, "invalid_json", _("This is not JSON: %s.") % error.msg) from error
    except (_RepeatedKeyError, RecursionError, ValueError) as error:
        message = (
            str(error) if isinstance(error, _RepeatedKeyError) else _("This is not JSON that can be read.")
        )
        raise _unreadable("line 1", "invalid_json", message) from error
    if not isinstance(document, dict):
        raise _unreadable("line 1", "invalid_json", _("A price book is an object."))
    return document


class _RepeatedKeyError(Exception):
    pass


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _value in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise _RepeatedKeyError(_("“%s” stands twice in one object.") % repeated)
    return found


def _read_rows(
    text: str, listed: list[Any], meters: frozenset[str]
) -> tuple[list[PriceRow], list[FieldError]]:
    rows: list[PriceRow] = []
    errors: list[FieldError] = []
    if not listed:
        return rows, errors
    seen: dict[tuple[str, str, str], int] = {}
    for index, (fields, line) in enumerate(zip(listed, _lines_of_prices(text), strict=True)):
        place = f"line {line}, prices.{index}"
        row, wrong = read_row(fields, path=place)
        errors += wrong
        if row is None:
            continue
        if row.meter not in meters:
            known = ", ".join(sorted(meters))
            message = _("There is no such meter; the meters are %s.") % known
            errors.append(_error(f"{place}.meter", "unknown_meter", message))
        if row.place in seen:
            message = _("Line %d already prices this meter, SKU and region.") % seen[row.place]
            errors.append(_error(place, "repeated", message))
        seen.setdefault(row.place, line)
        rows.append(row)
    return rows, errors


def _lines_of_prices(text: str) -> Iterator[int]:
    """Yield the line that each element of `prices` begins on; the text is known to be valid."""
    decoder = json.JSONDecoder()
    position = _skip(text, _skip(text, 0) + 1)
    while text[position] != "}":
        key, position = decoder.raw_decode(text, position)
        position = _skip(text, _skip(text, position) + 1)
        if key == "prices":
            position = _skip(text, position + 1)
            while text[position] != "]":
                yield text.count("\n", 0, position) + 1
                _value, position = decoder.raw_decode(text, position)
                position = _skip(text, position)
                if text[position] == ",":
                    position = _skip(text, position + 1)
            return
        _value, position = decoder.raw_decode(text, position)
        position = _skip(text, position)
        if text[position] == ",":
            position = _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    return int(WHITESPACE.match(text, position).end())


def _check_head(name: str, currency: str) -> list[FieldError]:
    errors = []
    if not name:
        errors.append(_error("name", "required", _("The price book needs a name.")))
    elif len(name) > _NAME_LENGTH_MAX or not name.isprintable():
        errors.append(_error("name", "invalid", _("A name has at most 150 printable characters.")))
    if not is_currency(currency):
        errors.append(_error("currency", "invalid", _("“%s” is no ISO 4217 currency.") % currency[:10]))
    return errors


def _moment(value: object) -> datetime | None:
    try:
        return parse_moment(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _error(path: str, code: str, message: str) -> FieldError:
    return FieldError(path=path, code=code, message=message)


def _unreadable(place: str, code: str, message: str) -> PriceBookUnreadable:
    return PriceBookUnreadable(message, fields=[_error(place, code, message)])
