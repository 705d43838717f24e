"""Real GPU usage at real prices: the invoices that were computed apart from this project, to the cent and second."""

from __future__ import annotations

import csv
import json
import random
import zipfile
from collections import defaultdict
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

from django.core.management import call_command

from apps.billing.models import ChargeHour
from apps.invoices import verifier
from apps.invoices.bundle import write_bundle
from apps.invoices.models import Invoice
from apps.invoices.replay import replay
from apps.ledger.models import Transfer
from apps.organizations.models import BillingPeriod, PeriodState
from tests import build
from tests.money import failing

DATA = Path(__file__).parent.parent / "data"
USAGE = DATA / "gpu-usage-2023-part.csv"
LAB = "lab-01"
MONTHS = ["2026-01", "2026-02", "2026-03", "2026-04", "2026-05"]


def import_prices() -> None:
    call_command(
        "import_price_book",
        str(DATA / "prices-nebius.csv"),
        *("--name", "Nebius", "--currency", "USD", "--effective-from", "2025-12-01T00:00:00Z", "--publish"),
        stdout=StringIO(),
    )


def seconds(text: str) -> str:
    """Return a quantity without trailing zeros, which say nothing."""
    return f"{Decimal(text).normalize():f}"


def bill() -> dict[str, Any]:
    """Meter and close everything, and return the lines of all invoices in the shape of the expected ones."""
    call_command("meter", "--until", "2026-08-01T00:00:00Z", stdout=StringIO())
    found: dict[str, Any] = defaultdict(dict)
    for month in MONTHS:
        call_command("close_period", "--period", month, "--finalize", stdout=StringIO())
        out = StringIO()
        call_command("export_invoices", "--period", month, stdout=out)
        for invoice in json.loads(out.getvalue()):
            assert invoice["currency"] == "USD"
            assert {line["kind"] for line in invoice["lines"]} == {"usage"}
            found[invoice["organization"]][month] = {
                line["sku"]: {
                    "gpu_seconds": seconds(line["gpu_seconds"]),
                    "gpu_hours": line["quantity"],
                    "amount": line["amount"],
                }
                for line in invoice["lines"]
            }
    return found


def counts() -> tuple[int, int, int, int]:
    revisions = sum(ChargeHour.objects.values_list("revision", flat=True))
    return Transfer.objects.count(), ChargeHour.objects.count(), revisions, Invoice.objects.count()


EXPECTED = {
    LAB: {
        month: {sku: line | {"gpu_seconds": seconds(line["gpu_seconds"])} for sku, line in lines.items()}
        for month, lines in json.loads((DATA / "gpu-usage-2023-part.expected.json").read_text())[LAB].items()
    }
}


def test_imported_usage_gives_the_known_invoices_and_the_second_time_changes_nothing(db, tmp_path):
    rows = USAGE.read_text().splitlines(keepends=True)
    path = tmp_path / "usage.csv"
    path.write_text("".join([rows[0], *(row for row in rows if f",{LAB}," in row)]))
    imported = [str(path), "--create-organizations"]
    import_prices()
    call_command("import_usage", *imported, stdout=StringIO(), stderr=StringIO())
    assert bill() == EXPECTED
    before = counts()

    import_prices()
    call_command("import_usage", *imported, stdout=StringIO(), stderr=StringIO())

    assert bill() == EXPECTED
    assert counts() == before
    assert failing() == []
    for month in MONTHS:
        proves_itself(month, tmp_path / f"{month}.zip")
    periods = BillingPeriod.objects.filter(state=PeriodState.FINAL).select_related("organization")
    assert {period.label for period in periods} >= set(MONTHS)
    for period in periods:
        assert replay(period.organization, period).differences == ()


def proves_itself(month: str, path: Path) -> None:
    """Assert that the month's bundle is accepted as it is, and with a cent more in any document is not."""
    with path.open("wb") as out:
        write_bundle(month, out)
    with zipfile.ZipFile(path) as bundle:
        files = {name: bundle.read(name) for name in bundle.namelist()}
        documents, wrong = verifier.check_bundle(bundle)
    said = json.loads(files["documents.json"])
    assert (documents, wrong) == (len(said), [])
    for document in said:
        total = document["total"]
        document["total"] = f"{Decimal(total) + Decimal('0.01')}"
        with zipfile.ZipFile(path, "w") as changed:
            for name, content in (files | {"documents.json": json.dumps(said).encode()}).items():
                changed.writestr(name, content)
        with zipfile.ZipFile(path) as changed:
            wrong = verifier.check_bundle(changed)[1]
        assert wrong[0] == "documents.json: changed since the bundle was written"
        assert [text.startswith(f"{document['number']}: total ") for text in wrong[1:]] == [True]
        document["total"] = total


def test_usage_sent_twice_in_shuffled_batches_gives_the_known_invoices(db):
    import_prices()
    lab = build.organization(LAB)
    with USAGE.open(newline="") as file:
        usage = [row for row in csv.DictReader(file) if row["organization"] == LAB]
    for project in {row["project"] for row in usage}:
        build.project(lab, project)
    sent = 2 * [
        event for number, row in enumerate(usage) for event in events(row, as_interval=number % 2 == 0)
    ]
    random.Random(2023).shuffle(sent)  # noqa: S311  To be repeated, not to be secret.
    prov = build.client(build.integration())
    accepted = duplicates = 0
    for first in range(0, len(sent), 400):
        answer = prov.post("/api/v1/usage/events", sent[first : first + 400]).json()
        assert answer["errors"] == []
        accepted += answer["accepted"]
        duplicates += answer["duplicates"]
        if first == 400:
            # A tick in the midst of it counts what is there; what comes later corrects it.
            call_command("meter", "--until", "2026-03-10T00:00:00Z", stdout=StringIO())

    assert accepted == duplicates == len(sent) // 2
    assert bill() == EXPECTED
    assert failing() == []


def events(row: dict[str, str], *, as_interval: bool) -> list[dict[str, Any]]:
    """Return one row as a finished interval, or as the start and the stop of an allocation."""

    def event(kind: str, **fields: Any) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": f"{row['resource_id']}/{kind}",
            "source": "cluster",
            "subject": row["resource_id"],
            "type": kind,
            **fields,
        }

    data = {name: row[name] for name in ("organization", "project", "sku", "region", "gpus")}
    if as_interval:
        times = {"started_at": row["started_at"], "ended_at": row["ended_at"]}
        return [event("usage.recorded", data=data | times)]
    return [
        event("allocation.started", time=row["started_at"], data=data),
        event("allocation.stopped", time=row["ended_at"], data={"organization": row["organization"]}),
    ]
