"""Forms that pages of several apps share, and what a form is given only when it is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.core.validators import validate_email
from django.db.models import QuerySet
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from apps.core.errors import DomainError, ValidationFailed
from apps.core.ids import uuid7
from apps.core.money import is_plain


class PlainDecimalField(forms.DecimalField):
    """A decimal in plain digits, as the REST API takes it: Django would also take 1e5."""

    def to_python(self, value: Any) -> Any:
        """Return the decimal, or refuse what is not written in plain digits."""
        # People also leave out a zero, before the point or behind it.
        if isinstance(value, str) and not is_plain(f"0{value.strip().lstrip('+-')}0"):
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid")
        return super().to_python(value)


class OnceForm(forms.Form):
    """A form that moves money or shows a secret: sent twice, such as by loading its answer again, it does so once."""

    # A browser that fills in what it remembers would send a new form as the old one.
    attempt = forms.UUIDField(widget=forms.HiddenInput(attrs={"autocomplete": "off"}), initial=uuid7)


class ChangeForm(forms.Form):
    """Changes what is there: only what was changed on the page counts, so a page that is old by now undoes nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.show_hidden_initial = True

    @cached_property
    def changed_data(self) -> list[str]:
        """What was changed: on the page, or where that does not say how it was, in what is there."""
        on_page = set(super().changed_data)
        return [
            bound.name
            for bound in self
            if (
                bound.name in on_page
                if bound.html_initial_name in self.data
                else bound.field.has_changed(bound.initial, bound.data)
            )
        ]

    def changes(self) -> dict[str, Any]:
        """Return what was changed, by field."""
        return {name: self.cleaned_data[name] for name in self.changed_data}


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


def read_addresses(text: str) -> list[str]:
    """Return the e-mail addresses of a text, or refuse the first that is none.

    Between them are lines, spaces, commas or semicolons.
    """
    addresses = text.replace(",", " ").replace(";", " ").split()
    for address in addresses:
        try:
            validate_email(address)
        except forms.ValidationError as error:
            message = _("%(address)s is not an e-mail address.") % {"address": address}
            raise forms.ValidationError(message, code="address") from error
    return addresses


def add_refusal(form: forms.BaseForm, refusal: DomainError) -> None:
    """Put a service's refusal where it belongs: beside the fields that it names, or above the form."""
    if not isinstance(refusal, ValidationFailed) or not refusal.fields:
        form.add_error(None, in_words(refusal))
        return
    for problem in refusal.fields:
        name = problem.path.partition(".")[0]
        form.add_error(name if name in form.fields else None, problem.message)


def in_words(refusal: DomainError) -> str:
    """Return everything that a refusal says to a person, what is in the way included."""
    if isinstance(refusal, ValidationFailed) and refusal.fields:
        return " ".join(dict.fromkeys(problem.message for problem in refusal.fields))
    blockers = refusal.details.get("blockers", ())
    return " ".join([str(refusal), *(blocker["message"] for blocker in blockers)])


class NamedForm(forms.Form):
    """The name of what an action ends, typed: so that nobody ends another thing by a slip of the hand."""

    typed = forms.CharField(widget=forms.TextInput(attrs={"autocomplete": "off"}))

    def __init__(self, *args: Any, name: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._name = name
        self.fields["typed"].label = _("Type %(name)s to go on") % {"name": name}

    def clean_typed(self) -> str:
        """Return the name, spaces around it aside."""
        typed: str = self.cleaned_data["typed"]
        if typed != self._name.strip():
            raise forms.ValidationError(_("This is not the name. Type %(name)s.") % {"name": self._name})
        return typed
