"""The statement: whatever was posted and when, its balances are the books'."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.billing import selectors, statements
from apps.billing.models import Pot
from apps.core.periods import previous_label
from apps.core.permissions import Role
from tests import build
from tests.build import NOW
from tests.depth import examples
from tests.money import books

pytestmark = pytest.mark.django_db
CREDITS = st.tuples(
    st.sampled_from(Pot), st.decimals(Decimal("0.01"), 50, places=6), st.integers(0, 59), st.booleans()
)
PAGE = "/app/lab/statement"
USES = st.tuples(st.integers(0, 59 * 24), st.integers(1, 30))


def words(answer):
    """Return what is to read on a page, each run of space as one."""
    return " ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split())


@settings(max_examples=examples(5), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(CREDITS, max_size=6), st.lists(USES, max_size=4), st.sampled_from(["UTC", "Pacific/Auckland"])
)
def test_months_join_and_end_at_what_the_books_say(lots, uses, zone):
    since = NOW - timedelta(days=60)
    lab = build.organization(now=since, timezone=zone)
    build.price_book({"unit_price": "1.23456789"})
    for pot, amount, day, ends in sorted(lots, key=lambda item: item[2]):
        at = since + timedelta(days=day)
        build.credit(lab, str(amount), pot=pot, now=at, expires_at=at + timedelta(days=7) if ends else None)
    for hour, length in uses:
        start = since + timedelta(hours=hour)
        build.usage(lab, start, min(start + timedelta(hours=length), NOW))
    build.metered(lab)

    label, later = "2026-06", None
    found = []
    while label >= "2026-02":
        found.append(statements.statement(lab, label, now=NOW))
        label = previous_label(label)

    for month in found:
        assert month.closing_micros - month.opening_micros == sum(line.micros for line in month.lines)
        if month.lines:
            assert month.lines[-1].balance_micros == month.closing_micros
        if later is not None:
            assert month.closing_micros == later.opening_micros
        later = month
    own = books(lab)
    assert found[0].closing_micros == sum(
        own.get(kind, 0) for kind in ("paid_lot", "promo_lot", "receivable")
    )
    assert found[-1].opening_micros == 0
    balance = selectors.balance(lab, now=NOW)
    unposted = balance.accrued_micros
    stale = (
        sum(lot.balance_micros for lot in selectors.lot_states(lab.id))
        - balance.paid_micros
        - balance.promo_micros
    )
    assert found[0].closing_micros - stale == balance.available_micros + unposted


def test_a_month_of_usage_is_a_few_queries(django_assert_num_queries):
    lab = build.organization(now=datetime(2026, 5, 1, tzinfo=UTC))
    build.price_book({"unit_price": "1"})
    build.usage(lab, NOW - timedelta(days=3), NOW)
    build.metered(lab)

    with django_assert_num_queries(3):
        found = statements.statement(lab, "2026-05", now=NOW)

    assert [line.transfers for line in found.lines] == [12, 24, 24, 12]


def test_the_statement_runs_from_the_opening_to_the_closing_balance(lab):
    build.price_book({"unit_price": "2"})
    build.credit(lab, "100", now=datetime(2026, 4, 28, 9, tzinfo=UTC), reason="Wire")
    build.usage(lab, datetime(2026, 5, 14, 10, tzinfo=UTC), datetime(2026, 5, 14, 13, tzinfo=UTC))
    build.metered(lab)
    build.credit(lab, "5", pot=Pot.PROMO, now=datetime(2026, 5, 14, 20, tzinfo=UTC), reason="Sorry")
    client = build.browser(build.member(lab, Role.VIEWER))

    with time_machine.travel(NOW, tick=False):
        may = client.get(PAGE)
        april = client.get(PAGE, {"month": "2026-04"})
        nonsense = client.get(PAGE, {"month": "2027-13"})

    found = may.context["statement"]
    assert (found.opening_micros, found.closing_micros) == (100_000_000, 99_000_000)
    assert [(line.kind, line.micros, line.balance_micros, line.transfers) for line in found.lines] == [
        ("grant", 5_000_000, 105_000_000, 1),
        ("usage", -6_000_000, 99_000_000, 3),
    ]
    assert (found.earlier, found.later) == ("2026-04", "")
    assert "Usage 14 May · Paid credit 14 May Paid credit −6.00 99.00" in words(may)
    assert april.context["statement"].closing_micros == 100_000_000
    assert (april.context["statement"].earlier, april.context["statement"].later) == ("", "2026-05")
    assert nonsense.context["statement"].label == "2026-05"


def test_a_long_month_comes_a_page_at_a_time(lab, monkeypatch):
    monkeypatch.setattr("apps.billing.views.STATEMENT_LINES", 2)
    for amount in ("1.00", "2.00", "3.00"):
        build.credit(lab, amount, now=NOW)
    client = build.browser(build.member(lab, Role.VIEWER))

    newest = client.get(f"{PAGE}?month=2026-05")
    oldest = client.get(f"{PAGE}{newest.context['slice'].older}")

    def shown(page):
        return [(line.micros, line.balance_micros) for line in page.context["slice"].rows]

    assert shown(newest) == [(3_000_000, 6_000_000), (2_000_000, 3_000_000)]
    assert shown(oldest) == [(1_000_000, 1_000_000)]
    assert ["Closing balance" in page.text for page in (newest, oldest)] == [True, False]
    assert ["Opening balance" in page.text for page in (newest, oldest)] == [False, True]
    assert oldest.context["slice"].newest == "?month=2026-05"
    for nonsense in ("x", "-1", "9" * 5000, "9999"):
        assert shown(client.get(f"{PAGE}?month=2026-05&before={nonsense}")) == shown(newest)


def test_what_pays_a_debt_is_no_top_up(lab):
    build.price_book({"unit_price": "2"})
    build.usage(lab, NOW - timedelta(hours=2), NOW - timedelta(hours=1))
    build.metered(lab)

    build.credit(lab, "5.00", now=NOW)

    lines = statements.statement(lab, "2026-05", now=NOW).lines
    paid = [(line.kind_label, line.pot_label, line.micros) for line in lines if line.kind == "top_up"]
    assert sorted(paid) == [("Payment", "Owed", 2_000_000), ("Top-up", "Paid credit", 3_000_000)]
