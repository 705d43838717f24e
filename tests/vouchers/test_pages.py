"""The pages of credit: what is left in which order, and codes that add to it."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import time_machine
from django.utils import timezone

from apps.billing.models import Pot
from apps.core.permissions import Role
from apps.vouchers.models import Redemption
from apps.vouchers.services import AlreadyRedeemed, VoucherInvalid
from tests import build
from tests.build import NOW

CREDITS = "/app/lab/credits"


def text_of(answer):
    """Return what is to read on a page, each run of space as one."""
    return " ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split())


@pytest.fixture
def owner(lab):
    return build.member(lab, Role.OWNER)


def test_lots_stand_in_the_order_in_which_they_burn(lab, owner):
    build.credit(lab, "10", reason="Paid in")
    build.credit(lab, "20", pot=Pot.PROMO, reason="Later", expires_at=NOW + timedelta(days=60))
    build.credit(lab, "5", pot=Pot.PROMO, reason="Sooner", expires_at=NOW + timedelta(days=9))
    build.credit(lab, "1", pot=Pot.PROMO, reason="First", priority=1)
    build.credit(lab, "3", pot=Pot.PROMO, reason="Over", expires_at=NOW + timedelta(hours=1))

    with time_machine.travel(NOW + timedelta(hours=2), tick=False):
        answer = build.browser(owner).get(CREDITS)

    credit = answer.context["credit"]
    assert [(row.place, row.lot.reason, row.state) for row in credit.rows] == [
        (1, "First", "in_force"),
        (2, "Sooner", "ends_soon"),
        (3, "Later", "in_force"),
        (4, "Paid in", "in_force"),
    ]
    assert [lot.reason for lot in credit.past] == ["Over"]
    assert (credit.paid_micros, credit.promo_micros, credit.ends_soon_micros) == (
        10_000_000, 26_000_000, 5_000_000,
    )  # fmt: skip
    assert "1. Promotional First 1.00 1.00 in force never" in text_of(answer)


def test_a_code_is_redeemed_on_the_page(lab, owner):
    code = build.voucher(build.campaign("25", name="Spring", now=timezone.now()), now=timezone.now())
    client = build.browser(owner)

    answer = client.post(CREDITS, {"code": code.lower()}, follow=True)

    assert answer.redirect_chain == [(CREDITS, 302)]
    assert "25.00 USD are in your account: Spring." in text_of(answer)
    assert "1. Promotional Spring 25.00" in text_of(answer)
    again = client.post(CREDITS, {"code": code})
    assert again.status_code == 422
    assert again.context["form"].errors == {"code": [str(AlreadyRedeemed.default_message)]}
    assert Redemption.objects.get().redeemed_by == owner


def test_a_code_of_another_currency_is_told_beside_its_field(lab, owner):
    code = build.voucher(build.campaign(currency="EUR", now=timezone.now()), now=timezone.now())

    answer = build.browser(owner).post(CREDITS, {"code": code})

    assert answer.status_code == 422
    assert answer.context["form"].errors == {
        "code": ["This code gives EUR; this organization is billed in USD."]
    }


def test_a_wrong_code_is_told_beside_its_field(lab, owner):
    answer = build.browser(owner).post(CREDITS, {"code": "nonsense"})

    assert answer.status_code == 422
    assert answer.context["form"].errors == {"code": [str(VoucherInvalid.default_message)]}
    assert 'value="nonsense"' in answer.content.decode()


def test_guesses_are_limited_on_the_page_and_over_rest(lab, owner, limited, slowly):
    good = build.voucher(build.campaign(now=timezone.now()), now=timezone.now())
    client = build.browser(owner)
    secret = build.api_key(lab, ["billing.top_up"])

    def post(number, code="wrong"):
        return build.client(secret).post(
            "/api/v1/billing/vouchers/redeem", {"code": code}, headers={"X-Idempotency-Key": f"k{number}"}
        )

    assert [client.post(CREDITS, {"code": "wrong"}).status_code for _number in range(6)] == [422] * 6
    assert "Too many attempts." in text_of(client.post(CREDITS, {"code": good}))
    assert [post(number).status_code for number in range(5)] == [404] * 5
    refused = post(6, good)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 3000 < int(refused["Retry-After"]) <= 3600
    assert not Redemption.objects.exists()
    asked = build.client(secret).post("/api/v1/voucher/validate", {"code": good})
    assert asked.status_code == 429


def test_who_only_reads_sees_no_form(lab):
    answer = build.browser(build.member(lab, Role.VIEWER)).get(CREDITS)

    assert answer.status_code == 200
    assert "Redeem" not in re.findall(r"<button[^>]*>([^<]*)", answer.content.decode())
