"""Filters of lists: a parameter that means nothing here is refused, never ignored."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import QueryDict
from django.utils.translation import gettext as _
from django_filters import rest_framework as filters
from django_filters.fields import IsoDateTimeField
from rest_framework.request import Request

from apps.core.errors import InvalidRequest
from apps.core.moments import in_utc

LIST_PARAMETERS = frozenset({"limit", "cursor", "sort"})
_TRUTHS = frozenset({"true", "false"})


class MomentField(IsoDateTimeField):
    """A moment, in UTC where it names no offset."""

    def to_python(self, value: Any) -> datetime | None:
        moment: datetime | None = super().to_python(value)
        try:
            return moment and in_utc(moment)
        except ValueError:
            raise ValidationError(self.error_messages["invalid"], code="invalid") from None


class MomentFilter(filters.IsoDateTimeFilter):
    """Narrows by a moment."""

    field_class = MomentField


class CreatedFilterSet(filters.FilterSet):
    """Filters of rows with a `created_at`: from inclusive, to exclusive."""

    created_from = MomentFilter(field_name="created_at", lookup_expr="gte")
    created_to = MomentFilter(field_name="created_at", lookup_expr="lt")


class FilterBackend(filters.DjangoFilterBackend):
    """django-filter's backend, strict: a typo in a filter must not return everything."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        kind = self.get_filterset_class(view, queryset)
        names = frozenset[str](kind.base_filters if kind else ())
        refuse_unknown_parameters(request, LIST_PARAMETERS | names | set(getattr(view, "own_parameters", ())))
        if not names & request.query_params.keys():
            return queryset  # Making a form to find nothing in it would cost more than many a query.
        filterset = self.get_filterset(request, queryset, view)
        problems = _ignored(filterset, request.query_params)
        if not filterset.is_valid():
            problems |= {name: [str(text) for text in texts] for name, texts in filterset.errors.items()}
        if problems:
            raise InvalidRequest(_("A filter has a value that cannot be read."), parameters=problems)
        filtered: QuerySet[Any] = filterset.qs
        return filtered


def _ignored(filterset: Any, parameters: QueryDict) -> dict[str, list[str]]:
    """Return what is wrong with values that django-filter takes for no filter, as a form with empty fields needs it."""
    problems = {}
    for name, field in filterset.filters.items():
        values = parameters.getlist(name)
        if not all(text.strip() for text in values):
            problems[name] = [_("This must not be empty. Leave the parameter out.")]
        elif isinstance(field, filters.BooleanFilter) and not {text.lower() for text in values} <= _TRUTHS:
            problems[name] = [_("This must be true or false.")]
    return problems


def refuse_unknown_parameters(request: Request, known: frozenset[str] | set[str]) -> None:
    """Raise InvalidRequest if the query string has a parameter that the view does not know."""
    if unknown := sorted(set(request.query_params) - set(known)):
        raise InvalidRequest(
            _("Unknown parameter: %(names)s.") % {"names": ", ".join(unknown)},
            parameters=unknown,
            known=sorted(known),
        )
