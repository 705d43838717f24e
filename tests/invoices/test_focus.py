"""The FOCUS export against the rules that the columns of FOCUS 1.2 have, and against the invoices."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction

from apps.billing.models import Pot
from apps.core import money
from apps.core.permissions import Role
from apps.invoices import focus
from apps.invoices import services as invoices
from apps.invoices.models import Invoice
from apps.pricing import services as pricing
from tests import build
from tests.billing.runs import HOUR, run, stop
from tests.invoices.conftest import APRIL

JUNE = datetime(2026, 6, 1, tzinfo=UTC)
TIERS = [
    {"up_to": "2", "unit_price": "3.33", "flat_fee": "1"},
    {"up_to": None, "unit_price": "2.5", "flat_fee": "0"},
]

# https://github.com/FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec, tag v1.2, specification/columns: feature level, data
# type and whether nulls are allowed, of every mandatory and recommended column that concerns us and of the
# conditional ones whose condition we meet. AvailabilityZone is left out: there are no zones.
RULES = {
    "BilledCost": ("Mandatory", "Decimal", False),
    "BillingAccountId": ("Mandatory", "String", False),
    "BillingAccountName": ("Mandatory", "String", True),
    "BillingCurrency": ("Mandatory", "Currency", False),
    "BillingPeriodEnd": ("Mandatory", "DateTime", False),
    "BillingPeriodStart": ("Mandatory", "DateTime", False),
    "ChargeCategory": ("Mandatory", "String", False),
    "ChargeClass": ("Mandatory", "String", True),
    "ChargeDescription": ("Mandatory", "String", True),
    "ChargeFrequency": ("Recommended", "String", False),
    "ChargePeriodEnd": ("Mandatory", "DateTime", False),
    "ChargePeriodStart": ("Mandatory", "DateTime", False),
    "ConsumedQuantity": ("Conditional", "Decimal", True),
    "ConsumedUnit": ("Conditional", "Unit", True),
    "ContractedCost": ("Mandatory", "Decimal", False),
    "ContractedUnitPrice": ("Conditional", "Decimal", True),
    "EffectiveCost": ("Mandatory", "Decimal", False),
    "InvoiceId": ("Recommended", "String", True),
    "InvoiceIssuerName": ("Mandatory", "String", False),
    "ListCost": ("Mandatory", "Decimal", False),
    "ListUnitPrice": ("Conditional", "Decimal", True),
    "PricingCategory": ("Conditional", "String", True),
    "PricingQuantity": ("Mandatory", "Decimal", True),
    "PricingUnit": ("Mandatory", "Unit", True),
    "ProviderName": ("Mandatory", "String", False),
    "PublisherName": ("Mandatory", "String", False),
    "RegionId": ("Conditional", "String", True),
    "RegionName": ("Conditional", "String", True),
    "ResourceId": ("Conditional", "String", True),
    "ResourceName": ("Conditional", "String", True),
    "ResourceType": ("Conditional", "String", True),
    "ServiceCategory": ("Mandatory", "String", False),
    "ServiceName": ("Mandatory", "String", False),
    "ServiceSubcategory": ("Recommended", "String", False),
    "SkuId": ("Conditional", "String", True),
    "SkuMeter": ("Conditional", "String", True),
    "SkuPriceDetails": ("Conditional", "JSON", True),
    "SkuPriceId": ("Conditional", "String", True),
    "SubAccountId": ("Conditional", "String", True),
    "SubAccountName": ("Conditional", "String", True),
    "Tags": ("Conditional", "JSON", True),
}
ALLOWED = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {"", "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {"", "Standard", "Dynamic", "Committed", "Other"},
}
# Subcategories that we use, each with its one parent.
CATEGORY_OF = {
    "Virtual Machines": "Compute",
    "Other (Storage)": "Storage",
    "Network Connectivity": "Networking",
    "AI Platforms": "AI and Machine Learning",
    "Generative AI": "AI and Machine Learning",
    "Other (Other)": "Other",
}
UNIT = r"(GB|GPU|Instance|Unit|Request|Token)s?(-Hours|-Seconds)?"
FORMS = {
    "Decimal": r"-?\d+(\.\d+)?",
    "String": r".*\S.*",
    "Currency": r"[A-Z]{3}",
    "DateTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "Unit": rf"(\d+ )?{UNIT}",
    "JSON": r"\{.*\}",
}


def faults(row):
    """Return what a row does that FOCUS 1.2 forbids; nothing where it conforms."""
    unknown = [f"column {name}" for name in row.keys() ^ RULES.keys()]
    return unknown or [*wrong_forms(row), *wrong_nulls(row), *wrong_costs(row)]


def wrong_forms(row):
    for name, (_level, kind, nullable) in RULES.items():
        if not row[name] and not nullable:
            yield f"{name} is null"
        elif row[name] and not re.fullmatch(FORMS[kind], row[name]):
            yield f"{name} is no {kind}: {row[name]}"
        if row[name] and kind == "JSON":
            assert isinstance(json.loads(row[name]), dict)
    yield from (f"{name} {row[name]}" for name, allowed in ALLOWED.items() if row[name] not in allowed)
    if CATEGORY_OF.get(row["ServiceSubcategory"]) != row["ServiceCategory"]:
        yield f"{row['ServiceSubcategory']} of {row['ServiceCategory']}"
    known = {"CoreCount", "GpuCount", "InstanceType", "MemorySize"}
    yield from (
        name for name in json.loads(row["SkuPriceDetails"] or "{}") if name not in known | {"x_Accelerator"}
    )
    for start, end in (("ChargePeriodStart", "ChargePeriodEnd"), ("BillingPeriodStart", "BillingPeriodEnd")):
        if row[start] >= row[end]:
            yield f"{end} before {start}"


def is_charge(row):
    return row["ChargeCategory"] in ("Usage", "Purchase") and not row["ChargeClass"]


def wrong_nulls(row):
    category = row["ChargeCategory"]
    priced = (
        "ContractedUnitPrice",
        "ListUnitPrice",
        "PricingCategory",
        "PricingQuantity",
        "SkuId",
        "SkuPriceId",
    )
    if is_charge(row):
        yield from (f"{name} of a charge is null" for name in priced if not row[name])
        if (category == "Usage") != bool(row["ConsumedQuantity"]):
            yield "ConsumedQuantity is for usage"
    if category == "Tax":
        yield from (f"{name} of a tax" for name in priced if row[name])
    if category != "Usage" and row["ConsumedQuantity"]:
        yield "ConsumedQuantity is for usage"
    if category == "Purchase" and row["ChargeFrequency"] == "Usage-Based":
        yield "a purchase is not usage-based"
    for one, other in (
        ("ConsumedQuantity", "ConsumedUnit"),
        ("PricingQuantity", "PricingUnit"),
        ("ResourceId", "ResourceType"),
        ("SubAccountId", "SubAccountName"),
        ("SkuId", "SkuMeter"),
    ):
        if bool(row[one]) != bool(row[other]):
            yield f"{one} without {other}, or the other way round"


def wrong_costs(row):
    for price, cost in (("ContractedUnitPrice", "ContractedCost"), ("ListUnitPrice", "ListCost")):
        if row[price].startswith("-"):
            yield f"{price} below zero"
        if is_charge(row):
            product = Decimal(row[price] or 0) * Decimal(row["PricingQuantity"] or 0)
            if product != Decimal(row[cost]):
                yield f"{cost} is not {price} times quantity"
        elif row["ChargeCategory"] == "Credit" and row[cost] != row["BilledCost"]:
            yield f"{cost} of a credit"
    if row["ChargeCategory"] == "Credit" and row["EffectiveCost"] != row["BilledCost"]:
        yield "EffectiveCost of a credit"


def exported(*arguments):
    out = StringIO()
    call_command("export_focus", *arguments, stdout=out)
    return list(csv.DictReader(StringIO(out.getvalue())))


@pytest.fixture(scope="module")
def _months(django_db_setup, django_db_blocker):
    """Every price model and an override, projects, labels, tax, promo; then a late stop, a note and a cancellation."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield make_months()
        transaction.set_rollback(True)


