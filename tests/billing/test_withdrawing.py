"""Staff give credit, and take it back: never more than is unspent, once for each form, in sight of everybody."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.billing import reports, selectors
from apps.billing import services as billing
from apps.billing.models import CreditLot, Pot
from apps.billing.statements import statement
from apps.core.errors import ValidationFailed
from apps.ledger.models import Transfer
from apps.ledger.services import AccountKind
from apps.outbox.models import OutboxEvent
from tests import build
from tests.billing.runs import HOUR, at, run
from tests.money import books, failing
from tests.staff import staff_client
from tests.threads import at_once


@pytest.fixture
def prices(db):
    build.price_book({"unit_price": "2.4"})


def take_back(lab, amount=None, *, lot=None, now=None, attempt=None) -> int:
    return billing.withdraw_credit(
        actor=build.actor(),
        lot_id=(lot or CreditLot.objects.get()).id,
        amount_micros=amount,
        reason="Typed one zero too many",
        attempt_id=attempt,
        now=now or at(9),
    )


@pytest.mark.parametrize(("pot", "account"), [(Pot.PAID, "bank"), (Pot.PROMO, "promo_expense")])
def test_a_part_goes_back_to_where_it_was_given_from(lab, pot, account):
    build.credit(lab, "100", pot=pot, now=at(9))

    assert take_back(lab, 90_000_000) == 90_000_000

    assert books(lab) == {f"{pot}_lot": 10_000_000, account: -10_000_000}
    (line,) = [one for one in statement(lab, "2026-05", now=at(10)).lines if one.micros < 0]
    assert (line.kind_label, line.micros, line.reason) == (
        "Correction", -90_000_000, "Typed one zero too many",
    )  # fmt: skip
    row = AuditEvent.objects.get(action="credit.taken_back")
    assert (row.diff["amount"], row.diff["left"], row.reason) == ("90.00", "10.00", "Typed one zero too many")
    assert OutboxEvent.objects.get(event_type="billing.credit_taken_back").payload["amount"] == "90.00"
    assert failing() == []


def test_usage_that_is_not_posted_yet_counts_as_spent(prices, lab):
    build.credit(lab, "10", now=at(9))
    run(lab, "a", at(9), at(12))
    build.metered(lab, at(9.5))

    with pytest.raises(billing.CreditSpent) as refused:
        take_back(lab, 8_800_001, now=at(9.5))
    assert refused.value.details == {"left": "8.80"}
    assert not Transfer.objects.filter(kind="reversal").exists()

    assert take_back(lab, now=at(9.5)) == 8_800_000
    lab.refresh_from_db()
    assert (selectors.balance(lab, now=at(9.5)).available_micros, lab.billing_state) == (0, "depleted")
    with pytest.raises(billing.CreditSpent):
        take_back(lab, now=at(9.5))
    assert failing() == []


@pytest.mark.parametrize("amount", [0, -1])
def test_nothing_or_less_is_refused(lab, amount):
    build.credit(lab, "10", now=at(9))

    with pytest.raises(ValidationFailed):
        take_back(lab, amount)


def test_what_was_paid_by_card_is_refunded_instead(lab):
    billing.receive_payment(
        actor=build.actor(lab),
        organization_id=lab.id,
        currency="USD",
        payment_id=uuid4(),
        amount_micros=5_000_000,
        funded_by=AccountKind.CLEARING,
        source="top_up",
        reason="Payment by card",
        reference="pi_1",
        now=at(9),
    )

    with pytest.raises(billing.CreditNotGranted):
        take_back(lab)
    assert books(lab) == {"clearing": -5_000_000, "paid_lot": 5_000_000}


@pytest.mark.django_db(transaction=True)
def test_taking_back_against_spending_at_the_same_instant_takes_each_micro_once():
    build.price_book({"unit_price": "2.4"})
    lab = build.organization("lab", now=at(0))
    build.credit(lab, "3", now=at(8))
    build.usage(lab, at(9), at(10), now=at(10))

    found = at_once(
        lambda: build.metered(lab, at(10)),
        lambda: take_back(lab, now=at(10)),
        lambda: take_back(lab, now=at(10)),
    )

    taken = [one for one in found[1:] if isinstance(one, int)]
    assert [type(one) for one in found[1:] if not isinstance(one, int)] == [billing.CreditSpent]
    # Whoever looks before the usage is counted takes all; it is owed then.
    owed = books(lab).get("receivable", 0)
    assert (taken, owed) in [([600_000], 0), ([3_000_000], -2_400_000)]
    assert failing() == []


# --- the pages


def test_staff_grant_and_take_back_once_for_each_form(lab):
    staff = staff_client()
    grant = reverse("admin:billing_grant_credit", args=[lab.pk])
    page = staff.get(grant)
    sent = {
        "pot": "promo", "amount": "25", "priority": "50", "reason": "Sorry", "expires_at": "2031-01-31 00:00",
        "attempt": page.context["form"]["attempt"].value(),
    }  # fmt: skip

    assert staff.post(grant, sent).status_code == 302
    assert "This credit was granted already." in staff.post(grant, sent).text
    lot = CreditLot.objects.get()
    assert (lot.amount_micros, lot.expires_at) == (25_000_000, datetime(2031, 1, 31, tzinfo=UTC))

    back = reverse("admin:billing_take_credit_back", args=[lot.pk])
    assert "25.00 USD are left of this credit. It was given for: Sorry" in staff.get(back).text
    sent = {"amount": "5", "reason": "Too much", "attempt": str(uuid4())}
    assert "Fill this in." in staff.post(back, sent | {"reason": ""}).text
    assert staff.post(back, sent).status_code == 302
    assert "This was taken back already." in staff.post(back, sent).text
    assert "Less than that is left" in staff.post(back, sent | {"amount": "21", "attempt": str(uuid4())}).text
    assert selectors.balance(lab, now=datetime.now(UTC)).available_micros == 20_000_000
    assert AuditEvent.objects.get(action="credit.taken_back").actor_label == "staff@example.com"


def test_the_report_carries_each_month_to_the_next(prices, lab):
    april = datetime(2026, 4, 30, 12, tzinfo=UTC)
    other = build.organization("other", now=april)
    build.credit(lab, "100", now=april)
    build.credit(other, "7", pot=Pot.PROMO, now=april, expires_at=at(10))
    build.credit(lab, "5", now=at(8))
    run(lab, "a", at(8), at(12))
    build.metered(lab, at(10))
    build.metered(other, at(10))
    take_back(lab, 2_000_000, lot=CreditLot.objects.filter(organization=lab).latest("created_at"))
    build.credit(other, "3", pot=Pot.PROMO, now=at(11), expires_at=at(11) + 100 * 24 * HOUR)

    months = reports.credit_by_month(now=at(12))

    told = {(row.label, row.pot): row for row in months}
    may = told["2026-05", "paid"]
    assert (may.opening_micros, may.closing_micros) == (100_000_000, 98_200_000)
    assert {name: micros for name, micros in may.moved.items() if micros} == {
        "came_in": 5_000_000, "used": -4_800_000, "corrected": -2_000_000,
    }  # fmt: skip
    promo = told["2026-05", "promo"]
    assert (promo.opening_micros, promo.moved["expired"], promo.closing_micros) == (
        7_000_000, -7_000_000, 3_000_000,
    )  # fmt: skip
    assert told["2026-04", "paid"].opening_micros == 0
    assert len(months) == 4, "nothing before there was anything"
    assert [(end.label, end.pot, end.lots, end.micros) for end in reports.credit_ending(now=at(12))] == [
        ("2026-08", "promo", 1, 3_000_000)
    ]

    staff = staff_client()
    page = reverse("admin:billing_credit_by_month")
    assert "Credit by month" in staff.get(reverse("admin:billing_creditlot_changelist")).text
    assert staff.get(page).status_code == 200
    rows = list(csv.DictReader(io.StringIO(staff.get(page, {"format": "csv"}).text)))
    assert all(
        set(row) == {"month", "currency", "pot", "opening", *reports.COLUMNS, "closing"} for row in rows
    )
    assert [row["closing"] for row in rows[:1]] == ["98.20"]
