"""`import_price_book`: the real catalog, our JSON, repeats, and files with mistakes."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from apps.audit.models import AuditEvent
from apps.outbox.models import OutboxEvent
from apps.pricing.models import Price, PriceBook, PriceBookVersion, Region, Sku, VersionState
from tests import build

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("rated")]

NEBIUS = Path(__file__).parent.parent / "data" / "prices-nebius.csv"
ARGUMENTS = ("--name", "Nebius", "--currency", "USD", "--effective-from", "2025-12-01T00:00:00Z", "--publish")
HEADER = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice\n"


def run(*arguments: object) -> str:
    out = io.StringIO()
    call_command("import_price_book", *map(str, arguments), stdout=out)
    return out.getvalue()


def counts() -> dict[str, int]:
    models = (PriceBook, PriceBookVersion, Price, Sku, Region, AuditEvent, OutboxEvent)
    return {model.__name__: model._default_manager.count() for model in models}


@pytest.fixture
def csv(tmp_path: Path) -> Any:
    def write(*rows: str, header: str = HEADER) -> Path:
        path = tmp_path / "prices.csv"
        path.write_text(header + "\n".join(rows) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def book(tmp_path: Path) -> Any:
    def write(*prices: Any, **fields: Any) -> Path:
        path = tmp_path / "book.json"
        document = {"name": "Standard 2026", "currency": "USD", "prices": list(prices), **fields}
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")
        return path

    return write


def row(**fields: Any) -> dict[str, Any]:
    return {
        "meter": "gpu_hours",
        "sku": "h100",
        "region": "*",
        "model": "per_unit",
        "unit_price": "2.4900000000",
        **fields,
    }


def without(name: str, **fields: Any) -> dict[str, Any]:
    return {key: value for key, value in row(**fields).items() if key != name}


# The real catalog


def test_the_catalog_is_imported_as_it_is_and_again_changes_nothing() -> None:
    first = run(NEBIUS, *ARGUMENTS)
    before = counts()
    second = run(NEBIUS, *ARGUMENTS)

    assert counts() == before
    # 17 rows, 8 of them with a spot price.
    assert before["Price"] == 25
    assert "Nebius v1: a draft with 25 prices." in first
    assert "Nebius v1: published, in force from 1 Dec 2025, 00:00 UTC." in first
    assert second == "Nothing changed: Nebius v1 has exactly these prices.\n"


def test_the_catalog_becomes_prices_per_gpu_hour() -> None:
    run(NEBIUS, *ARGUMENTS)

    def price(sku: str, region: str = "eu-north1") -> tuple[str, Decimal | None]:
        found = Price.objects.get(sku=sku, region=region)
        return found.meter_id, found.unit_price

    assert price("gpu-h100-sxm_8gpu-128vcpu-1600gb") == ("gpu_hours", Decimal("2.95"))
    assert price("gpu-h100-sxm_8gpu-128vcpu-1600gb:spot") == ("gpu_hours", Decimal("1.25"))
    assert price("gpu-l40s-d_2gpu-64vcpu-384gb") == ("gpu_hours", Decimal("2.2844"))
    assert price("gpu-b200-sxm_8gpu-160vcpu-1792gb", "us-central1") == ("gpu_hours", Decimal("5.5"))
    assert price("cpu-d3_4vcpu-16gb") == ("instance_hours", Decimal("0.0992"))
    assert set(Region.objects.values_list("code", flat=True)) == {"eu-north1", "eu-west1", "us-central1"}
    sku = Sku.objects.get(code="gpu-h100-sxm_8gpu-128vcpu-1600gb:spot")
    assert sku.family == "H100"
    assert sku.attributes == {"accelerator": "H100", "gpus": "8", "vcpus": "128", "memory_gib": "1600"}
    version = PriceBookVersion.objects.get()
    assert version.effective_from == datetime(2025, 12, 1, tzinfo=UTC)


def test_a_draft_is_published_by_importing_it_again() -> None:
    run(NEBIUS, "--name", "Nebius")
    assert PriceBookVersion.objects.get().state == VersionState.DRAFT

    out = run(NEBIUS, "--name", "Nebius", "--publish")

    version = PriceBookVersion.objects.get()
    assert (version.state, version.effective_from) == (
        VersionState.PUBLISHED,
        datetime(1970, 1, 1, tzinfo=UTC),
    )
    assert out == "Nebius v1: published, in force from 1 Jan 1970, 00:00 UTC.\n"


def test_quotients_are_rounded_half_up_and_named(csv: Any) -> None:
    out = run(csv("m,T4,3,4,16,1.00,eu,,", "n,T4,8,4,16,4e-10,eu,,"), "--name", "Thirds")

    assert Price.objects.get(sku="m").unit_price == Decimal("0.3333333333")
    assert Price.objects.get(sku="n").unit_price == Decimal("0.0000000001")
    assert "line 2, Price: 1.00 / 3 is rounded to 0.3333333333, ten decimals." in out
    assert "line 3, Price: 4E-10 / 8" in out or "line 3, Price: 0.0000000004 / 8" in out


def test_repeated_rows_count_once_and_are_named(csv: Any) -> None:
    out = run(csv("m,T4,1,4,16,1.0,eu,,", "m,T4,1,4,16,1.00,eu,,"), "--name", "Twice")

    assert Price.objects.count() == 1
    assert "line 3, Price: repeats line 2." in out


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (
            ["m,T4,1,4,16,1,eu,,", "m,T4,1,4,16,2,eu,,"],
            "line 3, Price: Line 2 has another price for m in eu.",
        ),
        (["m,T4,1,4,16,1,eu,,0.5", "m,T4,1,4,16,1,eu,,0.4"], "line 3, SpotPrice: Line 2 has another price"),
        (["m,T4,1,4,16,-1,eu,,"], "line 2, Price: This must not be negative."),
        (["m,T4,1,4,16,NaN,eu,,"], "line 2, Price: “NaN” is not a finite decimal number."),
        (["m,T4,1,4,16,inf,eu,,"], "line 2, Price: “inf” is not a finite decimal number."),
        (["m,T4,1,4,16,1e11,eu,,"], "line 2, Price: This is too large."),
        (["m,T4,1,4,16,1,eu,,cheap"], "line 2, SpotPrice: “cheap” is not"),
        (["m,T4,-1,4,16,1,eu,,"], "line 2, AcceleratorCount: This must not be negative."),
        (["m,T4,1,4,16,,eu,,"], "line 2, Price: This field is missing."),
        ([",T4,1,4,16,1,eu,,"], "line 2, InstanceType: This field is missing."),
        (["m,T4,1,4,16,1,,,"], "line 2, Region: This field is missing."),
        (["*,T4,1,4,16,1,eu,,"], "line 2, InstanceType: This is not a code."),
        (["m,T4,1,4,16,1,a/b,,"], "line 2, Region: This is not a code."),
        (["m,T4,1,4,16,1,eu"], "line 2: The line has 7 cells, the header 9."),
        (['m,T4,1,4,16,1,eu,"x"y,'], "line 2: "),
        ([], "line 1: A price book lists at least one price."),
    ],
)
def test_a_catalog_with_a_mistake_writes_nothing(csv: Any, rows: list[str], complaint: str) -> None:
    before = counts()

    with pytest.raises(CommandError) as refusal:
        run(csv(*rows), "--name", "Wrong")

    assert complaint in str(refusal.value)
    assert counts() == before


def test_every_mistake_is_named_at_once(csv: Any) -> None:
    with pytest.raises(CommandError) as refusal:
        run(csv("m,T4,x,4,16,-1,eu,,", "n,T4,1,4,16,1,,,"), "--name", "Wrong")

    assert [line.strip().split(":")[0] for line in str(refusal.value).splitlines()[1:]] == [
        "line 2, AcceleratorCount",
        "line 2, Price",
        "line 3, Region",
    ]


def test_a_csv_needs_its_columns_and_a_name(csv: Any) -> None:
    with pytest.raises(CommandError, match="These columns are missing: AcceleratorCount, Price"):
        run(csv(header="InstanceType,Region\n"), "--name", "Wrong")
    with pytest.raises(CommandError, match="name: The price book needs a name"):
        run(csv("m,T4,1,4,16,1,eu,,"))
    with pytest.raises(CommandError, match="currency: “XXQ” is no ISO 4217 currency"):
        run(csv("m,T4,1,4,16,1,eu,,"), "--name", "Wrong", "--currency", "XXQ")


# Our JSON


def test_every_model_is_read(book: Any) -> None:
    tiers = [
        {"up_to": "10", "unit_price": "10", "flat_fee": "2"},
        {"up_to": None, "unit_price": "5", "flat_fee": "0"},
    ]
    package = {"meter": "egress_gb", "sku": "*", "region": "*", "model": "package"}
    path = book(
        row(),
        without("unit_price", sku="a100", model="graduated", tiers=tiers),
        without("unit_price", sku="l4", model="volume", tiers=tiers),
        {**package, "package_size": "100", "package_price": "1", "free_units": "0"},
        effective_from="2026-01-01T00:00:00Z",
    )

    run(path, "--publish")

    version = PriceBookVersion.objects.get()
    assert version.effective_from == datetime(2026, 1, 1, tzinfo=UTC)
    assert version.book.name == "Standard 2026"
    assert Price.objects.get(sku="h100").unit_price == Decimal("2.49")
    assert Price.objects.get(sku="a100").tiers == tiers
    assert Price.objects.get(sku="l4").model == "volume"
    assert Price.objects.get(meter="egress_gb").package_size == 100
    assert set(Sku.objects.values_list("code", flat=True)) == {"h100", "a100", "l4"}


def test_numbers_are_read_exactly(book: Any, tmp_path: Path) -> None:
    path = book(row())
    path.write_text(path.read_text().replace('"2.4900000000"', "0.1000000001"))

    run(path)

    assert Price.objects.get().unit_price == Decimal("0.1000000001")


@pytest.mark.parametrize(
    ("price", "complaint"),
    [
        (row(model="free"), "prices.0.model: There is no such model"),
        (row(unit_price="-1"), "prices.0.unit_price: This must not be negative."),
        (row(unit_price="1e5"), "prices.0.unit_price: Write a decimal in plain digits, such as 12.50."),
        (row(unit_price="NaN"), "prices.0.unit_price: Write a decimal in plain digits"),
        (row(unit_price="1.00000000001"), "prices.0.unit_price: This has more than 10 decimals."),
        (row(unit_price="10000000000"), "prices.0.unit_price: This is too large."),
        (row(unit_price=True), "prices.0.unit_price: Write a decimal in plain digits"),
        (row(unit_price=["1"]), "prices.0.unit_price: Write a decimal in plain digits"),
        (without("unit_price"), "prices.0.unit_price: This field is missing."),
        (without("meter"), "prices.0.meter: This field is missing."),
        (without("sku"), "prices.0.sku: This field is missing."),
        (without("region"), "prices.0.region: This field is missing."),
        (row(meter="gpu_minutes"), "prices.0.meter: There is no such meter; the meters are egress_gb"),
        (row(meter="*"), "prices.0.meter: A code has"),
        (row(sku="a\u0000b"), "prices.0.sku: A code has"),
        (row(region="x" * 65), "prices.0.region: A code has"),
        (row(price="1"), "prices.0.price: A per_unit price has no such field."),
        (row(tiers=[]), "prices.0.tiers: A per_unit price has no such field."),
        ("free", "prices.0: A price is an object."),
        (without("unit_price", model="graduated"), "prices.0.tiers: A tiered price lists at least one tier."),
        (
            without("unit_price", model="graduated", tiers=[{"up_to": "1", "unit_price": "1"}]),
            "prices.0.tiers.0.up_to: The last tier is open",
        ),
        (
            without(
                "unit_price",
                model="volume",
                tiers=[
                    {"up_to": "5", "unit_price": "1"},
                    {"up_to": "5", "unit_price": "1"},
                    {"up_to": None, "unit_price": "1"},
                ],
            ),
            "prices.0.tiers.1.up_to: Tiers ascend",
        ),
        (
            without(
                "unit_price",
                model="volume",
                tiers=[{"up_to": "0", "unit_price": "1"}, {"up_to": None, "unit_price": "1"}],
            ),
            "prices.0.tiers.0.up_to: Tiers ascend",
        ),
        (
            without(
                "unit_price",
                model="volume",
                tiers=[{"up_to": None, "unit_price": "1"}, {"up_to": None, "unit_price": "1"}],
            ),
            "prices.0.tiers.0.up_to: Only the last tier is open.",
        ),
        (
            without(
                "unit_price", model="graduated", tiers=[{"up_to": None, "unit_price": "1", "flat_fee": "-1"}]
            ),
            "prices.0.tiers.0.flat_fee: This must not be negative.",
        ),
        (
            without("unit_price", model="graduated", tiers=[{"unit_price": "1", "fee": "1"}]),
            "prices.0.tiers.0.fee: A tier has no such field.",
        ),
        (
            without("unit_price", model="graduated", tiers=[{"unit_price": "1"}]),
            "prices.0.tiers.0.up_to: This field is missing.",
        ),
        (
            without("unit_price", model="package", package_size="0", package_price="1"),
            "prices.0.package_size: This must be more than zero.",
        ),
        (
            without("unit_price", model="package", package_size="1"),
            "prices.0.package_price: This field is missing.",
        ),
    ],
)
def test_a_row_with_a_mistake_is_named_with_its_line(book: Any, price: Any, complaint: str) -> None:
    before = counts()

    with pytest.raises(CommandError) as refusal:
        run(book(price))

    assert f"line 5, {complaint}" in str(refusal.value)
    assert counts() == before


def test_a_row_that_repeats_another_names_its_line(book: Any) -> None:
    with pytest.raises(CommandError, match=r"line 12, prices\.1: Line 5 already prices this"):
        run(book(row(), row(unit_price="1")))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"name": "x",\n "prices": [}', "line 2, column 13: This is not JSON"),
        ("[]", "line 1: A price book is an object."),
        ("", "line 1, column 1: This is not JSON"),
        ('{"name": "x", "name": "y"}', "“name” stands twice in one object."),
        ('{"name": "x", "currency": "USD"}', "prices: A price book lists at least one price."),
        (
            '{"name": "x", "currency": "USD", "prices": "none"}',
            "prices: A price book lists at least one price.",
        ),
        ('{"currency": "USD", "prices": []}', "name: The price book needs a name."),
        ('{"name": "x", "prices": []}', "currency: “” is no ISO 4217 currency."),
        (
            '{"name": "x", "currency": "USD", "prices": [], "rows": []}',
            "rows: A price book has no such field.",
        ),
        (
            '{"name": "x", "currency": "USD", "effective_from": "soon", "prices": []}',
            "effective_from: This is not",
        ),
        (
            '{"name": "x", "currency": "USD", "effective_from": "2026-01-01", "prices": []}',
            "effective_from: This",
        ),
        ("[" * 100_000, "line 1"),
    ],
)
def test_a_document_that_is_no_price_book(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "book.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(CommandError) as refusal:
        run(path)

    assert complaint in str(refusal.value)
    assert not PriceBook.objects.exists()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"\xff\xfe\xe9")

    with pytest.raises(CommandError, match="No such file"):
        run(tmp_path / "nowhere.json")
    with pytest.raises(CommandError, match="UTF-8"):
        run(latin, "--name", "x")
    with pytest.raises(CommandError, match="invalid moment value"):
        run(NEBIUS, "--name", "x", "--effective-from", "yesterday")


def test_a_moment_without_an_offset_is_utc(capsys: Any) -> None:
    run(NEBIUS, "--name", "x", "--effective-from", "2026-03-01T05:00:00", "--publish")

    version = PriceBook.objects.get().versions.get()
    assert version.effective_from == datetime(2026, 3, 1, 5, tzinfo=UTC)


# Versions


def test_other_content_becomes_a_draft_and_its_publication_needs_a_date(book: Any) -> None:
    run(book(row()), "--publish")
    changed = book(row(unit_price="3"))

    with pytest.raises(CommandError, match="Say from when these prices apply"):
        run(changed, "--publish")
    assert PriceBookVersion.objects.count() == 1
    run(changed)
    assert [version.state for version in PriceBookVersion.objects.order_by("number")] == [
        "published",
        "draft",
    ]
    run(changed, "--publish", "--effective-from", "2026-06-01T00:00:00Z")
    assert [version.state for version in PriceBookVersion.objects.order_by("number")] == ["published"] * 2


def test_a_sequence_of_imports_can_be_repeated(book: Any) -> None:
    """A script that imports January's and June's prices finds nothing to do the second time."""

    def script() -> None:
        run(book(row(), effective_from="2026-01-01T00:00:00Z"), "--publish")
        run(book(row(unit_price="3"), effective_from="2026-06-01T00:00:00Z"), "--publish")

    script()
    before = counts()
    script()

    assert counts() == before


def test_old_prices_can_come_back(book: Any) -> None:
    for month, price in (("01", "2"), ("06", "3"), ("07", "2")):
        run(book(row(unit_price=price)), "--publish", "--effective-from", f"2026-{month}-01T00:00:00Z")

    prices = Price.objects.order_by("version__number").values_list("unit_price", flat=True)
    assert list(prices) == [2, 3, 2]


def test_a_date_that_is_refused_names_the_reason(book: Any) -> None:
    run(book(row()), "--publish", "--effective-from", "2026-01-01T00:00:00Z")
    changed = book(row(unit_price="3"))

    for moment, reason in (
        ("2026-02-01T00:30:00Z", "whole UTC hours"),
        ("2026-01-01T00:00:00Z", "Version 1 is in force from 1 Jan 2026, 00:00 UTC"),
    ):
        with pytest.raises(CommandError, match=reason):
            run(changed, "--publish", "--effective-from", moment)
    assert PriceBookVersion.objects.count() == 1


def test_the_order_of_rows_and_the_form_of_numbers_do_not_matter(book: Any) -> None:
    run(book(row(), row(sku="a100", unit_price="1")))
    out = run(book(row(sku="a100", unit_price="1.00"), row(unit_price=2.49)))

    assert "Nothing changed" in out


def test_a_name_keeps_its_currency(book: Any) -> None:
    run(book(row()))

    with pytest.raises(CommandError, match="is in USD"):
        run(book(row(), currency="EUR"))
    with pytest.raises(CommandError, match="currency: The file is in USD"):
        run(book(row()), "--currency", "EUR")


def test_what_staff_wrote_about_a_sku_stays(book: Any) -> None:
    Sku.objects.create(code="h100", name="H100 SXM", family="Hopper")

    run(book(row()))

    assert Sku.objects.get(code="h100").name == "H100 SXM"


def test_the_builder_publishes() -> None:
    version = build.price_book({"unit_price": "1"})

    assert version.state == VersionState.PUBLISHED


def test_a_dry_run_prints_what_would_change_and_writes_nothing(tmp_path: Any, capsys: Any) -> None:
    rows = [
        {"sku": "h100", "unit_price": "2.50"},
        {"sku": "a100", "unit_price": "1"},
        {
            "sku": "v100",
            "model": "volume",
            "tiers": [{"up_to": "5", "unit_price": "2"}, {"up_to": None, "unit_price": "1"}],
        },
        {"sku": "l40", "unit_price": "0"},
    ]
    build.price_book(*rows, name="Standard")
    changed = [
        {"sku": "h100", "unit_price": "2.00"},
        {
            "sku": "v100",
            "model": "volume",
            "tiers": [{"up_to": "5", "unit_price": "3"}, {"up_to": None, "unit_price": "1"}],
        },
        {"sku": "l40", "unit_price": "0.50"},
        {"sku": "b200", "unit_price": "5"},
    ]
    file = tmp_path / "book.json"
    prices = [{"meter": "gpu_hours", "region": "*", **row} for row in changed]
    file.write_text(json.dumps({"name": "Standard", "currency": "USD", "prices": prices}))
    before = (PriceBookVersion.objects.count(), Sku.objects.count(), AuditEvent.objects.count())

    call_command("import_price_book", str(file), "--dry-run")

    assert capsys.readouterr().out.splitlines() == [
        "Compared with Standard v1:",
        "- gpu_hours · a100 · *: 1.00",
        "+ gpu_hours · b200 · *: 5.00",
        "~ gpu_hours · h100 · *: unit price 2.50 → 2.00 (−20.00 %)",
        "~ gpu_hours · l40 · *: unit price 0.00 → 0.50",
        "~ gpu_hours · v100 · *: price to 5 2.00 → 3.00 (+50.00 %)",
        "1 added, 1 removed, 3 changed, 0 unchanged.",
    ]
    assert before == (PriceBookVersion.objects.count(), Sku.objects.count(), AuditEvent.objects.count())


def test_a_dry_run_of_the_same_prices_says_so(tmp_path: Any, capsys: Any) -> None:
    build.price_book({"sku": "h100", "unit_price": "2.50"}, name="Standard")
    file = tmp_path / "book.json"
    row = {"meter": "gpu_hours", "sku": "h100", "region": "*", "unit_price": "2.5"}
    file.write_text(json.dumps({"name": "Standard", "currency": "USD", "prices": [row]}))

    call_command("import_price_book", str(file), "--dry-run")

    assert capsys.readouterr().out.splitlines()[-1] == (
        "Standard v1 has exactly these prices: importing them would make no new version."
    )
