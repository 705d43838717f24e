"""Filters of lists: a parameter that means nothing here is refused, never ignored."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django_filters import rest_framework as filters
from rest_framework.request import Request

from apps.core.errors import InvalidRequest

LIST_PARAMETERS = frozenset({"limit", "cursor", "sort"})


class CreatedFilterSet(filters.FilterSet):
    """Filters of rows with a `created_at`: from inclusive, to exclusive."""

    created_from = filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    created_to = filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")


class FilterBackend(filters.DjangoFilterBackend):
    """django-filter's backend, strict: a typo in a filter must not return everything."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        kind = self.get_filterset_class(view, queryset)
        names = frozenset[str](kind.base_filters if kind else ())
        refuse_unknown_parameters(request, LIST_PARAMETERS | names | set(getattr(view, "own_parameters", ())))
        if not names & request.query_params.keys():
            return queryset  # Making a form to find nothing in it would cost more than many a query.
        filterset = self.get_filterset(request, queryset, view)
        if not filterset.is_valid():
            problems = {name: [str(text) for text in texts] for name, texts in filterset.errors.items()}
            raise InvalidRequest(_("A filter has a value that cannot be read."), parameters=problems)
        filtered: QuerySet[Any] = filterset.qs
        return filtered


def refuse_unknown_parameters(request: Request, known: frozenset[str] | set[str]) -> None:
    """Raise InvalidRequest if the query string has a parameter that the view does not know."""
    if unknown := sorted(set(request.query_params) - set(known)):
        raise InvalidRequest(
            _("Unknown parameter: %(names)s.") % {"names": ", ".join(unknown)},
            parameters=unknown,
            known=sorted(known),
        )
