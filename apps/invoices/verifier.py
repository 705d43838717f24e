"""Recompute every total of a bundle of invoices; needs nothing but Python's standard library.

python verify.py bundle.zip

A bundle is a zip file with `documents.json`, `hours.csv` and `usage.csv`, as `export_invoices --bundle` writes it. From
the prices and the hourly quantities each line's amount is computed anew with exact fractions and rounded half up once;
taxes, sums and totals follow. Prints what is wrong and ends with 1, or says how much was recomputed.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

SLOT = ("organization", "meter", "sku", "region", "hour")


def half_up(exact: Fraction) -> int:
    """Return the whole number next to a fraction; ties go away from zero."""
    whole = (2 * abs(exact).numerator + abs(exact).denominator) // (2 * abs(exact).denominator)
    return whole if exact >= 0 else -whole


def rate(price: dict[str, Any], quantity: Fraction) -> Fraction:
    """Return the exact amount of a month's quantity, in major units; quantities of hours are seconds."""
    units = quantity / int(price["unit_seconds"])
    if not units:
        return Fraction(0)
    if price["model"] == "per_unit":
        return units * Fraction(price["unit_price"])
    if price["model"] == "package":
        paid = max(units - Fraction(price.get("free_units") or 0), Fraction(0))
        packages: int = -(-paid // Fraction(price["package_size"]))
        return packages * Fraction(price["package_price"])
    total, below = Fraction(0), Fraction(0)
    for tier in price["tiers"]:
        bound = None if tier["up_to"] is None else Fraction(tier["up_to"])
        unit_price, fee = Fraction(tier["unit_price"]), Fraction(tier["flat_fee"])
        if price["model"] == "volume":
            if bound is None or units <= bound:
                return units * unit_price + fee
        elif units > below:
            total += ((units if bound is None else min(units, bound)) - below) * unit_price + fee
        below = units if bound is None else bound
    return total


def check_document(document: dict[str, Any], hours: dict[str, Fraction]) -> Iterator[str]:
    """Yield what is wrong with a document. hours: the quantity of each charge key by its hours."""
    minor = Minor(document["exponent"])
    for line in document["lines"]:
        if line["kind"] != "credit":
            yield from check_line(line, minor, hours)
    yield from check_taxes(document, minor)
    sums = {
        name: sum(minor(line[field]) for line in document["lines"])
        for name, field in (("subtotal", "amount"), ("discount", "discount"), ("tax", "tax"))
    }
    sums["total"] = sums["subtotal"] - sums["discount"] + sums["tax"]
    for name, expected in sums.items():
        if minor(document[name]) != expected:
            yield f"{name} {document[name]}, should be {minor.text(expected)}"


class Minor:
    """Turns amounts of one currency into whole minor units and back."""

    def __init__(self, exponent: int) -> None:
        self.scale = 10**exponent

    def __call__(self, text: str) -> int:
        value = Fraction(text) * self.scale
        if value.denominator != 1:
            raise ValueError(f"{text} is finer than the currency")
        return int(value)

    def text(self, minor: int) -> str:
        return f"{Fraction(minor, self.scale)}"


def check_line(line: dict[str, Any], minor: Minor, hours: dict[str, Fraction]) -> Iterator[str]:
    """Yield what is wrong with the amount, the discount or the hours of a line."""
    before = line["before"]
    quantity = Fraction(before["quantity"]) + Fraction(line["counted"])
    total = half_up(rate(line["price"], quantity) * minor.scale)
    name = f"line {line['position']}"
    expected = total - minor(before["amount"])
    if minor(line["amount"]) != expected:
        yield f"{name}: {line['amount']}, should be {minor.text(expected)}"
    discount = minor(before["discount"]) + minor(line["discount"])
    if not 0 <= discount <= max(total, 0):
        yield f"{name}: a discount of {line['discount']} that its amount does not have"
    if line["is_newest"] and hours.get(line["key"], Fraction(0)) != quantity:
        yield f"{name}: its hours add up to {hours.get(line['key'], 0)}, not {quantity}"


def check_taxes(document: dict[str, Any], minor: Minor) -> Iterator[str]:
    """Yield what is wrong with the rate groups, and with the lines' shares of their tax."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for line in document["lines"]:
        groups[line["tax_category"], line["tax_percent"], line["tax_country"], line["tax_note"]].append(line)
    rows = {(row["category"], row["percent"], row["country"], row["note"]): row for row in document["taxes"]}
    if rows.keys() != groups.keys():
        yield "its rate groups are not those of its lines"
    for key in rows.keys() & groups.keys():
        name, percent = f"tax {key[0]} {key[1]} %", Fraction(key[1])
        nets = [minor(line["amount"]) - minor(line["discount"]) for line in groups[key]]
        taxes = [minor(line["tax"]) for line in groups[key]]
        if (sum(nets), sum(taxes)) != (minor(rows[key]["base"]), minor(rows[key]["tax"])):
            yield f"{name}: {rows[key]['base']} and {rows[key]['tax']} are not those of the lines"
        if document["kind"] not in ("invoice", "adjustment_note"):
            continue  # A part that is waived has the taxes of its lines, which were rounded before.
        if sum(taxes) != half_up(sum(nets) * percent / 100):
            yield f"{name}: {rows[key]['tax']} is not the rounded tax on {rows[key]['base']}"
        for line, net, tax in zip(groups[key], nets, taxes, strict=True):
            if abs(tax - net * percent / 100) >= 1:
                yield f"line {line['position']}: a tax of {line['tax']}"


def rows_of(bundle: zipfile.ZipFile, name: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a table of the bundle."""
    yield from csv.DictReader(io.StringIO(bundle.read(name).decode()))


def check_bundle(bundle: zipfile.ZipFile) -> tuple[int, list[str]]:
    """Return how many documents were recomputed, and what is wrong."""
    documents = json.loads(bundle.read("documents.json"))
    wrong: list[str] = []
    charged: dict[str, Fraction] = defaultdict(Fraction)
    slots: dict[tuple[str, ...], Fraction] = defaultdict(Fraction)
    for row in rows_of(bundle, "hours.csv"):
        charged[row["key"]] += Fraction(row["quantity"])
        slots[tuple(row[name] for name in SLOT)] += Fraction(row["quantity"])
    used: dict[tuple[str, ...], Fraction] = defaultdict(Fraction)
    for row in rows_of(bundle, "usage.csv"):
        used[tuple(row[name] for name in SLOT)] += Fraction(row["quantity"])
    for slot, quantity in slots.items():
        if used[slot] != quantity:
            wrong.append(f"{' '.join(slot)}: charged {quantity}, used {used[slot]}")
    for document in documents:
        wrong += [f"{document['number']}: {text}" for text in check_document(document, charged)]
    return len(documents), wrong


def main(arguments: list[str]) -> int:
    """Check the bundle that the command line names; return the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("Usage: python verify.py bundle.zip\n")
        return 2
    with zipfile.ZipFile(arguments[0]) as bundle:
        documents, wrong = check_bundle(bundle)
    for text in wrong:
        sys.stdout.write(f"WRONG {text}\n")
    sys.stdout.write(f"{documents} documents recomputed, {len(wrong)} differences.\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
