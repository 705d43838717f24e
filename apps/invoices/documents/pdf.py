"""The printed document: PDF/A-3b by Typst, with the e-invoice inside where there can be one."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import typst
from babel.dates import format_date
from django.conf import settings
from django.utils.translation import gettext as _

from apps.core import brand, money
from apps.core.countries import country_name
from apps.invoices.models import DocumentKind, LineKind, TaxCategory

HERE = Path(__file__).parent
LETTER_COUNTRIES = {"US", "CA", "MX"}  # Everybody else prints on A4.
UNKNOWN_MAX = 12  # Letters without a glyph that are looked for one by one.
_NO_GLYPH = re.compile(r'the text `"(.+?)"` could not be displayed')
_NOT_WESTERN = re.compile(r"[^\u0020-\u024f\u2010-\u2044\u20ac\u2212]")
LEDGER_GREEN = "#1f6b4a"
MINUS, EN_DASH = "\u2212", "\u2013"


@cache
def _fonts() -> typst.Fonts:
    return typst.Fonts(
        include_system_fonts=False, include_embedded_fonts=False, font_paths=[str(HERE / "fonts")]
    )


@cache
def _source() -> bytes:
    return (HERE / "invoice.typ").read_bytes()


def pdf_of(content: Mapping[str, Any], xml: bytes | None) -> bytes:
    """Return a document as PDF/A-3b; `xml` is embedded as Factur-X where there is one."""
    issued = datetime.fromisoformat(content["issued_on"]).replace(tzinfo=UTC)
    made = _compiled(
        json.dumps(_page(content), ensure_ascii=False), logo=content["seller"]["logo"], issued=issued
    )
    if xml is None:
        return made
    import facturx  # noqa: PLC0415  With pypdf underneath a fourteenth of every process' start, for those that print.

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        embedded: bytes = facturx.generate_from_binary(
            made,
            xml,
            flavor="factur-x",
            level="en16931",
            check_xsd=False,
            check_schematron=False,
            lang="en",
            pdf_metadata={
                "author": content["seller"]["name"],
                "keywords": "Factur-X, EN 16931",
                "title": f"{_title(content)} {content['number']}",
                "subject": f"{_title(content)} {content['number']}, {content['buyer']['name']}",
            },
            afrelationship="alternative",
        )
    return embedded


def _compiled(page: str, *, logo: str, issued: datetime) -> bytes:
    """Return the page as PDF/A, which refuses letters without a glyph: those become question marks."""
    for _attempt in range(UNKNOWN_MAX):
        try:
            made = typst.compile(
                _source(),
                format="pdf",
                font_paths=_fonts(),
                ignore_system_fonts=True,
                sys_inputs={"page": page, "logo": logo, "accent": _accent()},
                pdf_standards=["a-3b"],
                timestamp=issued,
            )
        except typst.TypstError as error:
            unknown = _NO_GLYPH.search(error.message)
            if unknown is None or unknown[1] not in page:
                raise
            page = page.replace(unknown[1], "?")
            continue
        assert isinstance(made, bytes), "one document is one file"
        return made
    return _compiled(_NOT_WESTERN.sub("?", page), logo=logo, issued=issued)


def _accent() -> str:
    """Return what the one accent of the page is: the operator's, as it is readable on paper, or ours."""
    return brand.accents(settings.BRAND_ACCENT)[0].accent if settings.BRAND_ACCENT else LEDGER_GREEN


