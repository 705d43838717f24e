"""Forms of the staff admin; what they check is what imports check."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings
from django.core import signing
from django.template.loader import render_to_string
from django.utils.functional import cached_property
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from apps.core.errors import FieldError, ValidationFailed
from apps.core.forms import PlainDecimalField, offer_choices, offer_rows
from apps.core.money import plain
from apps.pricing.diffs import describe
from apps.pricing.files import BookContent, read_file
from apps.pricing.models import ANY, Meter, Price, PriceBookVersion, PriceModel, PriceOverride, Region, Sku
from apps.pricing.rows import PriceRow, read_row, row_of
from apps.pricing.selectors import meter_codes

type Choices = dict[str, list[tuple[Any, Any]]]

TERMS = ("unit_price", "tiers", "package_size", "package_price", "free_units")
PLAIN = dict.fromkeys(
    ("unit_price", "package_size", "package_price", "free_units", "percent"), PlainDecimalField
)
TIER_FIELDS = ("up_to", "unit_price", "flat_fee")
TIERS_MAX = 50
TIERS_EMPTY = 2  # Shown below the filled ones; saving shows two more.
FILE_BYTES_MAX = 20 * 2**20
# What carries a previewed file from the page back to us, signed, so that what is imported is what was shown.
_CARRIED = "apps.pricing.import"


class TiersWidget(forms.Widget):
    """Tiers as rows of three fields, two empty ones below; works without JavaScript."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        """Return a table with a row for each tier."""
        tiers = [*(value or ()), *({} for _empty in range(TIERS_EMPTY))]
        rows = [
            [
                (f"{name}-{index}-{field}", "" if tier.get(field) is None else tier[field])
                for field in TIER_FIELDS
            ]
            for index, tier in enumerate(tiers)
        ]
        return SafeString(render_to_string("pricing/tiers.html", {"rows": rows, "is_folded": not value}))

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[dict[str, Any]]:
        """Return the rows that have anything in them."""
        tiers = []
        for index in range(TIERS_MAX):
            given = {field: (data.get(f"{name}-{index}-{field}") or "").strip() for field in TIER_FIELDS}
            if any(given.values()):
                filled = {field: text for field, text in given.items() if text}
                tiers.append({**filled, "up_to": given["up_to"] or None})
        return tiers

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return f"{name}-0-up_to" not in data

    def use_required_attribute(self, initial: Any) -> bool:
        return False


class TiersField(forms.Field):
    """Tiers as a list; `read_row` says what is wrong with them."""

    widget = TiersWidget

    def has_changed(self, initial: Any, data: Any) -> bool:
        return _comparable(initial) != _comparable(data)


def _comparable(tiers: Any) -> list[tuple[Any, ...]]:
    return [tuple(tier.get(name) or None for name in TIER_FIELDS) for tier in tiers or ()]


class PriceForm(forms.ModelForm):
    """One row of a version; fields of other models than the chosen one stay empty."""

    sku = forms.ChoiceField(label=_("SKU"), initial=ANY)
    region = forms.ChoiceField(label=_("Region"), initial=ANY)
    tiers = TiersField(label=_("Tiers"), required=False)

    class Meta:
        model = Price
        fields = ("meter", "sku", "region", "model", *TERMS)
        field_classes = PLAIN

    row: PriceRow | None = None
    terms = ""

    def __init__(self, *args: Any, choices: Choices, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.instance, Price) and not self.instance._state.adding:
            # Told before validation writes what was sent into the instance.
            self.terms = describe(row_of(self.instance))
        for name, codes in choices.items():
            offer_choices(self, name, codes)
        # The buttons beside a meter would leave this page, and what was typed, behind.
        self.fields["meter"].widget = getattr(
            self.fields["meter"].widget, "widget", self.fields["meter"].widget
        )
        for name in TERMS:
            if isinstance(value := self.initial.get(name), Decimal):
                self.initial[name] = plain(value)

    def clean(self) -> dict[str, Any]:
        """Read the row as an import does, so that both refuse the same."""
        cleaned = super().clean() or {}
        return cleaned if self.errors else self.read(cleaned)

    def read(self, cleaned: dict[str, Any]) -> dict[str, Any]:
        """Read the fields into `row`; what is stored is what was read."""
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


class OverrideForm(PriceForm):
    """A percentage, or a price with all its terms."""

    class Meta:
        model = PriceOverride
        fields = (
            "organization", "effective_from", "effective_to", "percent", "meter", "sku", "region", "model", *TERMS,
        )  # fmt: skip
        field_classes = PLAIN

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, choices=price_choices(), **kwargs)
        self.fields["sku"].required = self.fields["region"].required = False

    def read(self, cleaned: dict[str, Any]) -> dict[str, Any]:
        """Read either the percentage or the price; a meter says that it is a price."""
        if cleaned.get("meter") is None:
            if cleaned.get("percent") is None:
                self.add_error(None, _("Give a percentage, or a meter with its price."))
            if any(cleaned.get(name) not in (None, "", []) for name in ("model", *TERMS)):
                self.add_error("meter", _("A price names its meter."))
            return {**cleaned, "sku": "", "region": "", "model": "", **dict.fromkeys(TERMS)}
        if cleaned.get("percent") is not None:
            self.add_error("percent", _("Either a percentage or a price, not both."))
        given = {"model": PriceModel.PER_UNIT, "sku": ANY, "region": ANY}
        return super().read(
            {**cleaned, **{name: cleaned.get(name) or value for name, value in given.items()}}
        )

    def validate_constraints(self) -> None:
        """Check nothing here: the service ends the override before this one first."""


class CompareForm(forms.Form):
    """The version to compare with."""

    other = forms.ModelChoiceField(queryset=PriceBookVersion.objects.none(), label=_("Compare with"))

    def __init__(self, *args: Any, versions: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offer_rows(self, "other", versions)


class ImportForm(forms.Form):
    """A price book file, or one that was read for the preview and comes back."""

    file = forms.FileField(
        label=_("File"),
        required=False,
        help_text=_("Our JSON, or a CSV in the columns of the SkyPilot catalog."),
    )
    name = forms.CharField(
        label=_("Name"), max_length=150, required=False, help_text=_("Of the price book; a CSV needs it.")
    )
    currency = forms.CharField(label=_("Currency"), max_length=3, required=False)
    carried_file = forms.CharField(required=False, widget=forms.HiddenInput)

    content: BookContent
    read_from = ""

    def clean(self) -> dict[str, Any]:
        """Read the file into `content`; everything wrong with it is an error of this form."""
        cleaned = super().clean() or {}
        read = self._read_file(cleaned)
        if read is None:
            return cleaned
        self._text, self._is_csv, self.read_from = read
        try:
            self.content = read_file(
                self._text,
                is_csv=self._is_csv,
                meters=meter_codes(),
                name=cleaned.get("name", ""),
                currency=cleaned.get("currency", ""),
                currency_default=settings.DEFAULT_CURRENCY,
            )
        except ValidationFailed as error:
            for field in error.fields[:50]:
                self._add_problem(field)
        return cleaned

    def _add_problem(self, problem: FieldError) -> None:
        """Put a problem beside the field that was typed, or above the form with where it stands in the file."""
        if problem.path in self.fields:
            self.add_error(problem.path, problem.message)
        else:
            self.add_error(None, f"{problem.path}: {problem.message}")

    def carried(self) -> str:
        """Return the file that was read, packed and signed, with its name."""
        return signing.dumps([self._text, self._is_csv, self.read_from], salt=_CARRIED, compress=True)

    def _read_file(self, cleaned: dict[str, Any]) -> tuple[str, bool, str] | None:
        if "file" in self.errors:
            return None
        file = cleaned.get("file")
        if file is None:
            try:
                text, is_csv, name = signing.loads(cleaned.get("carried_file", ""), salt=_CARRIED)
            except signing.BadSignature:
                self.add_error("file", _("Choose a file."))
                return None
            return text, is_csv, name
        if file.size > FILE_BYTES_MAX:
            self.add_error("file", _("This file is too large; use the command `import_price_book`."))
            return None
        try:
            return file.read().decode("utf-8-sig"), file.name.lower().endswith(".csv"), file.name
        except UnicodeDecodeError:
            self.add_error("file", _("This file is not text in UTF-8."))
            return None


class PriceFormSet(forms.BaseInlineFormSet):
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
        date.attrs["aria-label"], time.attrs["aria-label"] = _("Day, UTC"), _("Hour, UTC")


def price_choices() -> Choices:
    """Return the codes that a row can name."""

    def codes(model: type[Meter | Sku | Region]) -> list[tuple[str, str]]:
        return [
            (code, code) for code in model._default_manager.order_by("code").values_list("code", flat=True)
        ]

    return {
        # Nothing chosen is what tells an empty form from one that was filled in.
        "meter": [("", "–"), *codes(Meter)],
        "sku": [(ANY, ANY), *codes(Sku)],
        "region": [(ANY, ANY), *codes(Region)],
    }


def _field_of(error: FieldError) -> str | None:
    name = error.path.partition(".")[0]
    return name if name in ("meter", "sku", "region", "model", *TERMS) else None
