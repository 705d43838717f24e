"""Forms of the staff admin; what they check is what imports check."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from apps.core.errors import FieldError
from apps.pricing.models import ANY, Meter, Price, Region, Sku
from apps.pricing.rows import PriceRow, read_row

type Choices = dict[str, list[tuple[str, str]]]

TERMS = ("unit_price", "tiers", "package_size", "package_price", "free_units")


class PriceForm(forms.ModelForm):  # type: ignore[type-arg]
    """One row of a version; fields of other models than the chosen one stay empty."""

    sku = forms.ChoiceField(label=_("SKU"))
    region = forms.ChoiceField(label=_("Region"))

    class Meta:
        model = Price
        fields = ("meter", "sku", "region", "model", *TERMS)
        help_texts = {"tiers": _('[{"up_to": "10", "unit_price": "2", "flat_fee": "0"}, {"up_to": null, …}]')}

    row: PriceRow

    def __init__(self, *args: Any, choices: Choices, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, codes in choices.items():
            self.fields[name].choices = codes  # type: ignore[attr-defined]
        self.fields["tiers"].widget.attrs["rows"] = 2

    def clean(self) -> dict[str, Any]:
        """Read the row as an import does, so that both refuse the same."""
        cleaned = super().clean() or {}
        if self.errors:
            return cleaned
        meter: Meter = cleaned["meter"]
        given = {name: cleaned[name] for name in TERMS if cleaned.get(name) not in (None, "", [])}
        place = {"meter": meter.code, "sku": cleaned["sku"], "region": cleaned["region"]}
        row, wrong = read_row({**place, "model": cleaned["model"], **given}, path="")
        for error in wrong:
            self.add_error(_field_of(error), error.message)
        if row is not None:
            self.row = row
            # What is stored is what was read: shortest decimals, every tier with its fee.
            cleaned |= {name: value for name, value in row.as_columns().items() if name in TERMS}
        return cleaned


class PriceFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """The rows of a draft; the codes to choose from are read once for all of them."""

    @cached_property
    def choices(self) -> Choices:
        """Return the codes to choose from."""
        return price_choices()

    def get_form_kwargs(self, index: int | None) -> dict[str, Any]:
        """Hand the choices to each form."""
        return {**super().get_form_kwargs(index), "choices": self.choices}


class HourForm(forms.Form):
    """A whole UTC hour."""

    moment = forms.SplitDateTimeField(label=_("From (UTC, a whole hour)"))

    def __init__(self, *args: Any, label: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if label:
            self.fields["moment"].label = label
        date, time = self.fields["moment"].widget.widgets
        date.input_type, time.input_type = "date", "time"


def price_choices() -> Choices:
    """Return the codes that a row can name."""

    def codes(model: type[Meter | Sku | Region]) -> list[tuple[str, str]]:
        return [
            (code, code) for code in model._default_manager.order_by("code").values_list("code", flat=True)
        ]

    return {
        "meter": codes(Meter),
        "sku": [(ANY, ANY), *codes(Sku)],
        "region": [(ANY, ANY), *codes(Region)],
    }


def _field_of(error: FieldError) -> str | None:
    name = error.path.partition(".")[0]
    return name if name in ("meter", "sku", "region", "model", *TERMS) else None
