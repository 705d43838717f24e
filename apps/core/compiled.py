"""Queries of nearly every request, compiled once: Django spends ten times as long on writing their SQL as PostgreSQL
on answering it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Model, QuerySet


class CompiledQuery[M: Model]:
    """A query for one row whose SQL is written at its first use in a process and kept.

    make: builds the query from its parameters. It must not follow `select_related`.
    examples: for each parameter a value of its type that occurs nowhere else in the query; they mark its places.
    """

    def __init__(self, make: Callable[..., QuerySet[M]], **examples: Any) -> None:
        self._make = make
        self._examples = examples
        self._compiled: tuple[type[M], str, list[Any]] | None = None

    def find(self, **values: Any) -> M | None:
        """Return the first row, with all its fields and annotations, or None."""
        model, sql, places = self._compiled or self._compile()
        parameters = [values[place] if isinstance(place, _Place) else place for place in places]
        return next(iter(model._default_manager.raw(sql, parameters)), None)

    def _compile(self) -> tuple[type[M], str, list[Any]]:
        query = self._make(**self._examples)
        sql, parameters = query.query.sql_with_params()
        names = {example: _Place(name) for name, example in self._examples.items()}
        places = [names.get(parameter, parameter) for parameter in parameters]
        assert {place for place in places if isinstance(place, _Place)} == set(names.values()), (
            "every parameter has its place in the SQL"
        )
        self._compiled = query.model, sql, places
        return self._compiled


class _Place(str):
    """The name of the parameter that belongs here."""

    __slots__ = ()