@pytest.fixture
def months(_months, db):
    return _months


def make_months():
    build.seller()
    build.price_book(
        {"unit_price": "2.4949"},
        {"sku": "graduated", "model": "graduated", "tiers": TIERS},
        {"sku": "volume", "model": "volume", "tiers": TIERS},
        {
            "meter": "egress_gb", "model": "package", "package_size": "100", "package_price": "1.1", "free_units": "10",
        },
    )  # fmt: skip
    labs = [build.organization(f"lab-{number}", name=f"=Lab {number}", now=APRIL) for number in range(3)]
    pricing.override_by_percent(
        actor=build.actor(),
        organization=labs[1],
        percent=Decimal(-20),
        effective_from=datetime(2026, 4, 1, tzinfo=UTC),
        now=APRIL,
    )
    for lab in labs:
        build.credit(lab, "7.777", pot=Pot.PROMO, now=APRIL)
        build.project(lab, "vision", name="Vision")
        run(lab, f"{lab.slug}-run", APRIL, APRIL + 9.1 * HOUR, sku="h100")
        for sku in ("graduated", "volume"):
            for number in range(3):
                subject = f"{lab.slug}-{sku}-{number}"
                build.usage(
                    lab, APRIL, APRIL + 1.2345 * HOUR, sku=sku, subject=subject, project="vision",
                    labels={"team": "vision"},
                )  # fmt: skip
        event = build.usage_event(lab, APRIL, APRIL + HOUR, sku="net", meter="egress_gb", quantity="777.5")
        for name in ("started_at", "ended_at", "gpus"):
            del event["data"][name]
        build.events(event | {"time": (APRIL + HOUR).isoformat()})
    april = [build.closed(lab, "2026-04").invoice for lab in labs]
    stop(labs[0], "lab-0-run", APRIL + HOUR)
    build.usage(labs[1], APRIL, APRIL + HOUR, sku="volume")
    invoices.cancel_invoice(actor=build.actor(), invoice=april[1], reason="tests", now=build.NOW)
    invoices.credit_invoice(
        actor=build.actor(), invoice=april[2], reason="=1", amount_minor=333, now=build.NOW
    )
    for lab in labs:
        build.closed(lab, "2026-05", now=JUNE)
    return labs


