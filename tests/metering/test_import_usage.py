"""`import_usage`: real usage, twice, and files with mistakes."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from apps.metering.models import UsageEvent, UsageHour
from apps.organizations.models import BillingPeriod, Organization, Project
from apps.pricing.models import Region
from tests import build
from tests.metering.events import tick

DATA = Path(__file__).parent.parent / "data"
PART = DATA / "gpu-usage-2023-part.csv"
WRONG_SLUG = "A slug has up to 63 lower-case letters, digits and single hyphens, and is no UUID."
HEADER = "resource_id,organization,project,sku,region,gpus,started_at,ended_at\n"


def run(path: Path, *options: str) -> tuple[str, str, int]:
    """Return what the command printed, what it complained about, and its exit status."""
    out, err = StringIO(), StringIO()
    try:
        call_command("import_usage", str(path), *options, stdout=out, stderr=err)
    except CommandError as error:
        return out.getvalue(), err.getvalue() + str(error), error.returncode
    return out.getvalue(), err.getvalue(), 0


def write(folder: Path, *rows: str) -> Path:
    path = folder / "usage.csv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def test_real_usage_gives_the_known_quantities_and_the_second_import_changes_nothing(db):
    assert run(PART, "--create-organizations") == ("Imported 1,015 rows; 0 were there already.\n", "", 0)
    for organization in Organization.objects.all():
        tick(organization.pk, datetime(2026, 8, 1, tzinfo=UTC), limit=200)
    counted = set(UsageHour.objects.values_list("pk", "quantity", "revision"))

    assert run(PART, "--create-organizations") == ("Nothing new: all 1,015 rows were there already.\n", "", 0)
    for organization in Organization.objects.all():
        tick(organization.pk, datetime(2026, 8, 2, tzinfo=UTC))

    assert set(UsageHour.objects.values_list("pk", "quantity", "revision")) == counted
    found: dict[str, dict[str, dict[str, Decimal]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(Decimal))
    )
    for row in UsageHour.objects.select_related("organization"):
        period = f"{row.hour:%Y-%m}"
        found[row.organization.slug][period][row.sku] += row.quantity
    expected = json.loads((DATA / "gpu-usage-2023-part.expected.json").read_text())
    assert found == {
        organization: {
            period: {sku: Decimal(line["gpu_seconds"]) for sku, line in lines.items()}
            for period, lines in periods.items()
        }
        for organization, periods in expected.items()
    }
    assert Project.objects.filter(organization__slug="lab-01", slug="ls").exists()
    assert BillingPeriod.objects.filter(organization__slug="lab-01", label="2026-01").exists()


def test_bad_rows_are_named_and_the_good_ones_imported(db, tmp_path):
    build.organization("lab")
    Region.objects.create(code="eu", name="")
    path = write(
        tmp_path,
        "a,lab,ml,h100,eu,8,2026-01-01T00:00:00Z,2026-01-01T01:00:00Z",
        "b,lab,ml,h100,eu,-8,2026-01-01T00:00:00Z,2026-01-01T01:00:00Z",
        "c,nobody,,h100,eu,8,2026-01-01T00:00:00Z,2026-01-01T01:00:00Z",
        "d,lab,ml,h100,mars,8,2026-01-01T00:00:00Z,2026-01-01T01:00:00Z",
        "e,lab,ml,h100,eu,8,2026-01-01T02:00:00Z,2026-01-01T01:00:00Z",
        "f,lab,ml,h100,eu",
        ",lab,ml,h100,eu,8,2026-01-01T00:00:00Z,2026-01-01T01:00:00Z",
        "g,lab,Bad Slug,h100,eu,8,2026-01-01T00:00:00Z,2026-01-01T01:00:00Z",
        "",
        "h,lab,,h100,eu,0.5,2026-01-01T00:00:00Z,2026-01-01T01:00:00Z",
    )

    out, err, status = run(path)

    assert (out, status) == ("Imported 2 rows; 0 were there already.\n", 1)
    assert err.splitlines() == [
        "Line 3: data.gpus must not be negative.",
        "Line 4: There is no organization nobody.",
        "Line 5: There is no region mars.",
        "Line 6: data.ended_at is before data.started_at.",
        "Line 7: has 5 columns; the first line has 8.",
        "Line 8: resource_id must not be empty.",
        "Line 9: project 'Bad Slug' cannot be made: " + WRONG_SLUG,
        "7 rows were rejected; the others are imported.",
    ]
    assert set(UsageEvent.objects.values_list("resource__subject", flat=True)) == {"a", "h"}


def test_a_changed_row_is_a_conflict_and_the_first_one_stays(db, tmp_path):
    build.organization("lab")
    run(write(tmp_path, "a,lab,,h100,eu,8,2026-01-01T00:00:00Z,2026-01-01T01:00:00Z"))

    _out, err, status = run(write(tmp_path, "a,lab,,h100,eu,4,2026-01-01T00:00:00Z,2026-01-01T01:00:00Z"))

    assert status == 1
    assert "Line 2: An event with this source and id, but other content, was accepted before." in err
    assert UsageEvent.objects.get().gpus == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The first line must name the columns"),
        (b"resource_id,organization\n", "missing: project, sku, region, gpus, started_at, ended_at."),
        (b"\xff\xfe", "is not UTF-8 text."),
        (HEADER.encode() + b'"a,lab\n', "is no CSV file"),
    ],
)
def test_a_file_that_is_none_is_refused_as_a_whole(db, tmp_path, content, message):
    path = tmp_path / "usage.csv"
    path.write_bytes(content)

    _out, err, status = run(path)

    assert (message in err, status) == (True, 1)
    assert "Cannot read" in run(tmp_path / "missing.csv")[1]
