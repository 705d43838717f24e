"""Examples that others published, bounds computed by hand, and the rounding that money stands on."""

from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest

from apps.pricing.rating import PriceTerms, Tier, amount_micros, breakdown, rate, round_half_up

ID = UUID(int=1)


def terms(model: str, **fields: object) -> PriceTerms:
    return PriceTerms(
        key_id=ID,
        price_id=ID,
        meter="requests",
        sku="*",
        region="*",
        model=model,
        **{"unit_seconds": 1, **fields},
    )


def tiers(*rows: tuple[str | None, str, str]) -> tuple[Tier, ...]:
    return tuple(
        Tier(
            up_to=None if up_to is None else Decimal(up_to),
            unit_price=Decimal(unit_price),
            flat_fee=Decimal(flat_fee),
        )
        for up_to, unit_price, flat_fee in rows
    )


# Stripe, "Set up tiered pricing": 1-5 at 7, 6-10 at 6.50, then 6.
STRIPE = tiers(("5", "7", "0"), ("10", "6.5", "0"), (None, "6", "0"))
# Lago, "Volume": 10 in each tier besides the unit price.
LAGO_VOLUME = tiers(
    ("10000", "0.0010", "10"), ("50000", "0.0008", "10"), ("100000", "0.0006", "10"), (None, "0.0004", "10")
)
# Autumn, "Graduated pricing".
AUTUMN = tiers(("1000", "0.01", "0"), ("10000", "0.008", "0"), (None, "0.005", "0"))
# The graduated example of the price book format.
FORMAT = tiers(("10", "10", "2"), (None, "5", "0"))


@pytest.mark.parametrize(
    ("price", "quantity", "amount"),
    [
        (terms("graduated", tiers=STRIPE), "1", "7"),
        (terms("graduated", tiers=STRIPE), "5", "35"),
        (terms("graduated", tiers=STRIPE), "6", "41.5"),
        (terms("graduated", tiers=STRIPE), "20", "127.5"),
        (terms("graduated", tiers=STRIPE), "25", "157.5"),
        (terms("volume", tiers=STRIPE), "1", "7"),
        (terms("volume", tiers=STRIPE), "5", "35"),
        (terms("volume", tiers=STRIPE), "6", "39"),
        (terms("volume", tiers=STRIPE), "20", "120"),
        (terms("volume", tiers=STRIPE), "25", "150"),
        (terms("graduated", tiers=AUTUMN), "15000", "107"),
        (terms("volume", tiers=LAGO_VOLUME), "65000", "49"),
        # Lago, "Package": 5 per 100 units, the first 100 free.
        (
            terms("package", package_size=Decimal(100), package_price=Decimal(5), free_units=Decimal(100)),
            "201",
            "10",
        ),
        # The examples of Lago's own specification of packages.
        (
            terms("package", package_size=Decimal(10), package_price=Decimal(100), free_units=Decimal(0)),
            "121",
            "1300",
        ),
        (
            terms("package", package_size=Decimal(10), package_price=Decimal(100), free_units=Decimal(10)),
            "121",
            "1200",
        ),
    ],
)
def test_published_examples(price: PriceTerms, quantity: str, amount: str) -> None:
    assert rate(price, Decimal(quantity)) == Fraction(amount)


@pytest.mark.parametrize(
    ("price", "quantity", "amount"),
    [
        # 2 for entering the first tier, 10 a unit up to and including 10, then 5 a unit.
        (terms("graduated", tiers=FORMAT), "0", "0"),
        (terms("graduated", tiers=FORMAT), "0.000001", "2.00001"),
        (terms("graduated", tiers=FORMAT), "10", "102"),
        (terms("graduated", tiers=FORMAT), "10.000001", "102.000005"),
        # 100.5 lies above 100.
        (terms("volume", tiers=tiers(("100", "1", "0"), (None, "0.5", "3"))), "100", "100"),
        (terms("volume", tiers=tiers(("100", "1", "0"), (None, "0.5", "3"))), "100.5", "53.25"),
        (terms("volume", tiers=tiers((None, "0.5", "3"))), "0", "0"),
        (
            terms("package", package_size=Decimal(100), package_price=Decimal(1), free_units=Decimal(0)),
            "0",
            "0",
        ),
        (
            terms("package", package_size=Decimal(100), package_price=Decimal(1), free_units=Decimal(0)),
            "0.000001",
            "1",
        ),
        (
            terms("package", package_size=Decimal(100), package_price=Decimal(1), free_units=Decimal(0)),
            "100",
            "1",
        ),
        (
            terms("package", package_size=Decimal(100), package_price=Decimal(1), free_units=Decimal(0)),
            "100.000001",
            "2",
        ),
        (
            terms("package", package_size=Decimal(100), package_price=Decimal(1), free_units=Decimal(7)),
            "7",
            "0",
        ),
        (
            terms("package", package_size=Decimal(100), package_price=Decimal(1), free_units=Decimal(7)),
            "7.000001",
            "1",
        ),
    ],
)
def test_bounds(price: PriceTerms, quantity: str, amount: str) -> None:
    assert rate(price, Decimal(quantity)) == Fraction(amount)


