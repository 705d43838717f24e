"""Recompute every total of a bundle of invoices; needs nothing but Python's standard library.

python verify.py bundle.zip

A bundle is a zip file with `documents.json` and the tables `hours.csv`, `usage.csv` and `burns.csv`, as
`export_invoices --bundle` writes it, and `manifest.json`, which names the documents and the files with their rows and
hashes. Nothing may be missing, added or changed; and since somebody could write all of it anew, whoever wrote the
bundle can say the manifest's own hash, which is printed here. From the prices and the hourly quantities each line's
amount is computed anew with exact fractions and rounded half up once; discounts, taxes, sums, totals and what is due
follow. Usage, amounts and payments of the hours are compared with each other. Prints what is wrong and ends with 1, or
says how much was recomputed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

SLOT = ("organization", "meter", "sku", "region", "hour")
MICROS = 1_000_000
MANIFEST = "manifest.json"
NEEDED = ("documents.json", "hours.csv", "usage.csv", "burns.csv")


def half_up(exact: Fraction) -> int:
    """Return the whole number next to a fraction; ties go away from zero."""
    whole = (2 * abs(exact).numerator + abs(exact).denominator) // (2 * abs(exact).denominator)
    return whole if exact >= 0 else -whole


def plain(exact: Fraction) -> str:
    """Return a fraction as people write it: a decimal with up to nine places."""
    text = f"{half_up(abs(exact) * 10**9):010d}"
    decimals = text[-9:].rstrip("0")
    return ("-" if exact < 0 else "") + text[:-9] + (f".{decimals}" if decimals else "")


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


def check_document(
    document: dict[str, Any], hours: dict[str, Fraction], promo: dict[str, Fraction]
) -> Iterator[str]:
    """Yield what is wrong with a document.

    hours, promo: the quantity of each charge key by its hours, and what promotional credit paid of it.
    """
    minor = Minor(document["exponent"])
    for line in document["lines"]:
        if line["kind"] != "credit":
            yield from check_line(line, minor, hours, promo)
    yield from check_taxes(document, minor)
    sums = {
        name: sum(minor(line[field]) for line in document["lines"])
        for name, field in (("subtotal", "amount"), ("discount", "discount"), ("tax", "tax"))
    }
    sums["total"] = sums["subtotal"] - sums["discount"] + sums["tax"]
    for name, expected in sums.items():
        if minor(document[name]) != expected:
            yield f"{name} {document[name]}, should be {minor.text(expected)}"
    if document["kind"] == "invoice":
        yield from check_due(document, minor)


def check_due(document: dict[str, Any], minor: Minor) -> Iterator[str]:
    """Yield what is wrong with what is left to pay: what the keys owe and the tax that credit did not pay."""
    settled = document["settlement"]
    tax = minor(document["tax"]) - minor(settled["tax_from_credit"])
    owed = sum((Fraction(amount) for amount in settled["claims"].values()), -Fraction(settled["paid_ahead"]))
    due = half_up(owed * minor.scale + tax)
    nets = [minor(line["amount"]) - minor(line["discount"]) for line in document["lines"]]
    whole = sum(net for net in nets if net > 0) + tax
    if whole < due <= whole + len(nets):
        due = whole  # Discounts are rounded line by line; then what is owed gives way.
    if minor(document["due"]) != due:
        yield f"due {document['due']}, should be {minor.text(due)}"


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
        places = len(str(self.scale)) - 1
        whole, rest = divmod(abs(minor), self.scale)
        return ("-" if minor < 0 else "") + str(whole) + (f".{rest:0{places}d}" if places else "")


def check_line(
    line: dict[str, Any], minor: Minor, hours: dict[str, Fraction], promo: dict[str, Fraction]
) -> Iterator[str]:
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
    if not line["is_newest"]:
        return
    counted = hours.get(line["key"], Fraction(0))
    if counted != quantity:
        yield f"{name}: its hours add up to {plain(counted)}, not {plain(quantity)}"
    burnt = min(max(half_up(promo.get(line["key"], Fraction(0)) * minor.scale), 0), max(total, 0))
    if discount != burnt:
        yield f"{name}: a discount of {minor.text(discount)}, but promotional credit paid {minor.text(burnt)}"


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
    with bundle.open(name) as raw:
        yield from csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))


def check_hours(
    hours: dict[str, list[dict[str, str]]], prices: dict[str, dict[str, Any]], paid: dict[str, Fraction]
) -> Iterator[str]:
    """Yield what is wrong with the amounts of each key's hours: each is what the rounded cumulative sum grew by.

    paid: what credit and the receivable paid for each key, net of what was reversed.
    """
    for key, rows in hours.items():
        quantity, before = Fraction(0), 0
        if key not in prices:
            yield f"{' '.join(rows[0][name] for name in SLOT[:-1])}: charged, but on no line"
            continue
        for row in rows:
            quantity += Fraction(row["quantity"])
            after = half_up(rate(prices[key], quantity) * MICROS)
            if Fraction(row["amount"]) * MICROS != after - before:
                place = " ".join(row[name] for name in SLOT)
                yield f"{place}: charged {row['amount']}, should be {plain(Fraction(after - before, MICROS))}"
            before = after
        charged = sum((Fraction(row["amount"]) for row in rows), Fraction(0))
        if paid.get(key, Fraction(0)) != charged:
            place = " ".join(rows[0][name] for name in SLOT[:-1])
            yield f"{place}: charged {plain(charged)}, but its transfers paid {plain(paid.get(key, Fraction(0)))}"


def rows_in(bundle: zipfile.ZipFile, name: str) -> int | None:
    """Return how many rows a file of the bundle has: documents, or rows of a table; None for a program."""
    if name.endswith(".json"):
        return len(json.loads(bundle.read(name)))
    return sum(1 for _row in rows_of(bundle, name)) if name.endswith(".csv") else None


def hash_of(bundle: zipfile.ZipFile, name: str) -> str:
    """Return the SHA-256 of a file of the bundle in hexadecimal digits."""
    found = hashlib.sha256()
    with bundle.open(name) as raw:
        while block := raw.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def check_manifest(bundle: zipfile.ZipFile, documents: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what of the bundle is missing, was added or was changed since its manifest was written."""
    names = set(bundle.namelist())
    if MANIFEST not in names:
        yield f"{MANIFEST} is missing, so nobody can say whether all documents are here"
        return
    manifest = json.loads(bundle.read(MANIFEST))
    files = manifest["files"]
    for name in sorted(names - files.keys() - {MANIFEST}):
        yield f"{name}: not in the manifest"
    for name, facts in files.items():
        if name not in names:
            yield f"{name}: missing"
            continue
        if hash_of(bundle, name) != facts["sha256"]:
            yield f"{name}: changed since the bundle was written"
        if facts["rows"] != (rows := rows_in(bundle, name)):
            yield f"{name}: {rows} rows, should be {facts['rows']}"
    found = Counter(document["number"] for document in documents)
    said = Counter(manifest["documents"])
    for number in sorted((said - found).elements()):
        yield f"{number}: in the manifest, but not among the documents"
    for number in sorted((found - said).elements()):
        yield f"{number}: among the documents, but not in the manifest"


