"""Expiry against spending at the same instant, and every view of the money telling the same to the micro."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import transaction

from apps.billing import selectors
from apps.billing import services as billing
from apps.billing.models import BillingProgress, Burn, CreditLot, Pot
from apps.core.money import to_micros
from apps.ledger import services as ledger
from apps.ledger.models import Transfer
from apps.metering import services as metering
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
