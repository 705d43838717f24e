"""Countries by ISO 3166-1 code, the European Union for value added tax, and VAT ids checked offline."""

from __future__ import annotations

from django_countries import countries
from stdnum import get_cc_module
from stdnum.exceptions import ValidationError

EU_MEMBERS = frozenset(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split()  # noqa: SIM905  A table.
)


def is_country(code: str) -> bool:
    """Return whether the code is a country's ISO 3166-1 alpha-2 code in capitals."""
    return code in countries.countries


def country_name(code: str) -> str:
    """Return a country's name in the active language; the code itself when it is none."""
    return str(countries.name(code)) or code


def all_countries() -> list[tuple[str, str]]:
    """Return every code with its name in the active language, by name."""
    return [(code, str(name)) for code, name in countries]


def vat_prefix(country: str) -> str:
    """Return the letters that a country's VAT ids begin with: EL for Greece, else its ISO code."""
    return "EL" if country == "GR" else country


def normal_vat_id(vat_id: str, country: str) -> str | None:
    """Return a VAT id in its compact form with its country's prefix, or None where form or checksum is wrong.

    Ids of the European Union get the prefix when it is left out. Of a country whose rule is not known the text comes
    back in capitals without spaces, dots and hyphens.
    """
    text = "".join(character for character in vat_id.upper() if character not in " .-\t\u00a0")
    module = get_cc_module(country.lower(), "vat")
    if module is None:
        return text or None
    prefix = vat_prefix(country) if country in EU_MEMBERS else ""
    try:
        return prefix + str(module.validate(text.removeprefix(prefix))).removeprefix(prefix)
    except ValidationError:
        return None
