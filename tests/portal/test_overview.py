"""The overview and the explorer: the numbers of the ledger and of metering, cut as asked."""

from __future__ import annotations

import csv
import html
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from itertools import product

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.billing import explorer, usage
from apps.billing.models import BudgetAction, BudgetScope, Pot
from apps.core.permissions import Role
from apps.metering import services as metering
from apps.organizations.models import Organization
from apps.portal import selectors as portal
from apps.pricing import services as pricing
from apps.vouchers import services as vouchers
from tests import build
from tests.billing.runs import at
from tests.metering.events import heartbeat, started

APRIL = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture
def may():
    with time_machine.travel(at(12.5), tick=False):
        yield


@pytest.fixture
def lab(db, may):
    """A customer with 25.00 of credit that used 20.00 on 14 May, 7.47 on 15 May and 4.98 on 10 April."""
    organization = build.organization("lab", name="Bright Lab", now=APRIL)
    build.project(organization, "train")
    build.price_book({"sku": "h100", "unit_price": "2.49"}, {"sku": "a100", "unit_price": "2.00"})
    build.credit(organization, "20", now=APRIL)
    build.credit(organization, "5", pot=Pot.PROMO, now=APRIL)
    april, yesterday = datetime(2026, 4, 10, 8, tzinfo=UTC), datetime(2026, 5, 14, 8, tzinfo=UTC)
    now = at(12.5)
    build.usage(organization, april, april.replace(hour=10), now=now)
    build.usage(organization, yesterday, yesterday.replace(hour=18), sku="a100", project="train", now=now)
    build.usage(organization, at(9), at(12), subject="gpu-box-1", now=now)
    build.metered(organization, until=now)
    return organization


@pytest.fixture
def client(lab):
    return build.browser(build.member(lab, Role.VIEWER))


def words(page):
    """Return the text of a page's content, tags and white space folded."""
    content = page.text.split("<main")[1].split("</main>")[0]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<title>.*?</title>|<[^>]+>", " ", content)))


def test_the_overview_says_what_is_left_and_what_was_spent(client):
    shown = words(client.get("/app/lab"))

    assert "Available −7.45 USD" in shown
    assert "Spent this month 27.47 USD" in shown
    assert "Owed −7.45" in shown
    assert "Nothing runs now, so nothing is spent." in shown


def test_this_month_stands_beside_the_same_stretch_of_the_last(client):
    shown = words(client.get("/app/lab"))

    assert "a100 10.00 20.00 0.00" in shown
    assert "h100 3.00 7.47 4.98" in shown
    assert "Together 27.47 4.98" in shown
    assert "train 10.00 20.00 0.00" in shown
    assert "none 3.00 7.47 4.98" in shown


def test_the_bars_and_their_table_say_the_same(client):
    page = client.get("/app/lab").text

    assert re.findall(r"<title>(\d+ May: [^<]+)</title>", page) == [
        "14 May: a100 20.00 USD",
        "15 May: h100 7.47 USD",
    ]
    assert page.count("url(#hatch)") == 1, "today is not over"
    assert "14 May a100 20.00 15 May h100 7.47" in words(client.get("/app/lab"))


def test_what_first_ran_within_the_hour_has_its_colour(lab, client):
    build.usage(lab, at(12), at(12.4), sku="h200", now=at(12.5))
    build.metered(lab, at(12.5))

    for path in ("/app/lab", "/app/lab/usage?first=2026-04-01&last=2026-05-15"):
        page = client.get(path).text
        assert re.findall(r'class="swatch (series-\d)[^>]+></span>(\w+)', page) == [
            ("series-1", "a100"),
            ("series-2", "h100"),
            ("series-3", "h200"),
        ]


def test_an_organization_without_usage_is_told_what_to_do(lab):
    fresh = build.organization("fresh")

    page = build.browser(build.member(fresh, Role.OWNER)).get("/app/fresh")

    assert "No usage yet" in page.text
    assert 'href="/app/fresh/keys/new"' in page.text


