"""Give a form what is known only when it is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.db.models import QuerySet


def offer_choices(form: forms.BaseForm, name: str, choices: Iterable[Any]) -> None:
    """Let the field of this name offer these values with their labels, groups of them included."""
    field = form.fields[name]
    assert isinstance(field, forms.ChoiceField), "only a choice offers anything"
    field.choices = choices


def offer_rows(form: forms.BaseForm, name: str, rows: QuerySet[Any]) -> None:
    """Let the field of this name offer these rows."""
    field = form.fields[name]
    assert isinstance(field, forms.ModelChoiceField), "only a choice among rows offers rows"
    field.queryset = rows
