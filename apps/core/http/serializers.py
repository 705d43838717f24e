"""Bodies coming in: types are what they say, so that 5 is not "5" and "false" is not false."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.request import Request

from apps.core.errors import FieldError, ValidationFailed
from apps.core.http.errors import flatten
from apps.core.money import is_plain

_HAS_OFFSET = re.compile(r"(?:Z|[+-]\d\d:\d\d)$", re.IGNORECASE)
# The first line that fits a field decides; fields of other kinds check themselves.
_TYPES: tuple[tuple[type[serializers.Field[Any, Any, Any, Any]], tuple[type, ...], str], ...] = (
    (serializers.BooleanField, (bool,), "true or false"),
    (serializers.IntegerField, (int,), "a whole number"),
    (serializers.DecimalField, (str, int, Decimal), "a decimal as text"),
    (serializers.MultipleChoiceField, (list,), "a list"),
    (serializers.CharField, (str,), "text"),
    (serializers.ChoiceField, (str,), "text"),
    (serializers.UUIDField, (str,), "an id as text"),
    (serializers.DateTimeField, (str,), "a moment as text"),
    (serializers.DateField, (str,), "a date as text"),
    (serializers.ListField, (list,), "a list"),
    (serializers.ListSerializer, (list,), "a list"),
    (serializers.BaseSerializer, (dict,), "an object"),
    (serializers.DictField, (dict,), "an object"),
)


class Input(serializers.Serializer[Any]):
    """The body of a request. Unknown fields are ignored, wrong types are errors."""

    @classmethod
    def parse(cls, request: Request, **options: Any) -> dict[str, Any]:
        """Return the validated body, or raise ValidationFailed naming every field that is wrong."""
        if not isinstance(request.data, dict):
            message = _("The body must be a JSON object.")
            raise ValidationFailed(message, fields=[FieldError(path="", code="invalid", message=message)])
        serializer = cls(data=request.data, **options)
        if not serializer.is_valid():
            raise ValidationFailed(fields=flatten(serializer.errors))
        return dict(serializer.validated_data)

    def to_internal_value(self, data: Any) -> Any:
        wrong: dict[str, Any] = {
            name: [problem]
            for name, field in self.fields.items()
            if isinstance(data, dict)
            and data.get(name) is not None
            and (problem := wrong_type(field, data[name]))
        }
        if not wrong:
            return super().to_internal_value(data)
        # The other fields are checked as well, so that one answer names everything.
        try:
            super().to_internal_value(data)
        except serializers.ValidationError as error:
            wrong = {**error.detail, **wrong} if isinstance(error.detail, dict) else wrong
        raise serializers.ValidationError(wrong, code="invalid")


def wrong_type(field: Any, value: Any) -> str:
    """Return what is wrong with the JSON type of a field's value, or ""."""
    for kind, types, name in _TYPES:
        if isinstance(field, kind):
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                return _("This must be %(type)s.") % {"type": name}
            break
    if isinstance(field, serializers.DecimalField) and isinstance(value, str) and not is_plain(value):
        return _("Write a decimal in plain digits, such as 12.50.")
    if isinstance(field, serializers.DateTimeField) and not _HAS_OFFSET.search(value):
        return _("A moment needs its offset from UTC, such as 2026-05-01T12:00:00Z.")
    if isinstance(field, serializers.ListField) and field.child is not None:
        return next(
            filter(None, (wrong_type(field.child, inner) for inner in value if inner is not None)), ""
        )
    return ""