def test_the_export_conforms_and_adds_up_to_every_document_to_the_micro(months):
    rows = exported("--period", "2026-04") + exported("--period", "2026-05")

    assert tuple(rows[0]) == focus.COLUMNS
    assert [(row["ChargeDescription"], fault) for row in rows for fault in faults(row)] == []
    billed = defaultdict(Decimal)
    for row in rows:
        billed[row["InvoiceId"]] += Decimal(row["BilledCost"])
    documents = Invoice.objects.final()
    assert billed == {row.number: money.from_minor(row.total_minor, row.currency) for row in documents}
    # Three invoices, a cancellation, a credit note; the changed hours, and the cancelled month anew.
    assert len(billed) == 7
    assert {(row["ChargeCategory"], row["ChargeClass"]) for row in rows} == {
        ("Usage", ""), ("Usage", "Correction"), ("Purchase", ""), ("Tax", ""), ("Tax", "Correction"), ("Credit", ""),
        ("Credit", "Correction"),
    }  # fmt: skip
    # A name or a reason is text to a spreadsheet, never a formula.
    assert {row["BillingAccountName"] for row in rows} == {"'=Lab 0", "'=Lab 1", "'=Lab 2"}


def test_a_row_says_which_resource_used_what_at_which_price(months):
    rows = exported("--period", "2026-04", "--organization", "lab-2")
    tiers = {
        (row["ResourceId"], row["SkuPriceId"]): row for row in rows if row["SkuId"] == "gpu_hours/graduated"
    }

    # 3 × 1.2345 hours: two at 3.33 and a fee of 1 for entering them, the rest at 2.5, each in thirds.
    assert [
        (
            resource,
            price.removeprefix("gpu_hours/graduated/eu"),
            row["PricingQuantity"],
            row["ContractedCost"],
        )
        for (resource, price), row in tiers.items()
        if resource in ("", "tests/lab-2-graduated-0") and row["ChargeCategory"] != "Credit"
    ] == [
        ("tests/lab-2-graduated-0", "/tier-1", "0.666667", "2.22000111"),
        ("", "/tier-1/fee", "1", "1"),
        ("tests/lab-2-graduated-0", "/tier-2", "0.567834", "1.419585"),
    ]
    row = tiers["tests/lab-2-graduated-0", "gpu_hours/graduated/eu/tier-1"]
    assert (row["ConsumedQuantity"], row["ConsumedUnit"]) == ("2400", "GPU-Seconds")
    assert (row["SubAccountName"], json.loads(row["Tags"])) == ("Vision", {"team": "vision"})
    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == (
        "2026-04-01T00:00:00Z",
        "2026-05-01T00:00:00Z",
    )