def check_bundle(bundle: zipfile.ZipFile) -> tuple[int, list[str]]:
    """Return how many documents were recomputed, and what is wrong."""
    missing = [name for name in NEEDED if name not in bundle.namelist()]
    if missing:
        return 0, [f"{name}: missing" for name in missing]
    documents = json.loads(bundle.read("documents.json"))
    wrong = list(check_manifest(bundle, documents))
    hours: dict[str, list[dict[str, str]]] = defaultdict(list)
    slots: dict[tuple[str, ...], Fraction] = defaultdict(Fraction)
    for row in rows_of(bundle, "hours.csv"):
        hours[row["key"]].append(row)
        slots[tuple(row[name] for name in SLOT)] += Fraction(row["quantity"])
    used: dict[tuple[str, ...], Fraction] = defaultdict(Fraction)
    for row in rows_of(bundle, "usage.csv"):
        used[tuple(row[name] for name in SLOT)] += Fraction(row["quantity"])
    for slot, quantity in slots.items():
        if used[slot] != quantity:
            wrong.append(f"{' '.join(slot)}: charged {plain(quantity)}, used {plain(used[slot])}")
    paid: dict[str, Fraction] = defaultdict(Fraction)
    promo: dict[str, Fraction] = defaultdict(Fraction)
    for row in rows_of(bundle, "burns.csv"):
        net = Fraction(row["amount"]) - Fraction(row["reversed"])
        paid[row["key"]] += net
        if row["pot"] == "promo":
            promo[row["key"]] += net
    prices = {line["key"]: line["price"] for document in documents for line in document["lines"]}
    wrong += check_hours(hours, prices, paid)
    charged = {
        key: sum((Fraction(row["quantity"]) for row in rows), Fraction(0)) for key, rows in hours.items()
    }
    for document in documents:
        wrong += [f"{document['number']}: {text}" for text in check_document(document, charged, promo)]
    return len(documents), wrong


def main(arguments: list[str]) -> int:
    """Check the bundle that the command line names; return the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("Usage: python verify.py bundle.zip\n")
        return 2
    with zipfile.ZipFile(arguments[0]) as bundle:
        documents, wrong = check_bundle(bundle)
        manifest = hash_of(bundle, MANIFEST) if MANIFEST in bundle.namelist() else ""
    for text in wrong:
        sys.stdout.write(f"WRONG {text}\n")
    sys.stdout.write(f"{documents} documents recomputed, {len(wrong)} differences.\n")
    if manifest:
        sys.stdout.write(f"SHA-256 of the manifest: {manifest}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