def make_busy(lab):
    """Give the customer all that adds to an overview: prices to come, credit that ends, what runs, holds, budgets."""
    now = at(12.5)
    book = build.price_book({"sku": "h100", "unit_price": "2.49"}, name="Agreed").book
    pricing.assign_book(actor=build.actor(), organization=lab, book=book, effective_from=at(13), now=now)
    build.credit(lab, "100", now=now)
    build.credit(lab, "7", pot=Pot.PROMO, now=now, expires_at=at(72))
    code = build.voucher(build.campaign("50", now=now, credit_days=2), now=now)
    vouchers.redeem(actor=build.actor(lab), organization=lab, code=code, now=now)
    for hour in range(3):
        build.usage(lab, at(6 + hour), at(7 + hour), project="train", now=now)
    for subject in ("box-2", "box-3"):
        build.events(
            started(subject, at(12), organization="lab", gpus=1),
            heartbeat(subject, at(12.49), organization="lab"),
            now=now,
        )
        build.hold(lab, subject, "5", now=now)
    build.budget(lab, "30", now=now)
    build.budget(lab, "10", now=now, scope=BudgetScope.PROJECT, project=lab.projects.get())
    build.metered(lab, until=now)


# Session, user, memberships; what runs and its events; periods, what is not posted; prices, what is charged by them;
# the book, lots, holds; the month, invoices, budgets.
OVERVIEW_QUERIES = 15


@pytest.mark.parametrize("own_prices", [0, 1])
def test_the_overview_takes_as_many_queries_however_busy(client, lab, own_prices, django_assert_num_queries):
    make_busy(lab)
    if own_prices:
        when = {"effective_from": at(13), "now": at(12.5)}
        pricing.override_by_percent(actor=build.actor(), organization=lab, percent=Decimal(-10), **when)

    # What the organization pays instead of its book is one more.
    with django_assert_num_queries(OVERVIEW_QUERIES + own_prices):
        page = client.get("/app/lab")

    assert "Now, per hour 4.98" in words(page)
    assert "Held for what is about to start −7.51" in words(page)
    assert "Promotional 17 May 2026" in words(page)


def test_a_budget_that_blocks_says_so_and_where_to_lift_it(client, lab):
    blocks = {"now": at(12.5), "action": BudgetAction.BLOCK_NEW}
    build.budget(lab, "27.48", name="Enough", **blocks)
    build.budget(lab, "1", name="Only told", now=at(12.5))
    build.budget(lab, "20", name="Training", scope=BudgetScope.PROJECT, project=lab.projects.get(), **blocks)
    owner = build.browser(build.member(lab, Role.OWNER))

    alone = words(client.get("/app/lab"))
    all_of_it = build.budget(lab, "27.47", name="May", **blocks)
    page = owner.get("/app/lab")

    assert "Training is used up: nothing new starts in the project train until 1 June. What runs" in alone
    assert "See the budgets" in alone
    assert alone.count("is used up: nothing new starts") == 1
    assert "The budget May is used up: nothing new starts until 1 June. What runs goes on." in words(page)
    assert f'<a href="/app/lab/budgets/{all_of_it.pk}">Change the budget</a>' in page.text
    assert words(page).count("is used up: nothing new starts") == 2


def test_a_budget_of_a_key_says_which_one(client, lab):
    build.api_key(lab, name="cluster")
    build.usage(lab, at(8), at(9), api_key=lab.api_keys.get().public_id, now=at(12.5))
    build.metered(lab, until=at(12.5))
    key = {"scope": BudgetScope.API_KEY, "credential": lab.api_keys.get()}
    build.budget(lab, "2", name="Cluster", action=BudgetAction.BLOCK_NEW, now=at(12.5), **key)

    said = "The budget Cluster is used up: nothing new starts with the API key cluster until 1 June."
    assert said in words(client.get("/app/lab"))


