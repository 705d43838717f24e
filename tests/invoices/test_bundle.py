"""The bundle and its verifier: accepted as written, by a Python that knows nothing of us; a changed cent is found."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command

from apps.billing import services as billing
from apps.billing.models import Pot
from apps.invoices import bundle, verifier
from apps.invoices import services as invoices
from apps.metering import services as metering
from tests import build
from tests.billing.runs import HOUR, run, stop
from tests.invoices.conftest import APRIL
from tests.threads import at_once

JUNE = datetime(2026, 6, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 3, tzinfo=UTC)
TIERS = [
    {"up_to": "2", "unit_price": "3.33", "flat_fee": "1"},
    {"up_to": None, "unit_price": "2.5", "flat_fee": "0"},
]


@pytest.fixture
def bundles(db, tmp_path):
    """April and May of three organizations: every price model, tax, promo, corrections, notes, a cancellation."""
    build.seller()
    build.price_book(
        {"unit_price": "2.4949"},
        {"sku": "graduated", "model": "graduated", "tiers": TIERS},
        {"sku": "volume", "model": "volume", "tiers": TIERS},
        {
            "meter": "egress_gb",
            "model": "package",
            "package_size": "100",
            "package_price": "1.1",
            "free_units": "10",
        },
    )
    labs = [build.organization(f"lab-{number}", now=APRIL) for number in range(3)]
    for lab in labs:
        build.credit(lab, "7.777", pot=Pot.PROMO, now=APRIL)
        run(lab, f"{lab.slug}-run", APRIL, APRIL + 9 * HOUR, sku="h100")
        for sku in ("graduated", "volume"):
            build.usage(lab, APRIL, APRIL + 3.7 * HOUR, sku=sku)
        data = {
            "organization": lab.slug,
            "sku": "net",
            "region": "eu",
            "meter": "egress_gb",
            "quantity": "777.5",
        }
        build.events(
            {
                "specversion": "1.0", "id": f"egress-{lab.slug}", "source": "tests", "type": "usage.recorded",
                "time": (APRIL + HOUR).isoformat(), "data": data,
            }
        )  # fmt: skip
    april = [build.closed(lab, "2026-04").invoice for lab in labs]
    stop(labs[0], "lab-0-run", APRIL + HOUR)
    build.usage(labs[1], APRIL, APRIL + HOUR, sku="volume")
    invoices.cancel_invoice(actor=build.actor(), invoice=april[1], reason="tests", now=build.NOW)
    invoices.credit_invoice(
        actor=build.actor(), invoice=april[2], reason="tests", amount_minor=333, now=build.NOW
    )
    for lab in labs:
        build.closed(lab, "2026-05", now=JUNE)
    paths = {}
    for label in ("2026-04", "2026-05"):
        paths[label] = written(label, tmp_path)
    return paths


def written(label, folder):
    """Write a bundle within the transaction that the test is in, and return its path."""
    path = folder / f"{label}.zip"
    with path.open("wb") as out:
        bundle.write_bundle(label, out)
    return path


def check(path):
    with zipfile.ZipFile(path) as bundle:
        return verifier.check_bundle(bundle)


def changed(path, change):
    """Write the bundle again with its documents changed and a manifest that knows it, and return its path."""

    def change_documents(files):
        documents = json.loads(files["documents.json"])
        change(documents)
        files["documents.json"] = json.dumps(documents)

    return rewritten(path, change_documents)


def rows_in(name, content):
    if name.endswith(".json"):
        return len(json.loads(content))
    return len(list(csv.DictReader(io.StringIO(content)))) if name.endswith(".csv") else None


def rewritten(path, change, *, is_told=True):
    """Write the bundle again with its files changed, and return its path. is_told: whether the manifest knows it."""
    with zipfile.ZipFile(path) as old:
        files = {name: old.read(name).decode() for name in old.namelist()}
    change(files)
    manifest = files.pop("manifest.json", None)
    if is_told:
        numbers = [document["number"] for document in json.loads(files["documents.json"])]
        facts = {
            name: {
                "rows": rows_in(name, content),
                "sha256": hashlib.sha256(content.encode()).hexdigest(),
            }
            for name, content in files.items()
        }
        manifest = bundle.manifest_of(path.stem, numbers, facts)
    other = path.with_name("changed.zip")
    with zipfile.ZipFile(other, "w") as copy:
        for name, content in (
            files.items() if manifest is None else {**files, "manifest.json": manifest}.items()
        ):
            copy.writestr(name, content)
    return other


def test_the_program_in_the_bundle_accepts_it_alone(bundles, tmp_path):
    with zipfile.ZipFile(bundles["2026-04"]) as bundle:
        assert sorted(bundle.namelist()) == [
            "burns.csv",
            "documents.json",
            "hours.csv",
            "manifest.json",
            "usage.csv",
            "verify.py",
        ]
        manifest = hashlib.sha256(bundle.read("manifest.json")).hexdigest()
        bundle.extract("verify.py", tmp_path)

    done = subprocess.run(
        [sys.executable, "-I", tmp_path / "verify.py", bundles["2026-04"]],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip

    # Three invoices, a cancellation, a credit note.
    said = f"5 documents recomputed, 0 differences.\nSHA-256 of the manifest: {manifest}\n"
    assert (done.returncode, done.stdout) == (0, said)
    # Of May only what changed: the hours that came back, and the cancelled month anew.
    assert check(bundles["2026-05"]) == (2, [])


def test_a_document_costs_the_same_queries_however_many_lines_it_has(bundles, django_assert_num_queries):
    # One for what is not charged, one for the documents, three for hours, usage and burns; then for each document its
    # lines, their prices and meters, what was said before, what came after by document and by charge, its claims and
    # its taxes.
    assert [len(document["lines"]) for document in documents(bundles["2026-04"])] == [4, 4, 4, 4, 4]
    with django_assert_num_queries(5 + 5 * 7):
        bundle.write_bundle("2026-04", io.BytesIO())


def documents(path):
    with zipfile.ZipFile(path) as bundle:
        return json.loads(bundle.read("documents.json"))


def cents(row, name, more="0.01"):
    row[name] = f"{Decimal(row[name]) + Decimal(more):f}"


CHANGES = {
    "amount of a line": lambda found: cents(found[0]["lines"][0], "amount"),
    "amount and its sums": lambda found: (
        cents(found[0]["lines"][0], "amount"),
        cents(found[0], "subtotal"),
        cents(found[0], "total"),
    ),
    "tax of a line": lambda found: cents(found[0]["lines"][0], "tax"),
    "tax everywhere": lambda found: (
        cents(found[0]["lines"][0], "tax"),
        cents(found[0]["taxes"][0], "tax"),
        cents(found[0], "tax"),
        cents(found[0], "total"),
    ),
    "total": lambda found: cents(found[0], "total"),
    "quantity": lambda found: [cents(line, "counted", "3600") for line in found[0]["lines"]],
    "discount": lambda found: cents(found[0]["lines"][0], "discount", "-999"),
    "a cent of due": lambda found: cents(found[0], "due"),
    "a line": lambda found: found[0]["lines"].pop(),
    "what a key owes": lambda found: found[0]["settlement"]["claims"].clear(),
}


def test_a_changed_cent_and_a_removed_hour_of_usage_are_found(bundles):
    for name, change in CHANGES.items():
        path = changed(bundles["2026-04"], change)
        assert check(path)[1] != [], name
        assert verifier.main([str(path)]) == 1, name

    for name, column, more, word in (
        ("usage.csv", 8, "0.001", "used"),
        ("hours.csv", 6, "1", "hours add up"),
        ("hours.csv", 7, "0.01", "should be"),
        ("burns.csv", 3, "0.01", "its transfers paid"),
    ):
        texts = check(changed_table(bundles["2026-04"], name, column, more))[1]
        assert any(word in text for text in texts), (name, column, texts)


def changed_table(path, name, column, more):
    """Write the bundle again with the last row of a table changed, and return its path."""

    def change(files):
        rows = list(csv.reader(io.StringIO(files[name])))
        cents(rows[-1], column, more)
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(rows)
        files[name] = out.getvalue()

    return rewritten(path, change)


def without_its_last_document(files):
    """Leave out the note, whose keys are on the lines of the invoice that it corrects too."""
    *kept, gone = json.loads(files["documents.json"])
    files["documents.json"] = json.dumps(kept)
    return gone["number"]


def without_its_last_row(files):
    files["hours.csv"] = files["hours.csv"].rstrip("\n").rpartition("\n")[0] + "\n"


def test_what_is_missing_added_or_changed_since_the_manifest_is_named(bundles):
    path = bundles["2026-04"]
    last = documents(path)[-1]["number"]
    rows = {name: facts["rows"] for name, facts in manifest(path)["files"].items()}
    assert manifest(path)["period"] == "2026-04"
    assert manifest(path)["documents"] == [document["number"] for document in documents(path)]
    assert (rows["documents.json"], rows["verify.py"]) == (5, None)

    for change, expected in (
        (
            without_its_last_document,
            [
                "documents.json: changed since the bundle was written",
                "documents.json: 4 rows, should be 5",
                f"{last}: in the manifest, but not among the documents",
            ],
        ),
        (
            without_its_last_row,
            [
                "hours.csv: changed since the bundle was written",
                f"hours.csv: {rows['hours.csv'] - 1} rows, should be {rows['hours.csv']}",
            ],
        ),
        (lambda files: files.pop("verify.py"), ["verify.py: missing"]),
        (lambda files: files.pop("hours.csv"), ["hours.csv: missing"]),
        (lambda files: files.update({"more.csv": "a"}), ["more.csv: not in the manifest"]),
        (
            lambda files: files.pop("manifest.json"),
            ["manifest.json is missing, so nobody can say whether all documents are here"],
        ),
    ):
        texts = check(rewritten(path, change, is_told=False))[1]
        assert texts[: len(expected)] == expected


def manifest(path):
    with zipfile.ZipFile(path) as bundle:
        return json.loads(bundle.read("manifest.json"))


def test_amounts_that_are_wrong_are_told_as_people_write_them(bundles):
    texts = check(changed(bundles["2026-04"], CHANGES["total"]))[1]

    (document,) = [row for row in documents(bundles["2026-04"]) if f"{row['number']}:" in texts[0]]
    wrong = f"{Decimal(document['total']) + Decimal('0.01'):f}"
    assert texts == [f"{document['number']}: total {wrong}, should be {document['total']}"]


def count_late_usage(lab):
    """Count an hour more of April, so that it waits to be charged; return the charging."""
    build.usage(lab, APRIL, APRIL + HOUR)
    now = build.NOW + timedelta(minutes=1)
    metering.meter_organization(organization_id=lab.id, until=now, now=now)
    return lambda: billing.charge_organization(organization_id=lab.id, now=now)


def test_usage_that_is_counted_and_not_charged_is_waited_for(lab, tmp_path):
    build.price_book({"unit_price": "3"})
    build.usage(lab, APRIL, APRIL + HOUR)
    build.closed(lab, "2026-04")
    charge = count_late_usage(lab)

    with pytest.raises(bundle.UsageNotCharged, match="New usage of lab is counted, but not charged yet"):
        written("2026-04", tmp_path)
    assert (tmp_path / "2026-04.zip").read_bytes() == b""
    written("2026-05", tmp_path)  # Nothing of it is in there.

    charge()
    assert check(written("2026-04", tmp_path)) == (1, [])


@pytest.mark.django_db(transaction=True)
def test_what_is_charged_while_a_bundle_is_written_is_not_in_it(tmp_path, monkeypatch):
    lab = build.organization("lab", now=APRIL)
    build.price_book({"unit_price": "3"})
    build.usage(lab, APRIL, APRIL + HOUR)
    build.closed(lab, "2026-04")
    hours = bundle._hours

    def charge_meanwhile(keys):
        assert at_once(lambda: count_late_usage(lab)().hours) == [1]
        return hours(keys)

    monkeypatch.setattr(bundle, "_hours", charge_meanwhile)
    path = tmp_path / "april.zip"
    path.write_bytes(b"what was there before")
    call_command("export_invoices", period="2026-04", bundle=path, stdout=io.StringIO())
    assert check(path) == (1, [])
    with zipfile.ZipFile(path) as found:
        assert found.read("usage.csv").decode().count("3600") == 1

    count_late_usage(lab)
    before = path.read_bytes()
    with pytest.raises(CommandError, match="Wait for the next tick"):
        call_command("export_invoices", period="2026-04", bundle=path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
