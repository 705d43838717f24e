"""The order of a list, chosen in its header and kept in the address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

type Value = Callable[[Any], Any]


class Sorting:
    """What a list is ordered by: `sort=name`, or `sort=-name` for the other way round; anything else is ignored.

    values: by name of the column, what of a row is compared. None comes after everything, whichever way.
    """

    def __init__(self, request: HttpRequest, values: Mapping[str, Value]) -> None:
        self._query = request.GET.copy()
        self._values = values
        asked = request.GET.get("sort", "")
        self._name, self._is_descending = asked.removeprefix("-"), asked.startswith("-")

    def of(self, rows: Iterable[Any]) -> list[Any]:
        """Return the rows in the order asked for; equal ones, and all if nothing is asked, stay as they come."""
        given, value = list(rows), self._values.get(self._name)
        if value is None:
            return given
        known = [row for row in given if value(row) is not None]
        known.sort(key=value, reverse=self._is_descending)
        return known + [row for row in given if value(row) is None]

    def direction(self, name: str) -> str:
        """Return how a column is sorted, in the words of aria-sort."""
        if name != self._name:
            return "none"
        return "descending" if self._is_descending else "ascending"

    def url(self, name: str) -> str:
        """Return the address that sorts by a column, or turns it round."""
        query = self._query.copy()
        query.pop("before", None)
        query["sort"] = f"-{name}" if self.direction(name) == "ascending" else name
        return f"?{query.urlencode()}"


class RowOrder(Sorting):
    """The order of a long list, which the database sorts; by descending id, so by time, if nothing else is asked.

    fields: by name of the column, a field that is never null. Equal rows follow their ids.
    """

    def __init__(self, request: HttpRequest, fields: Mapping[str, str]) -> None:
        super().__init__(request, {})
        self._field = fields.get(self._name, "pk")
        self.is_asked = self._name in fields
        self._is_falling = self._is_descending or not self.is_asked

    def ordered[M: Model](self, rows: QuerySet[M]) -> QuerySet[M]:
        """Return the rows in this order."""
        sign = "-" if self._is_falling else ""
        return rows.order_by(f"{sign}{self._field}", f"{sign}pk")

    def after[M: Model](self, rows: QuerySet[M], pk: object, among: QuerySet[M]) -> QuerySet[M]:
        """Return the rows that come after the one with an id; all of them if it is not among those given."""
        further = "lt" if self._is_falling else "gt"
        if self._field == "pk":
            return rows.filter(**{f"pk__{further}": pk})
        value = among.filter(pk=pk).values_list(self._field, flat=True).first()
        if value is None:
            return rows
        return rows.filter(
            Q(**{f"{self._field}__{further}": value}) | Q(**{self._field: value, f"pk__{further}": pk})
        )
