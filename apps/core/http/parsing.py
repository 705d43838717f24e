"""JSON coming in: decimals exactly as written, and nothing that PostgreSQL or an exact sum cannot hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import IO, Any

import msgspec
from django.utils.translation import gettext as _
from rest_framework.parsers import BaseParser

from apps.core.errors import InvalidRequest

# A number further from one than this is an attack on memory, not an amount.
_MAGNITUDE_MAX = 100


class JSONParser(BaseParser):
    """Parses application/json; fractions become Decimal, never float."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        return parse_json(stream.read())


def parse_json(body: bytes) -> Any:
    """Return what a JSON text says, or raise InvalidRequest with the position of what is wrong.

    NaN and Infinity are no JSON. NUL characters are refused because no text column can hold them.
    """
    try:
        data = _decoder.decode(body)
    except UnicodeDecodeError as error:
        raise InvalidRequest(_("The body is not UTF-8.")) from error
    except RecursionError as error:
        raise InvalidRequest(_("The body is nested too deeply.")) from error
    except msgspec.DecodeError as error:
        position = re.search(r"\(byte (\d+)\)", str(error))
        at = int(position[1]) if position else len(body)
        raise InvalidRequest(
            _("The body is not valid JSON, at byte %(at)d.") % {"at": at}, position=at
        ) from error
    if b"\\u0000" in body and (path := _nul_in(data)) is not None:
        raise InvalidRequest(_("The body has a NUL character in a text."), path=path)
    return data


def _decimal(text: str) -> Decimal:
    number = Decimal(text)
    if len(text) > _MAGNITUDE_MAX or abs(number.adjusted()) > _MAGNITUDE_MAX:
        raise InvalidRequest(_("The body has a number out of any range."))
    return number


_decoder = msgspec.json.Decoder(float_hook=_decimal)


def _nul_in(data: Any, path: str = "") -> str | None:
    if isinstance(data, str):
        return path if "\x00" in data else None
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, inner in pairs:
        here = f"{path}.{name}" if path else str(name)
        if "\x00" in str(name):
            return path
        if (found := _nul_in(inner, here)) is not None:
            return found
    return None