def _page(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that is printed, in words and formatted numbers."""
    currency, totals = content["currency"], content["totals"]
    is_note = content["type"] == "credit_note"
    return {
        "paper": "us-letter" if content["seller"]["address"]["country"] in LETTER_COUNTRIES else "a4",
        "title": _title(content),
        "number": content["number"],
        "facts": _facts(content),
        "parties": [
            {"label": _("From"), "lines": _party(content["seller"])},
            {"label": _("Credited to") if is_note else _("Billed to"), "lines": _party(content["buyer"])},
        ],
        "callout": _callout(content),
        "columns": {
            "description": _("Description"),
            "quantity": _("Quantity"),
            "unit_price": _("Unit price"),
            "discount": _("Promotional credit"),
            "tax": _("Tax"),
            "amount": _("Amount, %s") % currency,
        },
        "has_discount": any(Decimal(line["discount"]) for line in content["lines"]),
        "lines": [_line(line, content["period"]["label"]) for line in content["lines"]],
        "totals": _totals(content),
        "grand": [
            {"label": _("Total credited") if is_note else _("Total"), "amount": _number(totals["total"])},
        ],
        "after": _after(content),
        "projects_title": _("Usage by project, before credit and tax"),
        "projects": [
            {"project": row["project"] or _("Without a project"), "amount": _number(row["amount"])}
            for row in content["projects"]
        ],
        "tax_title": _("Tax summary, %s") % currency,
        "tax_columns": [_("Rate"), _("Country"), _("Net"), _("Tax")],
        "taxes": [
            {
                "rate": _rate(row["category"], row["percent"]),
                "country": country_name(row["country"]) if row["country"] else EN_DASH,
                "base": _number(row["base"]),
                "tax": _number(row["tax"]),
            }
            for row in content["taxes"]
        ],
        "notes": _notes(content),
        "why_title": _("Why"),
        "why": _why(content),
        "payment_title": _("How to pay"),
        "payment": _payment(content),
        "footer": _footer(content["seller"]),
        "page_of": _("Page %(page)s of %(pages)s") % {"page": "{page}", "pages": "{pages}"},
    }


def _title(content: Mapping[str, Any]) -> str:
    if content["kind"] == DocumentKind.CANCELLATION:
        return _("Cancellation")
    return _("Credit note") if content["type"] == "credit_note" else _("Invoice")


def _facts(content: Mapping[str, Any]) -> list[dict[str, str]]:
    period, buyer = content["period"], content["buyer"]
    found = [
        (_("Issued"), _date(content["issued_on"])),
        (_("Due"), _date(content["due_on"]) if content["due_on"] else ""),
        (_("Usage"), _days(period["first_day"], period["last_day"])),
        (_("Time zone"), period["timezone"]),
        (_("Corrects"), content["corrects"] or ""),
        (_("Your order"), buyer["po_number"]),
        (_("Account"), content["organization"]),
    ]
    return [{"label": label, "value": value} for label, value in found if value]


def _party(facts: Mapping[str, Any]) -> list[str]:
    address = facts["address"]
    town = " ".join(part for part in (address["postal_code"], address["city"]) if part)
    lines = [
        facts["name"],
        address["line1"],
        address["line2"],
        ", ".join(part for part in (town, address["region"]) if part),
        country_name(address["country"]) if address["country"] else "",
        f"{_('VAT id')} {facts['vat_id']}" if facts["vat_id"] else "",
    ]
    return [line for line in lines if line]


def _callout(content: Mapping[str, Any]) -> dict[str, str]:
    currency, totals = content["currency"], content["totals"]
    if content["type"] == "credit_note":
        return {"amount": f"{_number(totals['total'])} {currency}", "text": _("credited")}
    if not Decimal(totals["due"]):
        return {"amount": f"{_number(totals['total'])} {currency}", "text": _("paid, nothing is due")}
    return {
        "amount": f"{_number(totals['due'])} {currency}",
        "text": _("due %s") % _date(content["due_on"]),
    }


def _line(line: Mapping[str, Any], month: str) -> dict[str, Any]:
    unit = f" {line['unit']}" if line["unit"] else ""
    is_part = line["kind"] == LineKind.CREDIT and not Decimal(line["quantity"])
    name = " · ".join(part for part in (line["sku"], line["region"]) if part)
    # Prices by the hour are of what is counted, so its name comes second.
    under = _meter(line["meter"]) if name else ""
    details = []
    if line["corrects"]:
        details.append(
            _("corrects %(line)s of %(month)s") % {"line": line["corrects"], "month": line["usage_period"]}
        )
    elif line["usage_period"] != month:
        details.append(_("usage of %s") % line["usage_period"])
    for tier in line["tiers"]:
        price = f"{_quantity(tier['quantity'])}{unit}"
        if tier["packages"]:
            price = _("%(quantity)s in packages of %(size)s: %(count)s × %(price)s") % {
                "quantity": price,
                **tier["packages"],
            }
        else:
            price += f" × {_number(tier['unit_price'])}"
        fee = f" + {_number(tier['flat_fee'])}" if tier["flat_fee"] else ""
        details.append(f"{price}{fee} = {_number(money.plain(Decimal(tier['amount']), decimals_min=2))}")
    return {
        "name": name or _meter(line["meter"]),
        "under": under,
        "details": details,
        # A part of a line that is waived has neither quantity nor price.
        "quantity": EN_DASH if is_part else f"{_quantity(line['quantity'])}{unit}",
        "unit_price": _unit_price(line, is_part=is_part),
        "discount": _number(f"{-Decimal(line['discount']):f}") if Decimal(line["discount"]) else "",
        "tax": f"{line['tax_percent']} %" if line["tax_category"] == TaxCategory.STANDARD else EN_DASH,
        "amount": _number(line["net"]),
    }


def _unit_price(line: Mapping[str, Any], *, is_part: bool) -> str:
    if line["unit_price"] is not None:
        return _number(line["unit_price"])
    return EN_DASH if is_part else _("by tiers")


def _totals(content: Mapping[str, Any]) -> list[dict[str, str]]:
    totals = content["totals"]
    rows = []
    if Decimal(totals["discount"]):
        rows += [
            (_("Usage"), totals["subtotal"]),
            (_("Promotional credit"), f"{-Decimal(totals['discount']):f}"),
        ]
    rows.append((_("Net"), totals["net"]))
    rows += [
        (_("Tax %s") % _rate(row["category"], row["percent"]), row["tax"])
        for row in content["taxes"]
        if row["category"] == TaxCategory.STANDARD
    ]
    # What bears no tax although it could says so among the sums.
    untaxed = (TaxCategory.REVERSE_CHARGE, TaxCategory.EXEMPT, TaxCategory.ZERO)
    rows += [
        (_rate(row["category"], row["percent"]), row["tax"])
        for row in content["taxes"]
        if row["category"] in untaxed
    ]
    return [{"label": label, "amount": _number(amount)} for label, amount in rows]


def _after(content: Mapping[str, Any]) -> list[dict[str, str]]:
    totals = content["totals"]
    if content["type"] == "credit_note":
        return []
    rows = [(_("Amount due"), totals["due"])]
    if Decimal(totals["prepaid"]):
        smallest = Decimal(1).scaleb(-money.exponent(content["currency"]))
        # Each line is rounded by itself, so up to one unit of each can be neither owed nor credit.
        only_rounding = abs(Decimal(totals["prepaid"])) < smallest * len(content["lines"])
        label = _("Credit used, and rounding") if only_rounding else _("Paid from credit")
        rows.insert(0, (label, f"{-Decimal(totals['prepaid']):f}"))
    return [{"label": label, "amount": _number(amount)} for label, amount in rows]


def _notes(content: Mapping[str, Any]) -> list[str]:
    """Return what the law wants said of the taxes, where the table above does not say it already."""
    said = {_rate(row["category"], row["percent"]) for row in content["taxes"]}
    notes = dict.fromkeys(row["note"] for row in content["taxes"] if row["note"])
    return [note for note in notes if note.rstrip(".") not in said]


def _why(content: Mapping[str, Any]) -> str:
    if content["kind"] == DocumentKind.ADJUSTMENT_NOTE:
        return _(
            "Corrections of earlier usage come to more than the usage of this period. "
            "What they give back is above zero, what this period is billed has a minus."
        )
    return str(content["reason"])


def _payment(content: Mapping[str, Any]) -> list[dict[str, str]]:
    seller = content["seller"]
    if content["type"] == "credit_note" or not Decimal(content["totals"]["due"]):
        return []
    iban = seller["iban"]
    rows = [
        (_("Account holder"), seller["account_holder"]),
        (_("Bank"), seller["bank_name"]),
        ("IBAN", " ".join(iban[place : place + 4] for place in range(0, len(iban), 4))),
        ("BIC", seller["bic"]),
        (_("Reference"), content["number"] if iban else ""),
        (_("Terms"), seller["terms"]),
    ]
    return [{"label": label, "value": value} for label, value in rows if value]


def _footer(seller: Mapping[str, Any]) -> str:
    parts = [
        seller["name"],
        seller["registration_number"],
        f"{_('VAT id')} {seller['vat_id']}" if seller["vat_id"] else "",
        f"{_('Tax number')} {seller['tax_number']}" if seller["tax_number"] else "",
        seller["email"],
        seller["website"],
    ]
    return "\u00a0· ".join(part for part in parts if part)


def _rate(category: str, percent: str) -> str:
    if category == TaxCategory.STANDARD:
        return f"{percent} %"
    return str(TaxCategory(category).label)


def _meter(code: str) -> str:
    words = code.replace("_", " ")
    return words.replace("gpu", "GPU").replace("gb", "GB") if words.islower() else words


def _quantity(text: str) -> str:
    return _number(money.plain(Decimal(text), decimals_min=2))


def _number(text: str) -> str:
    """Return a decimal with thousands apart and a true minus, its decimals as they are."""
    return f"{Decimal(text):,f}".replace("-", MINUS)


def _days(first: str, last: str) -> str:
    """Return a range of days that says month and year once where they are the same."""
    begin, end = datetime.fromisoformat(first).date(), datetime.fromisoformat(last).date()
    if begin == end:
        return _date(last)
    pattern = "d MMMM y" if begin.year != end.year else "d MMMM" if begin.month != end.month else "d"
    return f"{format_date(begin, pattern, locale='en')} {EN_DASH} {_date(last)}"


def _date(day: str) -> str:
    return str(format_date(datetime.fromisoformat(day).date(), "d MMMM y", locale="en"))
