"""What one organization pays instead of its book, from rating to the explanation of its invoice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import Error, connection, transaction

from apps.audit.models import AuditEvent
from apps.billing.models import ChargeHour, ChargeKey
from apps.core.errors import ValidationFailed
from apps.invoices import replay
from apps.invoices.explain import Wanted, explain
from apps.invoices.models import Invoice
from apps.invoices.selectors import invoices_of
from apps.organizations.models import BillingPeriod, Organization
from apps.outbox.models import OutboxEvent
from apps.pricing import selectors, services
from apps.pricing.models import PriceOverride, Region, Sku
from apps.pricing.rating import PriceTerms
from apps.pricing.rows import PriceRow, read_row
from apps.pricing.services import EffectiveDateRefused
from tests import build, money

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
MAY = datetime(2026, 5, 1, tzinfo=UTC)
MID = datetime(2026, 5, 10, tzinfo=UTC)
LATE = datetime(2026, 5, 20, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
TIERS = [{"up_to": "10", "unit_price": "3", "flat_fee": "1"}, {"up_to": None, "unit_price": "2"}]


@pytest.fixture
def lab() -> Organization:
    for entry in (Sku(code="h100"), Sku(code="a100"), Region(code="eu"), Region(code="us")):
        services.save_entry(actor=build.actor(), entry=entry)
    return build.organization("lab", now=MAY)


def row(**fields: Any) -> PriceRow:
    found, errors = read_row({"meter": "gpu_hours", "sku": "h100", "region": "*", **fields}, path="")
    assert found is not None, errors
    return found


def own(
    organization: Organization, since: datetime = MAY, until: datetime | None = None, **fields: Any
) -> PriceOverride:
    return services.override_price(
        actor=build.actor(),
        organization=organization,
        row=row(**fields),
        effective_from=since,
        effective_to=until,
        now=build.NOW,
    )


def percentage(
    organization: Organization, percent: str, since: datetime = MAY, until: datetime | None = None
) -> PriceOverride:
    return services.override_by_percent(
        actor=build.actor(),
        organization=organization,
        percent=Decimal(percent),
        effective_from=since,
        effective_to=until,
        now=build.NOW,
    )


def terms(
    organization: Organization,
    hour: datetime = MAY,
    *,
    sku: str = "h100",
    region: str = "eu",
    period: datetime = MAY,
) -> PriceTerms | None:
    prices = selectors.schedule(
        organization_id=organization.pk, currency="USD", start=MAY, end=JUNE + timedelta(days=30)
    )
    return prices.terms_for("gpu_hours", sku, region, hour, period)


def price(organization: Organization, hour: datetime = MAY, **place: Any) -> str | None:
    found = terms(organization, hour, **place)
    return None if found is None or found.unit_price is None else f"{found.unit_price.normalize():f}"


def test_a_price_of_its_own_wins_over_every_row_and_over_the_percentage(lab: Organization) -> None:
    build.price_book({"unit_price": "4"}, {"sku": "h100", "region": "eu", "unit_price": "3"})
    percentage(lab, "-10")
    own(lab, unit_price="2")

    assert price(lab) == "2"
    assert price(lab, sku="a100") == "3.6"
    assert price(build.organization()) == "3"


def test_the_most_specific_of_its_own_prices_wins(lab: Organization) -> None:
    build.price_book({"sku": "h100", "region": "eu", "unit_price": "9"})
    own(lab, sku="*", unit_price="4")
    own(lab, sku="*", region="eu", unit_price="3")
    own(lab, unit_price="2")
    own(lab, region="eu", unit_price="1")

    assert [price(lab), price(lab, region="us")] == ["1", "2"]
    assert [price(lab, sku="a100"), price(lab, sku="a100", region="us")] == ["3", "4"]


def test_a_price_of_its_own_needs_no_book(lab: Organization) -> None:
    own(lab, sku="*", unit_price="2")

    found = terms(lab)
    assert found is not None
    assert found.price_id is None


def test_it_applies_from_its_hour_to_its_end(lab: Organization) -> None:
    build.price_book({"unit_price": "4"})
    own(lab, since=MID, until=LATE, sku="*", unit_price="2")

    moments = (MID - HOUR, MID, LATE - HOUR, LATE)
    assert [price(lab, moment) for moment in moments] == ["4", "2", "2", "4"]


def test_every_price_changes_by_the_percentage_and_nothing_else(lab: Organization) -> None:
    build.price_book(
        {"sku": "h100", "model": "graduated", "tiers": TIERS},
        {
            "meter": "egress_gb",
            "model": "package",
            "package_size": "100",
            "package_price": "5",
            "free_units": "7",
        },
    )
    percentage(lab, "-12.5")

    found = terms(lab)
    assert found is not None
    assert [(tier.up_to, tier.unit_price, tier.flat_fee) for tier in found.tiers] == [
        (Decimal(10), Decimal("2.625"), Decimal("0.875")),
        (None, Decimal("1.75"), Decimal(0)),
    ]
    schedule = selectors.schedule(organization_id=lab.pk, currency="USD", start=MAY, end=JUNE)
    package = schedule.terms_at("egress_gb", "", "eu", MAY)
    assert package is not None
    assert (package.package_size, package.package_price, package.free_units) == (100, Decimal("4.375"), 7)


def test_each_changed_price_is_rounded_half_up_to_ten_decimals(lab: Organization) -> None:
    build.price_book(
        {"sku": "h100", "unit_price": "0.0000000001"}, {"sku": "a100", "unit_price": "0.0000000003"}
    )
    percentage(lab, "-50")

    assert price(lab) == "0.0000000001"  # Half of 1 is 0.5, and goes up.
    assert price(lab, sku="a100") == "0.0000000002"


def test_tiers_hold_to_the_periods_end_when_an_override_begins_or_ends(lab: Organization) -> None:
    build.price_book({"sku": "h100", "model": "graduated", "tiers": TIERS})
    percentage(lab, "-50", since=MID, until=JUNE + HOUR)

    before, then, june = terms(lab), terms(lab, MID), terms(lab, JUNE, period=JUNE)
    assert before is not None
    assert then == before
    assert june is not None
    assert june.tiers[0].unit_price == Decimal("1.5")
    assert terms(lab, JUNE + 2 * HOUR, period=JUNE) == june


def test_a_percentage_keeps_its_keys_across_an_unchanged_row_and_an_unchanged_percentage(
    lab: Organization,
) -> None:
    for since, other in ((MAY, "1"), (MID, "2")):
        build.price_book(
            {"sku": "h100", "unit_price": "4"},
            {"sku": "a100", "unit_price": other},
            name="Standard",
            effective_from=since,
        )
    first, second = percentage(lab, "-10", since=MAY), percentage(lab, "-10.0000", since=LATE)

    assert first.key_id == second.key_id
    keys = {found.key_id for moment in (MAY, MID, LATE) if (found := terms(lab, moment))}
    assert len(keys) == 1
    book = selectors.schedule(organization_id=None, currency="USD", start=MAY, end=JUNE)
    assert {row.key_id for row in book.rows_at(MAY)}.isdisjoint(keys)
    assert percentage(lab, "-11", since=JUNE).key_id != first.key_id


def test_a_new_override_ends_the_one_before_it_for_the_same_target_only(lab: Organization) -> None:
    first, elsewhere = own(lab, unit_price="2"), own(lab, region="eu", unit_price="1")
    second = own(lab, since=MID, unit_price="3")

    for override in (first, elsewhere, second):
        override.refresh_from_db()
    assert [first.effective_to, elsewhere.effective_to, second.effective_to] == [MID, None, None]
    with pytest.raises(EffectiveDateRefused):
        own(lab, since=MID, unit_price="4")


@pytest.mark.parametrize("percent", ["0", "-100.1", "100.1", "1.00001"])
def test_refuses_a_percentage_that_makes_no_sense(lab: Organization, percent: str) -> None:
    with pytest.raises(ValidationFailed):
        percentage(lab, percent)
    assert not PriceOverride.objects.exists()


def test_refuses_codes_that_do_not_exist(lab: Organization) -> None:
    with pytest.raises(ValidationFailed):
        own(lab, sku="nothing-of-ours", unit_price="1")
    assert not PriceOverride.objects.exists()


def test_nothing_begins_or_ends_before_usage_already_rated(
    lab: Organization, rated: dict[UUID, datetime]
) -> None:
    override = own(lab, sku="*", unit_price="2")
    rated[lab.pk] = MID

    for refused in (
        lambda: own(lab, since=MID - HOUR, sku="*", unit_price="1"),
        lambda: percentage(lab, "-5", since=MID - HOUR),
        lambda: percentage(lab, "-5", since=MID + timedelta(minutes=1)),
        lambda: percentage(lab, "-5", since=LATE, until=LATE),
        lambda: services.end_override(
            actor=build.actor(), override=override, effective_to=MID - HOUR, now=build.NOW
        ),
    ):
        with pytest.raises(EffectiveDateRefused):
            refused()
    ended = services.end_override(actor=build.actor(), override=override, effective_to=MID, now=build.NOW)
    assert ended.effective_to == MID
    with pytest.raises(EffectiveDateRefused):
        services.end_override(actor=build.actor(), override=override, effective_to=LATE, now=build.NOW)
    actions = ["price_override.created", "price_override.ended"]
    assert (
        list(AuditEvent.objects.filter(action__in=actions).order_by("id").values_list("action", flat=True))
        == actions
    )
    assert (
        OutboxEvent.objects.filter(event_type="pricing.override_ended", organization_id=lab.pk).count() == 1
    )


def refused(sql: str, *values: Any) -> str:
    """Return the SQLSTATE with which PostgreSQL refuses a statement, at once or at commit."""

    def run() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute(sql, values)

    with pytest.raises(Error) as error:
        run()
    return str(error.value.__cause__.sqlstate)  # type: ignore[union-attr]


ANOTHER = """
    INSERT INTO pricing_priceoverride (id, key_id, organization_id, currency, percent, sku, region, model,
        effective_from, created_at)
    SELECT gen_random_uuid(), key_id, organization_id, currency, 5, sku, region, model, effective_from + '1 day',
        created_at FROM pricing_priceoverride
