"""Queries of nearly every request, compiled once: Django spends ten times as long on writing their SQL as PostgreSQL
on answering it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from django.db import connection
from django.db.models import Model, QuerySet
from django.db.models.query import get_related_populators


class CompiledQuery[M: Model]:
    """A query whose SQL is written at its first use in a process and kept.

    make: builds the query from its parameters. It may follow `select_related`.
    examples: for each parameter a value of its type that occurs nowhere else in the query; they mark its places.
    """

    def __init__(self, make: Callable[..., QuerySet[M]], **examples: Any) -> None:
        self._make = make
        self._examples = examples
        self._compiled: _Compiled | None = None

    def find(self, **values: Any) -> M | None:
        """Return the first row, with all its fields, related objects and annotations, or None."""
        compiled = self._compiled or self._compile()
        with connection.cursor() as cursor:
            cursor.execute(compiled.sql, compiled.parameters(values))
            row = cursor.fetchone()
        return None if row is None else cast("M", compiled.build(list(row)))

    def all(self, **values: Any) -> list[M]:
        """Return every row, each as `find` does."""
        compiled = self._compiled or self._compile()
        with connection.cursor() as cursor:
            cursor.execute(compiled.sql, compiled.parameters(values))
            rows = cursor.fetchall()
        return [cast("M", compiled.build(list(row))) for row in rows]

    def _compile(self) -> _Compiled:
        query = self._make(**self._examples)
        compiler: Any = query.query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        names = {example: _Place(name) for name, example in self._examples.items()}
        places = [names.get(parameter, parameter) for parameter in parameters]
        assert {place for place in places if isinstance(place, _Place)} == set(names.values()), (
            "every parameter has its place in the SQL"
        )
        mode = query._fetch_mode  # type: ignore[attr-defined]  # Newer than the stubs.
        own = compiler.klass_info["select_fields"]
        columns = slice(own[0], own[-1] + 1)
        names_of_own = [column.target.attname for column, _sql, _alias in compiler.select[columns]]
        self._compiled = _Compiled(
            sql=sql,
            places=places,
            converters=list(compiler.get_converters([part[0] for part in compiler.select]).items()),
            columns=columns,
            make=partial(query.model.from_db, query.db, names_of_own, fetch_mode=mode),
            related=get_related_populators(compiler.klass_info, compiler.select, query.db, mode),
            annotations=list(compiler.annotation_col_map.items()),
        )
        return self._compiled


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    """SQL with the places of its parameters, and how a row of it becomes an object: as Django's ModelIterable does."""

    sql: str
    places: list[Any]
    converters: list[tuple[int, tuple[list[Any], Any]]]
    columns: slice
    make: Callable[..., Model]
    related: list[Any]
    annotations: list[tuple[str, int]]

    def parameters(self, values: Mapping[str, Any]) -> list[Any]:
        return [values[place] if isinstance(place, _Place) else place for place in self.places]

    def build(self, row: list[Any]) -> Model:
        for at, (converters, expression) in self.converters:
            for convert in converters:
                row[at] = convert(row[at], expression, connection)
        found = self.make(row[self.columns])
        for populator in self.related:
            populator.populate(row, found)
        for name, at in self.annotations:
            setattr(found, name, row[at])
        return found


class _Place(str):
    """The name of the parameter that belongs here."""

    __slots__ = ()
