"""Campaigns in the staff admin: made, told once, reported, ended."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta

import pytest
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.billing import services as billing
from apps.billing.models import Pot
from apps.vouchers import codes, selectors
from apps.vouchers.models import Campaign, Redemption, VoucherCode
from tests import build
from tests.build import NOW
from tests.money import failing
from tests.staff import staff_client
from tests.vouchers.test_redemption import redeem

pytestmark = pytest.mark.django_db
FORM = {
    "name": "Spring", "kind": "unique", "amount": "25.00", "currency": "usd", "redemptions_max": "100",
    "organization_max": "1", "starts_at_0": "2026-05-01", "starts_at_1": "00:00:00", "ends_at_0": "", "ends_at_1": "",
    "credit_days": "30", "new_within_days": "", "allowed_domains": "uni.example\nlab.example",
}  # fmt: skip
REPORTED = ("granted", "spent", "expired", "taken_back", "left")
CONFIRMED = {"csrfmiddlewaretoken": "sent by every form"}


@pytest.fixture
def staff():
    return staff_client()


def test_every_list_and_every_row_opens_and_can_be_searched(staff, lab):
    campaign = build.campaign(name="Spring")
    code = build.voucher(campaign)
    redemption = redeem(lab, code)
    rows = {"campaign": campaign, "vouchercode": redemption.code, "redemption": redemption}
    for name, row in rows.items():
        for query in ("Spring", str(row.id), code, code[-4:]):
            assert staff.get(reverse(f"admin:vouchers_{name}_changelist"), {"q": query}).status_code == 200
        answer = staff.get(reverse(f"admin:vouchers_{name}_change", args=[row.pk]))
        assert answer.status_code == 200, name
        assert code not in answer.text
    found = staff.get(reverse("admin:vouchers_vouchercode_changelist"), {"q": code.lower()})
    assert found.context["cl"].result_count == 1
    other = staff.get(reverse("admin:vouchers_vouchercode_changelist"), {"q": codes.generate()})
    assert other.context["cl"].result_count == 0


def test_a_campaign_is_made_with_its_terms(staff):
    answer = staff.post(reverse("admin:vouchers_campaign_add"), FORM)

    assert answer.status_code == 302, re.findall(r"errorlist.*", answer.text)
    made = Campaign.objects.get()
    assert (made.amount_micros, made.currency, made.allowed_domains) == (
        25_000_000, "USD", ["lab.example", "uni.example"],
    )  # fmt: skip
    assert (made.credit_days, made.new_within_days, made.created_by_label) == (30, None, "staff@example.com")
    assert AuditEvent.objects.get(action="voucher_campaign.created").diff["amount"] == "25.00"


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": "0"},
        {"currency": "XXX"},
        {"redemptions_max": "0"},
        {"ends_at_0": "2026-04-01", "ends_at_1": "00:00"},
        {"allowed_domains": "not a domain"},
        {"name": "Taken"},
    ],
)
def test_wrong_terms_make_nothing(staff, wrong):
    build.campaign(name="Taken")

    answer = staff.post(reverse("admin:vouchers_campaign_add"), FORM | wrong, follow=True)

    assert answer.status_code == 200
    assert Campaign.objects.count() == 1


def test_many_codes_are_a_file_once(staff, lab):
    campaign = build.campaign("25", kind="unique", name="Spring term")

    answer = staff.post(reverse("admin:vouchers_issue_codes", args=[campaign.pk]), {"count": "3"})

    assert answer["Content-Type"].startswith("text/csv")
    assert "no-store" in answer["Cache-Control"]
    assert 'filename="spring-term.csv"' in answer["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["amount"], row["currency"]) for row in rows] == [("25.00", "USD")] * 3
    assert VoucherCode.objects.count() == 3
    assert redeem(lab, rows[1]["code"]).campaign == campaign
    assert AuditEvent.objects.get(action="voucher_campaign.codes_issued").diff == {"count": 3}


def test_one_code_for_all_is_on_a_page_once(staff, lab):
    campaign = build.campaign()

    page = staff.post(reverse("admin:vouchers_issue_codes", args=[campaign.pk]), CONFIRMED).text

    code = re.search(r"(?:[2-9A-Z]{4}-){3}[2-9A-Z]{4}", page)[0]
    assert redeem(lab, code).campaign == campaign
    again = staff.post(reverse("admin:vouchers_issue_codes", args=[campaign.pk]), CONFIRMED).text
    assert "This campaign has one code." in again


def test_a_campaign_ends_and_codes_become_void_with_a_reason(staff):
    campaign = build.campaign()
    build.voucher(campaign)
    code = VoucherCode.objects.get()
    action = {"action": "void_selected", "_selected_action": [code.pk]}
    listed = reverse("admin:vouchers_vouchercode_changelist")

    staff.post(listed, action)
    code.refresh_from_db()
    assert code.voided_at is None, "no reason"
    staff.post(listed, action | {"reason": "Leaked"})
    staff.post(reverse("admin:vouchers_end_campaign", args=[campaign.pk]), {"reason": "Over budget"})

    code.refresh_from_db()
    campaign.refresh_from_db()
    assert code.voided_at is not None
    assert campaign.ended_at is not None
    reasons = AuditEvent.objects.filter(action__in=["voucher_code.voided", "voucher_campaign.ended"])
    assert sorted(reasons.values_list("reason", flat=True)) == ["Leaked", "Over budget"]


def test_the_report_tells_what_became_of_the_credit(staff, lab):
    """One lot is spent in part and expires, one is left, one organization buys afterwards."""
    build.price_book({"unit_price": "2"})
    campaign = build.campaign("10", kind="unique", credit_days=1, redemptions_max=5, name="=Spring")
    other = build.organization("other", now=datetime(2026, 5, 1, tzinfo=UTC))
    redeem(lab, build.voucher(campaign))
    redeem(other, build.voucher(campaign), now=NOW + timedelta(days=2))
    build.voucher(campaign)
    build.credit(other, "5", pot=Pot.PAID, now=NOW + timedelta(days=3))
    build.usage(lab, NOW, NOW + timedelta(hours=2), now=NOW + timedelta(hours=3))
    build.metered(lab, NOW + timedelta(days=2))
    billing.withdraw_credit(
        actor=build.actor(),
        lot_id=Redemption.objects.get(organization=other).lot_id,
        amount_micros=1_500_000,
        reason="Twice",
        now=NOW + timedelta(days=2),
    )

    found = selectors.with_report(Campaign.objects.all()).get()

    assert (found.issued, found.redeemed_count, found.converted) == (3, 2, 1)
    assert {name: getattr(found, f"{name}_micros") for name in REPORTED} == {
        "granted": 20_000_000, "spent": 4_000_000, "expired": 6_000_000, "taken_back": 1_500_000,
        "left": 8_500_000,
    }  # fmt: skip
    listed = staff.post(
        reverse("admin:vouchers_campaign_changelist"),
        {"action": "export_report", "_selected_action": [campaign.pk]},
    )
    assert list(csv.reader(io.StringIO(listed.text))) == [
        ["campaign", "currency", "issued", "redeemed_count", "redemptions_max", "converted",
         "amount", "granted", "spent", "expired", "taken_back", "left"],
        ["'=Spring", "USD", "3", "2", "5", "1", "10.00", "20.00", "4.00", "6.00", "1.50", "8.50"],
    ]  # fmt: skip
    assert failing() == []


def test_an_action_on_very_many_rows_tells_of_the_first(staff, monkeypatch):
    monkeypatch.setattr("apps.core.staff.ROWS_NAMED_MAX", 2)
    campaign = build.campaign(kind="unique")
    for _number in range(5):
        build.voucher(campaign)
    chosen = [str(pk) for pk in VoucherCode.objects.values_list("pk", flat=True)]

    answer = staff.post(
        reverse("admin:vouchers_vouchercode_changelist"),
        {"action": "void_selected", "_selected_action": chosen, "reason": "Leaked"},
        follow=True,
    )

    told = [str(message) for message in answer.context["messages"]]
    assert len(told) == 3
    assert told[-1] == "The same for 3 more rows."
    assert not VoucherCode.objects.filter(voided_at=None).exists()


def test_codes_say_how_they_stand_and_none_are_made_once_a_campaign_is_over(staff, lab):
    over = build.campaign(kind="unique", ends_at=NOW + timedelta(days=1))
    open_still = build.campaign(kind="unique")
    planned = build.campaign(starts_at=datetime(2126, 1, 1, tzinfo=UTC))
    build.voucher(over)
    build.voucher(planned)
    redeem(lab, build.voucher(open_still))
    build.voucher(open_still)

    listed = staff.get(reverse("admin:vouchers_vouchercode_changelist")).context["cl"]
    admin = listed.model_admin
    assert {(code.campaign, admin.state(code)) for code in listed.result_list} == {
        (over, "campaign ended"), (planned, "works from its campaign's start on"), (open_still, "used up"),
        (open_still, "works"),
    }  # fmt: skip

    refused = staff.post(reverse("admin:vouchers_issue_codes", args=[over.pk]), {"count": "1"})
    assert "This campaign has ended" in refused.text
    assert over.codes.count() == 1
    page = staff.get(reverse("admin:vouchers_campaign_change", args=[over.pk])).text
    assert reverse("admin:vouchers_issue_codes", args=[over.pk]) not in page


def test_the_report_is_one_query_whatever_the_number(lab, django_assert_num_queries):
    for _number in range(3):
        redeem(lab, build.voucher(build.campaign()))

    with django_assert_num_queries(1):
        assert len(selectors.with_report(Campaign.objects.all())) == 3