def test_an_override_shows_the_list_price_beside_its_own(months):
    rows = exported("--period", "2026-04", "--organization", "lab-1")
    prices = {
        row["SkuPriceId"]: (row["ListUnitPrice"], row["ContractedUnitPrice"])
        for row in rows
        if row["ChargeCategory"] in ("Usage", "Purchase") and not row["ChargeClass"]
    }

    assert prices == {
        "gpu_hours/h100/eu": ("2.4949", "1.99592"),
        "gpu_hours/graduated/eu/tier-1": ("3.33", "2.664"),
        "gpu_hours/graduated/eu/tier-1/fee": ("1", "0.8"),
        "gpu_hours/graduated/eu/tier-2": ("2.5", "2"),
        "gpu_hours/volume/eu": ("2.5", "2"),
        "egress_gb/net/eu/tier-1": ("0", "0"),
        "egress_gb/net/eu/tier-2": ("1.1", "0.88"),
    }


def test_usage_that_changed_after_the_close_leaves_the_month_as_it_was_billed(months):
    """The stopped run has fewer hours now than its invoice says, which keeps its own split by project."""
    rows = exported("--period", "2026-04", "--organization", "lab-0")

    h100 = [row for row in rows if row["SkuId"] == "gpu_hours/h100" and row["ChargeCategory"] == "Usage"]
    assert [(row["ResourceId"], row["PricingQuantity"]) for row in h100] == [("", "9.1")]


def test_the_validator_finds_what_is_wrong(months):
    row = next(row for row in exported("--period", "2026-04") if row["ChargeCategory"] == "Usage")

    for name, value in (
        ("BilledCost", ""), ("BilledCost", "1,5"), ("ChargePeriodEnd", "2026-05-01"), ("BillingCurrency", "usd"),
        ("ListCost", "1.23"), ("ChargeCategory", "usage"), ("ConsumedUnit", "gpu seconds"), ("SkuPriceId", ""),
    ):  # fmt: skip
        assert faults(row | {name: value}) != []
    assert faults({name: value for name, value in row.items() if name != "InvoiceIssuerName"}) != []


def test_rest_and_the_portal_give_an_organization_its_own_rows(months, client):
    key = build.client(build.api_key(months[0]))
    rest = key.get("/api/v1/billing/focus?period=2026-04")
    client.force_login(build.member(months[0], Role.VIEWER))
    portal = client.get("/app/lab-0/invoices/focus?period=2026-04")

    assert rest.headers["Content-Disposition"] == 'attachment; filename="focus-lab-0-2026-04.csv"'
    assert rest.streaming
    assert portal.streaming
    text = rest.getvalue().decode()
    assert portal.getvalue().decode() == text
    assert list(csv.DictReader(StringIO(text))) == exported("--period", "2026-04", "--organization", "lab-0")
    for wrong in ("april", "0000-01", "9999-12"):
        answer = key.get(f"/api/v1/billing/focus?period={wrong}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert client.get("/app/lab-1/invoices/focus?period=2026-04").status_code == 404
    with pytest.raises(CommandError):
        exported("--period", "2026-4")
    with pytest.raises(CommandError):
        exported("--period", "2026-04", "--organization", f"{uuid4()}")