def test_gpu_time_is_counted_in_seconds_and_priced_by_the_hour() -> None:
    hourly = terms("per_unit", unit_price=Decimal("2.49"), unit_seconds=3600)
    graduated = terms("graduated", tiers=FORMAT, unit_seconds=3600)
    package = terms(
        "package",
        package_size=Decimal(2),
        package_price=Decimal(3),
        free_units=Decimal(1),
        unit_seconds=3600,
    )

    assert amount_micros(hourly, Decimal(8 * 3600)) == 19_920_000
    assert rate(graduated, Decimal(36_000)) == 102
    assert rate(graduated, Decimal(36_001)) == 102 + Fraction(5, 3600)
    assert rate(package, Decimal(3600)) == 0
    assert rate(package, Decimal("3600.001")) == 3
    assert rate(package, Decimal(3 * 3600)) == 3
    assert rate(package, Decimal(3 * 3600 + 1)) == 6


def test_a_third_of_an_hour_is_exact() -> None:
    price = terms("per_unit", unit_price=Decimal("0.0000000001"), unit_seconds=3600)

    assert rate(price, Decimal(1200)) == Fraction(1, 3 * 10**10)


def test_the_largest_quantity_and_price_lose_nothing() -> None:
    price = terms("per_unit", unit_price=Decimal("9999999999.9999999999"))
    quantity = Decimal("99999999999999999999999999999999.999999")

    assert rate(price, quantity) == Fraction(price.unit_price or 0) * Fraction(quantity)
    assert amount_micros(price, quantity) == 10**48 - 10**28 - 10**10


@pytest.mark.parametrize(
    ("quantity", "micros"),
    [("0.4999", 0), ("0.5", 1), ("0.500001", 1), ("1.499999", 1), ("1.5", 2), ("2.5", 3)],
)
def test_micros_are_rounded_half_up(quantity: str, micros: int) -> None:
    assert amount_micros(terms("per_unit", unit_price=Decimal("0.000001")), Decimal(quantity)) == micros
    tiered = terms("graduated", tiers=tiers((None, "0.000001", "0")))
    assert amount_micros(tiered, Decimal(quantity)) == micros


@pytest.mark.parametrize(
    ("amount", "exponent", "rounded"),
    [
        (Fraction(1, 2), 0, "1"),
        (Fraction(-1, 2), 0, "-1"),
        (Fraction(5, 1000), 2, "0.01"),
        (Fraction(4999, 1_000_000), 2, "0.00"),
        (Fraction(1, 3), 6, "0.333333"),
        (Fraction(0), 2, "0.00"),
        (Fraction(10**40 + 1, 2), 0, "5000000000000000000000000000000000000001"),
    ],
)
def test_round_half_up(amount: Fraction, exponent: int, rounded: str) -> None:
    assert str(round_half_up(amount, exponent)) == rounded


def test_a_breakdown_names_each_tier_entered() -> None:
    shares = breakdown(terms("graduated", tiers=FORMAT), Decimal(12))

    assert [(share.up_to, share.quantity, share.flat_fee, share.amount) for share in shares] == [
        (Decimal(10), 10, Decimal(2), 102),
        (None, 2, Decimal(0), 10),
    ]
    assert len(breakdown(terms("graduated", tiers=FORMAT), Decimal(10))) == 1
    assert [share.amount for share in breakdown(terms("per_unit", unit_price=Decimal(3)), Decimal(2))] == [6]
    assert breakdown(terms("per_unit", unit_price=Decimal(3)), Decimal(0)) == []


def test_packages_are_shown_beside_the_free_units() -> None:
    price = terms("package", package_size=Decimal(100), package_price=Decimal(5), free_units=Decimal(100))
    shares = breakdown(price, Decimal(201))

    assert [(share.up_to, share.quantity, share.unit_price, share.amount) for share in shares] == [
        (Decimal(100), 100, Decimal(0), 0),
        (None, 101, None, 10),
    ]


def test_a_negative_quantity_is_a_bug() -> None:
    for price in (terms("per_unit", unit_price=Decimal(1)), terms("volume", tiers=FORMAT)):
        with pytest.raises(AssertionError):
            rate(price, Decimal(-1))
        with pytest.raises(AssertionError):
            amount_micros(price, Decimal(-1))
