"""Lists by cursor: stable while rows are added, and never slower on a later page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.core import signing
from django.db.models import Model, Q, QuerySet
from django.utils.translation import gettext as _
from drf_spectacular.utils import inline_serializer
from rest_framework import serializers
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import InvalidRequest

LIMIT_DEFAULT = 50
LIMIT_MAX = 100
CURSOR_LENGTH_MAX = 2_000
OFFSET_MAX = 10_000
_SALT = "apps.core.http.pagination"


class CursorPagination(BasePagination):
    """Pages by the sort keys of the last row seen; `view.ordering` ends with a unique key."""

    def __init__(self) -> None:
        self._next: str | None = None

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        return self.page(queryset, request, sort_order(request, view))

    def page(self, queryset: QuerySet[Any], request: Request, order: Sequence[str]) -> list[Any]:
        """Return the rows of the page that the request asks for.

        order: names of columns that are never NULL, `-` for descending; together they are unique.
        """
        rows, self._next = page_of(queryset, request.query_params, order)
        return rows

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"data": data, "has_more": self._next is not None, "next_cursor": self._next})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["data", "has_more", "next_cursor"],
            "properties": {
                "data": schema,
                "has_more": {"type": "boolean"},
                "next_cursor": {"type": ["string", "null"]},
            },
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        sortable = getattr(view, "sortable", {})
        parameters = [
            _parameter(
                "limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}
            ),
            _parameter("cursor", {"type": "string"}, _("`next_cursor` of the page before.")),
        ]
        if sortable:
            names = [name for field in sortable for name in (field, f"-{field}")]
            parameters.append(_parameter("sort", {"type": "string", "enum": names}))
        return parameters


class OffsetOrCursorPagination(CursorPagination):
    """Pages by cursor, or from the row at `offset`, which is slower the further it is and moves when rows are added."""

    def page(self, queryset: QuerySet[Any], request: Request, order: Sequence[str]) -> list[Any]:
        if "offset" not in request.query_params:
            return super().page(queryset, request, order)
        if "cursor" in request.query_params:
            raise InvalidRequest(_("Send `cursor` or `offset`, not both."), parameter="offset")
        text = request.query_params["offset"]
        if not (text.isascii() and text.isdecimal()) or int(text) > OFFSET_MAX:
            raise InvalidRequest(
                _("`offset` is a number from 0 to %(most)d.") % {"most": OFFSET_MAX}, parameter="offset"
            )
        start, limit = int(text), _limit(request.query_params)
        rows = list(queryset.order_by(*order)[start : start + limit + 1])
        self._next = _write(rows[limit - 1], order) if len(rows) > limit else None
        return rows[:limit]

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        offset = {"type": "integer", "minimum": 0, "maximum": OFFSET_MAX}
        return [*super().get_schema_operation_parameters(view), _parameter("offset", offset)]


def whole_list(rows: Sequence[Any]) -> Response:
    """Answer with a list that is short by its nature, in the envelope of those that have pages."""
    return Response({"data": rows, "has_more": False, "next_cursor": None})


def whole_list_of(row: type[serializers.Serializer[Any]]) -> serializers.Serializer[Any]:
    """Describe the answer of `whole_list` for the OpenAPI document."""
    return inline_serializer(
        f"{row.__name__.removesuffix('Output')}List",
        {
            "data": row(many=True),
            "has_more": serializers.BooleanField(),
            "next_cursor": serializers.CharField(allow_null=True),
        },
    )


def page_of(
    queryset: QuerySet[Any], parameters: Mapping[str, str], order: Sequence[str]
) -> tuple[list[Any], str | None]:
    """Return the rows that `limit` and `cursor` of a query string ask for, and the cursor of the next page, if any.

    order: as for `CursorPagination.page`.
    """
    limit = _limit(parameters)
    if cursor := parameters.get("cursor"):
        queryset = queryset.filter(_after(order, _read(cursor, order)))
    rows = list(queryset.order_by(*order)[: limit + 1])
    return rows[:limit], _write(rows[limit - 1], order) if len(rows) > limit else None


def sort_order(request: Request, view: Any) -> tuple[str, ...]:
    """Return the order that `sort` asks for, or the view's own."""
    wanted = request.query_params.get("sort")
    if wanted is None:
        return tuple(view.ordering)
    order = view.sortable.get(wanted.removeprefix("-"))
    if order is None:
        raise InvalidRequest(
            _("This list cannot be sorted by that."), parameter="sort", allowed=sorted(view.sortable)
        )
    return tuple(_reversed(key) for key in order) if wanted.startswith("-") else tuple(order)


def _limit(parameters: Mapping[str, str]) -> int:
    text = parameters.get("limit", str(LIMIT_DEFAULT))
    limit = int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else 0
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidRequest(_("`limit` is a number from 1 to 100."), parameter="limit")
    return limit


def _after(order: Sequence[str], values: Sequence[Any]) -> Q:
    """Return the condition for rows that come after one with these sort keys."""
    condition = Q()
    equal = Q()
    for key, value in zip(order, values, strict=True):
        name = key.removeprefix("-")
        beyond = Q(**{f"{name}__{'lt' if key.startswith('-') else 'gt'}": value})
        condition |= equal & beyond
        equal &= Q(**{name: value})
    # Says nothing new, but gives the index a range on the first column.
    first, descending = order[0].removeprefix("-"), order[0].startswith("-")
    return Q(**{f"{first}__{'lte' if descending else 'gte'}": values[0]}) & condition


def _write(row: Any, order: Sequence[str]) -> str:
    values = [_value(row, key.removeprefix("-")) for key in order]
    plain = [
        value.isoformat() if isinstance(value, datetime) else value if type(value) is int else str(value)
        for value in values
    ]
    return signing.dumps([list(order), plain], salt=_SALT)


def _read(cursor: str, order: Sequence[str]) -> list[Any]:
    try:
        written_for, values = signing.loads(cursor[:CURSOR_LENGTH_MAX], salt=_SALT)
    except signing.BadSignature:
        raise InvalidRequest(_("This cursor is not one of ours."), parameter="cursor") from None
    if written_for != list(order):
        raise InvalidRequest(_("This cursor belongs to another order of the list."), parameter="cursor")
    return list(values)


def _value(row: Model | dict[str, Any], path: str) -> Any:
    value: Any = row
    for name in path.split("__"):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


def _reversed(key: str) -> str:
    return key.removeprefix("-") if key.startswith("-") else f"-{key}"


def _parameter(name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