"""


@pytest.mark.parametrize(
    ("sql", "state"),
    [
        ("UPDATE pricing_priceoverride SET percent = -30", "23001"),
        ("UPDATE pricing_priceoverride SET effective_from = effective_from + '1 hour'", "23001"),
        ("UPDATE pricing_priceoverride SET effective_to = effective_from", "23514"),
        ("UPDATE pricing_priceoverride SET effective_to = effective_from + '90 minutes'", "23514"),
        ("DELETE FROM pricing_priceoverride", "23001"),
        ("TRUNCATE pricing_priceoverride CASCADE", "23001"),
        (
            ANOTHER,
            "23P01",
        ),
    ],
)
def test_the_database_refuses(lab: Organization, sql: str, state: str) -> None:
    percentage(lab, "-20")
    assert refused(sql) == state


def test_the_database_refuses_a_second_end(lab: Organization) -> None:
    percentage(lab, "-20", until=MID)
    assert refused("UPDATE pricing_priceoverride SET effective_to = NULL") == "23001"


def test_a_charge_says_what_it_was_priced_by_and_the_invoice_explains_it(lab: Organization) -> None:
    build.price_book({"sku": "h100", "unit_price": "4"}, {"sku": "a100", "unit_price": "2"}, name="Standard")
    special, cheaper = own(lab, unit_price="3", region="us"), percentage(lab, "-25")
    start = MAY + timedelta(days=2)
    for place in ({"sku": "h100", "region": "us"}, {"sku": "h100"}, {"sku": "a100"}):
        build.usage(lab, start, start + 10 * HOUR, now=start + 11 * HOUR, **place)
    build.metered(lab, start + 11 * HOUR)

    invoice = build.closed(lab, "2026-05", now=JUNE + 80 * HOUR).invoice

    assert invoice is not None
    assert {line[2]: line[4] for line in money.lines(invoice) if line[2] == "a100"} == {"a100": 1500}
    lines = explain(invoices_of(build.actor(lab)).get(pk=invoice.pk), Wanted())["lines"]
    found = {(line["sku"], line["region"]): line for line in lines}
    assert {place: line["amount"] for place, line in found.items()} == {
        ("h100", "us"): "30.00",
        ("h100", "eu"): "30.00",
        ("a100", "eu"): "15.00",
    }
    changed, instead = found["h100", "eu"]["price"], found["h100", "us"]["price"]
    assert (changed["book"], changed["version"], changed["unit_price"]) == ("Standard", 1, "3.00")
    assert (changed["row"]["unit_price"], changed["override"]["id"], changed["override"]["percent"]) == (
        "4.00",
        cheaper.pk,
        "-25",
    )
    assert (instead["override"]["id"], instead["override"]["price"]["unit_price"]) == (special.pk, "3.00")
    assert instead["row"]["unit_price"] == "4.00"
    assert money.failing() == []
    period = BillingPeriod.objects.get(organization=lab, label="2026-05")
    assert replay.replay(lab, period).differences == ()


def test_usage_without_a_row_is_priced_by_the_organizations_own(lab: Organization) -> None:
    build.price_book({"sku": "a100", "unit_price": "2"})
    own(lab, unit_price="3")
    start = MAY + timedelta(days=2)
    build.usage(lab, start, start + HOUR, now=start + 2 * HOUR)
    build.metered(lab, start + 2 * HOUR)

    (key,) = ChargeKey.objects.all()
    assert (key.price_id, key.override_id is None) == (None, False)
    assert not ChargeKey.objects.unpriced().exists()
    assert ChargeHour.objects.get().amount_micros == 3_000_000
    invoice = build.closed(lab, "2026-05", now=JUNE + 80 * HOUR).invoice
    assert invoice is not None
    (line,) = explain(invoices_of(build.actor(lab)).get(pk=invoice.pk), Wanted())["lines"]
    assert (line["price"]["book"], line["price"]["row"], line["amount"]) == (None, None, "3.00")
    assert Invoice.objects.count() == 1


def test_a_price_in_another_currency_does_not_apply(lab: Organization) -> None:
    build.price_book({"unit_price": "4"})
    build.price_book({"unit_price": "400"}, currency="JPY")
    own(lab, sku="*", unit_price="2")

    prices = selectors.schedule(organization_id=lab.pk, currency="JPY", start=MAY, end=JUNE)
    found = prices.terms_at("gpu_hours", "h100", "eu", MAY)
    assert found is not None
    assert found.unit_price == 400


def test_the_rows_in_force_are_what_the_organization_pays(lab: Organization) -> None:
    build.price_book(
        {"sku": "h100", "region": "eu", "unit_price": "4"},
        {"sku": "h100", "unit_price": "5"},
        {"sku": "a100", "unit_price": "2"},
    )
    percentage(lab, "-50")
    own(lab, unit_price="3")

    rows = selectors.rows_in_force(organization_id=lab.pk, currency="USD", at=MID)
    assert [(row.sku, row.region, row.unit_price) for row in rows] == [
        ("a100", "*", Decimal("1.0000000000")),
        ("h100", "*", 3),
    ]