def test_the_start_page_and_the_overview_say_the_same_of_the_period(lab, client):
    make_busy(lab)
    # It waits to be charged: a late hour of this month, and one of the month before.
    build.usage(lab, at(3), at(3.5), subject="late", now=at(12.5))
    build.usage(lab, datetime(2026, 4, 12, tzinfo=UTC), datetime(2026, 4, 12, 1, tzinfo=UTC), now=at(12.5))
    metering.meter_organization(organization_id=lab.id, until=at(12.5), now=at(12.5))
    Organization.objects.update(is_demonstration=True)

    (tenant,) = portal.demonstration(now=at(12.5)).tenants
    spend = client.get("/app/lab").context["spend"]

    assert tenant.spent_micros == spend.period_micros
    assert spend.period_micros == spend.amount * 10**6, "in UTC the period is the month"
    assert spend.before == Decimal("7.47"), "the late hour of April included"


def test_the_heaviest_grouping_reads_hours_and_no_events(client, lab):
    build.events(
        started("box-2", at(12), organization="lab", gpus=1),
        heartbeat("box-2", at(12.49), organization="lab"),
        now=at(12.5),
    )
    build.metered(lab, until=at(12.5))

    with CaptureQueriesContext(connection) as asked:
        page = client.get("/app/lab/usage?first=2026-05-14&last=2026-05-15&group=resource&interval=hour")

    # Session, user, memberships; periods, what is not posted; prices, what is charged; the sums; the banner's guard.
    assert len(asked) == 9
    assert not any("metering_usageevent" in query["sql"] for query in asked)
    assert "box-2 GPU-hours 0.50 1.25" in words(page)


def test_credit_that_ends_next_is_told(client, lab):
    build.credit(lab, "7", pot=Pot.PROMO, now=at(10), expires_at=at(24 * 3))
    build.credit(lab, "100", now=at(10))
    build.credit(lab, "9", pot=Pot.PROMO, now=at(10), expires_at=at(24 * 2))

    shown = words(client.get("/app/lab"))

    assert "Credit that ends next" in shown
    assert shown.index("Promotional 17 May 2026") < shown.index("Promotional 18 May 2026")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "a100 GPU-hours 10.00 20.00 h100 GPU-hours 3.00 7.47"),
        (
            "first=2026-04-01&last=2026-05-15&group=project&interval=month",
            "train GPU-hours 10.00 20.00 none GPU-hours 5.00 12.45",
        ),
        ("first=2026-05-15&last=2026-05-15&group=resource&interval=hour", "gpu-box-1 GPU-hours 3.00 7.47"),
        ("first=2026-04-10&last=2026-04-10&group=region", "eu GPU-hours 2.00 4.98"),
        ("first=2026-04-11&last=2026-04-12", "No usage in these days"),
        ("first=2027-04-11&last=2027-04-12", "No usage in these days"),
    ],
)
def test_usage_is_cut_as_asked(client, query, said):
    assert said in words(client.get(f"/app/lab/usage?{query}"))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("first=2026-05-15&last=2026-05-14", "This lies before the first day."),
        ("first=2024-05-15&last=2026-05-14", "At most 400 days at once."),
        ("first=2026-04-01&last=2026-05-14&interval=hour", "Hours are shown of at most 14 days."),
        ("first=soon", "Write year, month and day, such as 2026-11-30."),
        ("group=colour", "Choose one of those that are offered now."),
    ],
)
def test_a_range_that_makes_no_sense_says_why(client, query, said):
    answer = client.get(f"/app/lab/usage?{query}")

    assert answer.status_code == 422
    # Beside the field, and where scripts put what was found.
    assert answer.text.count(said) == 2


def test_days_are_those_of_the_organization(client):
    Organization.objects.update(timezone="Pacific/Auckland")

    # 08:00–18:00 UTC on the 14th is 20:00–06:00 in Auckland: four hours of the 14th, six of the 15th.
    page = client.get("/app/lab/usage?first=2026-05-14&last=2026-05-15")

    titles = re.findall(r"<title>(\d+ May: a100 [^<]+)</title>", page.text)
    assert titles == ["14 May: a100 8.00 USD", "15 May: a100 12.00 USD"]


