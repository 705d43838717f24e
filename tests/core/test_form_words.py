"""Every field of every form refuses in our words: by its kind, and with what mends it."""

from __future__ import annotations

import pytest
from django import forms
from django.core.files.uploadedfile import SimpleUploadedFile

from apps.core.form_words import WORDS, words_of

LETTERS = [("a", "A")]


def said(field: forms.Field, sent: object = "", files: object = None) -> list[str]:
    """Return what a form with this one field says to what was sent."""

    class Form(forms.Form):
        one = field

    form = Form({"one": sent}, {"one": files} if files else None)
    assert not form.is_valid()
    return list(form.errors["one"])


@pytest.mark.parametrize(
    ("field", "sent", "words"),
    [
        (forms.CharField(), "", "Fill this in."),
        (forms.CharField(max_length=3), "four", "Write at most 3 characters; these are 4."),
        (forms.CharField(), "a\x00b", "Write it anew: it holds a character that cannot be kept."),
        (forms.EmailField(), "nobody", "Write an e-mail address, such as name@example.com."),
        (forms.IntegerField(), "1.5", "Write a whole number, such as 12."),
        (forms.IntegerField(min_value=1), "0", "Write 1 or more."),
        (forms.DecimalField(), "much", "Write a decimal in plain digits, such as 12.50."),
        (forms.DecimalField(max_digits=9, decimal_places=2), "1.234", "Write at most 2 digits behind the point."),
        (forms.DateField(), "soon", "Write year, month and day, such as 2026-11-30."),
        (forms.DateTimeField(), "", "Write the day and the time, such as 2026-11-30 14:00."),
        (forms.BooleanField(), "", "Tick this to go on."),
        (forms.ChoiceField(choices=LETTERS), "b", "Choose one of those that are offered now."),
        (forms.TypedChoiceField(choices=LETTERS), "", "Choose one."),
        (forms.MultipleChoiceField(choices=LETTERS), "", "Choose at least one."),
        (forms.MultipleChoiceField(choices=LETTERS), ["b"], "b is not offered now. Choose among those that are."),
        (forms.FileField(), "", "Choose a file."),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_a_refusal_says_what_to_do(field, sent, words):
    assert said(field, sent) == [words]


def test_the_parts_of_a_field_speak_alike():
    class Form(forms.Form):
        at = forms.SplitDateTimeField()

    assert Form({"at_0": "soon", "at_1": "noon"}).errors["at"] == [
        "Write year, month and day, such as 2026-11-30.", "Write hours and minutes, such as 14:00.",
    ]  # fmt: skip
    assert Form({}).errors["at"] == ["Write the day and the time, such as 2026-11-30 14:00."]


def test_a_file_may_be_wrong_in_its_own_ways():
    empty = SimpleUploadedFile("a.csv", b"")
    long = SimpleUploadedFile("long.csv", b"x")

    assert said(forms.FileField(), files=empty) == ["This file is empty. Choose another one."]
    assert said(forms.FileField(max_length=3), files=long) == [
        "Give the file a name of at most 3 characters; it has 8."
    ]


def test_what_a_field_says_by_itself_stays():
    field = forms.CharField(max_length=2, error_messages={"required": "Say why."})

    assert said(field) == ["Say why."]
    assert said(field, "why") == ["Write at most 2 characters; these are 3."]


@pytest.mark.parametrize("kind", WORDS, ids=lambda kind: kind.__name__)
def test_nothing_that_django_says_of_a_kind_is_left(kind):
    stock = {code for parent in kind.__mro__ for code in getattr(parent, "default_error_messages", {})}

    assert not stock - set(words_of(kind))
