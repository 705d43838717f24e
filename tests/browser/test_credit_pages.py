"""Credits, statement and quotas: accessible in light and dark, narrow and wide, silent in the console."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.billing.models import Pot
from apps.core.periods import floor_hour
from apps.core.permissions import Role
from tests import build
from tests.browser.conftest import check


@pytest.fixture
def signed_in(open_page, live_server):
    """Open a page as the owner of an organization that has credit, usage and limits."""
    now = timezone.now()
    lab = build.organization("lab", name="Bright Lab", now=now - timedelta(days=40))
    owner = build.member(lab, Role.OWNER)
    build.price_book({"unit_price": "2.49"}, now=now)
    since = floor_hour(now) - timedelta(hours=3)
    build.credit(lab, "2500", now=since, reason="Wire of 3 November")
    build.credit(lab, "50", pot=Pot.PROMO, now=since, reason="Welcome", expires_at=since + timedelta(days=6))
    build.usage(lab, since, since + timedelta(hours=2), now=now, gpus="8")
    build.metered(lab, now)
    build.limit(lab, "members", 1)
    return open_page(user=owner)


def test_credit_is_seen_and_a_code_redeemed_by_keyboard(signed_in):
    page = signed_in
    code = build.voucher(build.campaign("25", name="Spring term", now=timezone.now()), now=timezone.now())
    page.goto("/app/lab/credits")
    check(page)
    page.get_by_label("Voucher code").fill("mistyped")
    page.keyboard.press("Enter")
    expect(page.get_by_text("This code cannot be redeemed.")).to_be_visible()
    check(page)
    page.get_by_label("Voucher code").fill(code.lower().replace("-", " "))
    page.keyboard.press("Enter")
    expect(page.get_by_text("25.00 USD are in your account: Spring term.")).to_be_visible()
    page.get_by_role("link", name="Statement").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Statement")
    check(page)


def test_more_is_asked_for_and_withdrawn(signed_in):
    page = signed_in
    page.goto("/app/lab/quotas")
    check(page)
    page.get_by_label("Quota").select_option("members")
    page.get_by_label("New limit").fill("25")
    page.get_by_label("What for").fill("Five people join in December.")
    page.get_by_role("button", name="Send the request").click()
    expect(page.get_by_text("waits for staff")).to_be_visible()
    check(page)
    page.get_by_role("button", name="Withdraw").click()
    expect(page.get_by_text("withdrawn", exact=True)).to_be_visible()
