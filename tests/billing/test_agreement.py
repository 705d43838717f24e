"""Expiry against spending at the same instant, and every view of the money telling the same to the micro."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import transaction

from apps.billing import selectors, statements
from apps.billing import services as billing
from apps.billing.models import BillingProgress, Burn, CreditLot, Pot
from apps.core.money import to_micros
from apps.ledger import services as ledger
from apps.ledger.models import AccountKind, Transfer, TransferKind
from apps.metering import services as metering
from apps.payments import services as payments
from tests import build
from tests.billing.runs import HOUR, at, run
from tests.metering.events import heartbeat
from tests.money import books, failing
from tests.threads import at_once


@pytest.mark.django_db(transaction=True)
def test_expiry_against_spending_at_the_same_instant_takes_nothing_below_zero_and_nothing_twice():
    build.price_book({"unit_price": "2.4"})
    lab = build.organization("lab", now=at(0))
    build.credit(lab, "3", pot=Pot.PROMO, now=at(8), expires_at=at(10))
    build.credit(lab, "1", now=at(8))
    build.usage(lab, at(9), at(10), now=at(10))
    metering.meter_organization(organization_id=lab.id, until=at(10), now=at(10))

    @transaction.atomic
    def expire() -> int:
        book = ledger.open_book(organization_id=lab.id, currency="USD", now=at(10))
        return billing.expire_lots(book=book, until=at(10), now=at(10))

    def spend() -> int:
        return billing.charge_organization(organization_id=lab.id, now=at(10)).micros

    found = at_once(spend, expire, spend, expire)

    assert not [one for one in found if isinstance(one, Exception)]
    assert found[0] + found[2] == 2_400_000
    promo = CreditLot.objects.select_related("account").get(pot=Pot.PROMO)
    burnt = sum(Burn.objects.filter(lot=promo).values_list("amount_micros", flat=True))
    expired = sum(Transfer.objects.filter(kind="expiry").values_list("amount_micros", flat=True))
    # Whoever came first took it; the lot is empty in either case, and what it did not pay was paid otherwise.
    assert (promo.account.balance_micros, burnt + expired) == (0, 3_000_000)
    assert burnt in (0, 2_400_000)
    assert -books(lab)["revenue"] == -2_400_000
    assert failing() == []


def test_balance_statement_transactions_and_proof_agree_at_every_step(db):
    build.price_book({"unit_price": "2.4949494949"})
    lab = build.organization("lab", now=at(0))
    build.credit(lab, "7", pot=Pot.PROMO, now=at(8), expires_at=at(11))
    build.credit(lab, "9.5", now=at(8))
    run(lab, "a", at(8), at(8.1))
    client = build.client(build.api_key(lab, ["billing.read"]))

    for step in range(1, 25):
        now = at(8) + step * HOUR / 4
        build.events(heartbeat("a", now, id=f"beat-{step}"), now=now)
        build.metered(lab, now)

        found = selectors.balance(lab, now=now)
        sums = {
            row["group"]: to_micros(Decimal(row["amount"]))
            for row in client.get("/orgs/lab/transactions/aggregate?group_by=pot").json()["data"]
        }
        rows = client.get("/orgs/lab/transactions?limit=100").json()["data"]
        by_pot = {
            pot: sum(to_micros(Decimal(row["amount"])) for row in rows if row["pot"] == pot) for pot in sums
        }
        assert by_pot == sums
        in_force = found.paid_micros + found.promo_micros - found.receivable_micros
        assert sum(sums.values()) == in_force
        assert found.available_micros == in_force - found.accrued_micros
        # All that was ever used is posted or accrued, and nothing else is.
        used = -sum(to_micros(Decimal(row["amount"])) for row in rows if row["kind"] == "usage")
        price = Decimal("2.4949494949") * step / 4 * 1_000_000
        assert used + found.accrued_micros == int(price.to_integral_value())
        assert failing() == []
    assert BillingProgress.objects.get().charged_until == at(14)


def test_an_invoice_paid_from_credit_moves_both_pots_in_every_view(db):
    build.price_book({"unit_price": "2.5"})
    april = datetime(2026, 4, 2, tzinfo=UTC)
    lab = build.organization("lab", now=april)
    build.usage(lab, april, april + timedelta(hours=4))
    invoice = build.closed(lab, "2026-04").invoice
    book = ledger.open_book(organization_id=lab.id, currency="USD", now=build.NOW)
    billing.open_lot(
        book=book,
        pot=Pot.PAID,
        amount_micros=25_000_000,
        effective_at=april,
        funded_by=AccountKind.BANK,
        kind=TransferKind.TOP_UP,
        source="wire",
        now=build.NOW,
    )
    client = build.client(build.api_key(lab, ["billing.read"]))

    payments.pay_invoice_from_credit(
        actor=build.actor(lab), organization=lab, invoice_id=invoice.id, amount=Decimal(4), now=build.NOW
    )

    def listed(query=""):
        return client.get(f"/orgs/lab/transactions{query}").json()

    def amounts(query=""):
        return sorted((row["kind"], row["pot"], row["amount"]) for row in listed(query)["data"])

    paid, owed = ("invoice_payment", "paid", "-4.000000"), ("invoice_payment", "receivable", "4.000000")
    assert amounts("?kind=invoice_payment") == [paid, owed]
    assert amounts("?pot=paid") == [paid, ("top_up", "paid", "25.000000")]
    assert amounts("?pot=receivable&kind=invoice_payment") == [owed]
    assert len({row["id"] for row in listed()["data"]}) == len(amounts()), "an id names one row"

    # No page ends between the two, and loses one.
    pages, cursor = [], ""
    while cursor is not None:
        page = listed(f"?limit=1&cursor={cursor}" if cursor else "?limit=1")
        pages += page["data"]
        cursor = page["next_cursor"]
    assert pages == listed()["data"]

    sums = client.get("/orgs/lab/transactions/aggregate?group_by=pot").json()["data"]
    found = selectors.balance(lab, now=build.NOW)
    assert sums == [
        {"group": "paid", "amount": "21.000000", "count": 2},
        {"group": "receivable", "amount": "-6.000000", "count": len(amounts("?pot=receivable"))},
    ]
    assert (found.paid_micros, found.receivable_micros) == (21_000_000, 6_000_000)
    month = statements.statement(lab, "2026-05", now=build.NOW)
    assert [(line.kind, line.pot, line.micros) for line in month.lines if line.kind == paid[0]] == [
        ("invoice_payment", "paid", -4_000_000),
        ("invoice_payment", "receivable", 4_000_000),
    ]
    assert month.closing_micros == sum(to_micros(Decimal(row["amount"])) for row in pages) == 15_000_000
    assert failing() == []
