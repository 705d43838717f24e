"""What the fields of a form say when they refuse: in our words and by the field's kind, for every form there is.

settings.FORM_RENDERER names `Renderer`, which Django asks for each form. What a field says by itself stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from django import forms
from django.forms.boundfield import BoundField
from django.forms.renderers import DjangoTemplates
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

_DAY = _("Write year, month and day, such as 2026-11-30.")
_TIME = _("Write hours and minutes, such as 14:00.")
_MOMENT = _("Write the day and the time, such as 2026-11-30 14:00.")

# By kind of field, then by the code of the problem; a kind also says what the kinds that it is made of say.
WORDS: Mapping[type[forms.Field], Mapping[str, Promise]] = {
    forms.Field: {
        "required": _("Fill this in."),
        "min_value": _("Write %(limit_value)s or more."),
        "max_value": _("Write %(limit_value)s or less."),
        "step_size": _("Write a multiple of %(limit_value)s."),
        "min_length": _("Write at least %(limit_value)s characters; these are %(show_value)s."),
        "max_length": _("Write at most %(limit_value)s characters; these are %(show_value)s."),
        "max_digits": _("Write at most %(max)s digits."),
        "max_decimal_places": _("Write at most %(max)s digits behind the point."),
        "max_whole_digits": _("Write at most %(max)s digits before the point."),
        "null_characters_not_allowed": _("Write it anew: it holds a character that cannot be kept."),
    },
    forms.EmailField: {"invalid": _("Write an e-mail address, such as name@example.com.")},
    forms.URLField: {"invalid": _("Write an address with its beginning, such as https://example.com.")},
    forms.SlugField: {"invalid": _("Write letters, digits, hyphens and underscores only.")},
    forms.JSONField: {"invalid": _("This is not JSON. Look at its quotes, commas and brackets.")},
    forms.IntegerField: {"invalid": _("Write a whole number, such as 12.")},
    forms.DecimalField: {"invalid": _("Write a decimal in plain digits, such as 12.50.")},
    forms.DateField: {"required": _DAY, "invalid": _DAY},
    forms.TimeField: {"required": _TIME, "invalid": _TIME},
    forms.DateTimeField: {"required": _MOMENT, "invalid": _MOMENT},
    forms.MultiValueField: {"invalid": _("Fill in all of it."), "incomplete": _("Fill in all of it.")},
    forms.SplitDateTimeField: {"required": _MOMENT, "invalid_date": _DAY, "invalid_time": _TIME},
    forms.BooleanField: {"required": _("Tick this to go on.")},
    forms.ChoiceField: {
        "required": _("Choose one."),
        "invalid_choice": _("Choose one of those that are offered now."),
    },
    forms.MultipleChoiceField: {
        "required": _("Choose at least one."),
        "invalid_choice": _("%(value)s is not offered now. Choose among those that are."),
        "invalid_list": _("Choose among those that are offered."),
    },
    forms.ModelMultipleChoiceField: {
        "required": _("Choose at least one."),
        "invalid_choice": _("%(value)s is not offered now. Choose among those that are."),
        "invalid_list": _("Choose among those that are offered."),
        "invalid_pk_value": _("%(pk)s is not offered now. Choose among those that are."),
    },
    forms.FileField: {
        "required": _("Choose a file."),
        "invalid": _("Choose the file again."),
        "missing": _("Choose the file again."),
        "empty": _("This file is empty. Choose another one."),
        "max_length": _("Give the file a name of at most %(max)s characters; it has %(length)s."),
        "contradiction": _("Either choose a file or clear it, not both."),
    },
}


@cache
def words_of(kind: type[forms.Field]) -> Mapping[str, Any]:
    """Return what a kind of field says about each problem."""
    return {code: words for parent in reversed(kind.__mro__) for code, words in WORDS.get(parent, {}).items()}


@cache
def _stock_of(kind: type[forms.Field]) -> Mapping[str, Any]:
    """Return what Django lets a kind of field say."""
    return {
        code: words
        for parent in reversed(kind.__mro__)
        for code, words in getattr(parent, "default_error_messages", {}).items()
    }


class WordedField(BoundField):
    """A field in its form. A form makes one for each of its own fields before it looks at what was sent."""

    def __init__(self, form: forms.BaseForm, field: forms.Field, name: str) -> None:
        super().__init__(form, field, name)
        _word(field)


class Renderer(DjangoTemplates):
    """Django's own way to draw forms, with fields that speak as we do."""

    bound_field_class = WordedField


def _word(field: forms.Field) -> None:
    kind: Any = type(field)  # mypy takes the hash that fields have for that of their class.
    stock = _stock_of(kind)
    ours = {
        code: words
        for code, words in words_of(kind).items()
        if field.error_messages.get(code) == stock.get(code)
    }
    field.error_messages = {**field.error_messages, **ours}
    for part in getattr(field, "fields", ()):
        _word(part)