def test_the_file_has_the_same_rows_and_no_formulas(client, lab):
    build.usage(lab, at(6), at(7), subject="=cmd()", now=at(12.5))
    build.metered(lab, until=at(12.5))

    answer = client.get("/app/lab/usage?first=2026-05-15&last=2026-05-15&group=resource&format=csv")
    rows = list(csv.DictReader(StringIO(answer.text)))

    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert 'filename="usage-2026-05-15-2026-05-16.csv"' in answer.headers["Content-Disposition"]
    assert [(row["resource"], row["gpu_hours"], row["amount"]) for row in rows] == [
        ("'=cmd()", "1.000000", "2.490000"),
        ("gpu-box-1", "3.000000", "7.470000"),
    ]


def model_of(rows, group):
    """Add the rows of a file up: the sums of the table, the dearest first, and the bars, five of which have a name."""
    sums, bars = {}, {}
    for row in rows:
        quantity, amount = sums.get((row[group] or "", row["meter"]), (0, 0))
        quantity, amount = quantity + Decimal(row["quantity"]), amount + Decimal(row["amount"])
        sums[row[group] or "", row["meter"]] = quantity, amount
    dearest = sorted(sums, key=lambda place: (-sums[place][1], *place))
    named = {name for name, _meter in [place for place in dearest if place[0]][:5]}
    for row in rows:
        name = row[group] or ""
        name = name if name in named or group == "sku" else explorer.OTHERS
        bars[row["start"], name] = bars.get((row["start"], name), 0) + Decimal(row["amount"])
    return [(*place, *sums[place]) for place in dearest], bars


def test_the_page_adds_up_what_the_file_has_to_the_digit(lab):
    now = at(12.5)
    make_busy(lab)
    for number in range(7):
        # Thirds of an hour's price, so that every cell is rounded.
        end = at(11) + timedelta(seconds=601 + 97 * number)
        build.usage(lab, at(11), end, subject=f"odd-{number}", project="train", region=f"r{number}", now=now)
    build.metered(lab, until=now)
    seen = 0

    for group, interval in product(usage.GROUPS, ("day", "hour", "month")):
        query = usage.UsageQuery(start=at(-200), end=now, group_by=(group,), interval=interval)
        rows = usage.usage_with_amounts(lab, query, now=now)
        found = explorer.explore(lab, start=query.start, end=now, group=group, interval=interval, now=now)
        table, bars = model_of(rows, group)

        assert [(row.name, row.meter, row.quantity, row.amount) for row in found.rows] == table
        assert found.amount == sum(row[-1] for row in table)
        columns = [column for column in found.columns if column.amounts]
        starts = sorted({start for start, _name in bars})
        assert [
            {(start, name): amount for name, amount in column.amounts.items()}
            for start, column in zip(starts, columns, strict=True)
        ] == [{place: bars[place] for place in bars if place[0] == start} for start in starts]
        seen += len(bars)

    assert seen > 100


def test_the_statement_adds_up_to_the_balance(client):
    answer = client.get("/app/lab/statement")

    found = answer.context["statement"]
    assert found.opening_micros + sum(line.micros for line in found.lines) == found.closing_micros
    assert "Closing balance −7.45" in words(answer)
    april = words(client.get("/app/lab/statement?month=2026-04"))
    assert "Top-up tests" in april
    assert "Promotional credit tests" in april
    assert "Closing balance 20.02" in april


def test_nothing_of_another_organization_is_counted(lab):
    other = build.organization("other", now=APRIL)
    client = build.browser(build.member(other, Role.OWNER))

    assert "No usage in these days" in words(client.get("/app/other/usage"))
    assert "Nothing has moved yet" in words(client.get("/app/other/statement"))
    assert "0.00 USD" in words(client.get("/app/other"))
