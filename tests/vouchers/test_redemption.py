"""A code becomes credit: once, for whom it is meant, and with one answer to everybody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import time_machine
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.billing.models import CreditLot
from apps.core.permissions import Role
from apps.ledger.models import Transfer, Wallet
from apps.ledger.services import CurrencyMismatch
from apps.outbox.models import OutboxEvent
from apps.vouchers import codes
from apps.vouchers import services as vouchers
from apps.vouchers.models import Campaign, Redemption, VoucherCode
from apps.vouchers.services import AlreadyRedeemed, CampaignFull, VoucherInvalid
from tests import build
from tests.build import NOW
from tests.money import books, failing
from tests.threads import at_once

REDEEM, VALIDATE = "/api/v1/billing/vouchers/redeem", "/api/v1/voucher/validate"
LATER = NOW + timedelta(days=1)


def redeem(organization, code, *, now=NOW, actor=None):
    return vouchers.redeem(
        actor=actor or build.actor(organization), organization=organization, code=code, now=now
    )


def wrong_code():
    return codes.generate()


def post(organization, path, code, *, key="k1", secret=None):
    client = build.client(secret or build.api_key(organization, ["billing.top_up"]))
    return client.post(path, {"code": code}, headers={"X-Idempotency-Key": key})


def test_a_code_becomes_promotional_credit_with_an_end(lab):
    campaign = build.campaign("50", credit_days=30, name="Spring")
    code = build.voucher(campaign)

    made = redeem(lab, code.lower(), now=NOW + timedelta(minutes=10))

    lot = CreditLot.objects.get()
    assert (lot.pot, lot.amount_micros, lot.source, lot.reason) == ("promo", 50_000_000, "voucher", "Spring")
    assert lot.expires_at == datetime(2026, 6, 14, 13, tzinfo=UTC), "thirty days, to the end of the hour"
    assert (made.lot, made.ordinal, made.campaign) == (lot, 1, campaign)
    assert books(lab) == {"promo_expense": -50_000_000, "promo_lot": 50_000_000}
    campaign.refresh_from_db()
    assert (campaign.redeemed_count, VoucherCode.objects.get().redeemed_count) == (1, 1)
    row = AuditEvent.objects.get(action="voucher.redeemed")
    assert row.diff == {"campaign": "Spring", "code": f"…{code[-4:]}", "lot": str(lot.id)}
    payload = OutboxEvent.objects.get(event_type="vouchers.voucher_redeemed").payload
    assert (payload["amount"], payload["currency"]) == ("50.00", "USD")
    assert failing() == []


def test_rest_redeems_once_however_often_it_is_asked(lab):
    secret = build.api_key(lab, ["billing.top_up"])
    code = build.voucher(build.campaign("12.5", now=timezone.now()), now=timezone.now())

    first = post(lab, REDEEM, code, secret=secret)
    again = post(lab, REDEEM, code, secret=secret)
    other = post(lab, REDEEM, code, secret=secret, key="k2")

    assert first.status_code == 201
    assert (first.json()["amount"], first.json()["currency"]) == ("12.500000", "USD")
    assert again.json() == first.json()
    assert again["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (409, "voucher_already_redeemed")
    assert CreditLot.objects.count() == 1
    without = build.client(secret).post(REDEEM, {"code": code})
    assert (without.status_code, without.json()["code"]) == (400, "idempotency_key_required")


def test_asking_redeems_nothing(lab):
    code = build.voucher(build.campaign("12.5", now=timezone.now(), credit_days=1), now=timezone.now())

    answer = post(lab, VALIDATE, code).json()

    assert (answer["valid"], answer["voucher_amount"], answer["currency"], answer["error"]) == (
        True, "12.500000", "USD", None,
    )  # fmt: skip
    assert answer["credit_expires_at"] is not None
    refused = post(lab, VALIDATE, wrong_code()).json()
    assert (refused["valid"], refused["code"]) == (False, "voucher_invalid")
    assert {name for name, value in refused.items() if value is None} == {
        "voucher_id", "voucher_amount", "currency", "credit_expires_at",
    }  # fmt: skip
    assert not Redemption.objects.exists()


def not_to_be_redeemed(case, organization):
    """Return a code that this organization cannot redeem, and when it tries."""
    if case == "wrong":
        return wrong_code(), NOW
    if case == "mistyped":
        code = build.voucher(build.campaign())
        return code[:-1] + ("3" if code[-1] == "2" else "2"), NOW
    terms = {
        "expired": {"ends_at": LATER},
        "not yet": {"starts_at": LATER},
        "old organization": {"new_within_days": 19},
        "other domain": {"allowed_domains": ["uni.example"]},
        "exhausted": {"redemptions_max": 1},
    }.get(case, {})
    campaign = build.campaign(**terms)
    code = build.voucher(campaign)
    if case == "ended":
        vouchers.end_campaign(actor=build.actor(), campaign=campaign, reason="tests", now=NOW)
    if case == "void":
        vouchers.void_code(actor=build.actor(), code=VoucherCode.objects.get(), reason="tests", now=NOW)
    if case == "exhausted":
        redeem(build.organization(now=NOW), code)
    if case == "enough for one":
        unique = build.campaign(kind="unique")
        redeem(organization, build.voucher(unique))
        code = build.voucher(unique)
    return code, LATER if case == "expired" else NOW


@pytest.mark.parametrize(
    "case",
    [
        "wrong", "mistyped", "expired", "not yet", "ended", "void", "exhausted", "old organization", "other domain",
        "enough for one",
    ],
)  # fmt: skip
def test_every_other_code_has_the_same_answer_and_does_nothing(lab, case):
    code, at = not_to_be_redeemed(case, lab)
    lots, transfers = CreditLot.objects.count(), Transfer.objects.count()
    secret = build.api_key(lab, ["billing.top_up"])

    with time_machine.travel(at, tick=False):
        answers = [post(lab, path, code, secret=secret) for path in (REDEEM, VALIDATE)]

    assert answers[0].status_code == 404
    body = answers[0].json()
    assert (body["code"], body["details"]) == ("voucher_invalid", {})
    assert body["message"] == str(VoucherInvalid.default_message)
    assert answers[1].json() == {
        "valid": False, "voucher_id": None, "voucher_amount": None, "currency": None, "credit_expires_at": None,
        "code": "voucher_invalid", "error": str(VoucherInvalid.default_message),
    }  # fmt: skip
    assert (CreditLot.objects.count(), Transfer.objects.count()) == (lots, transfers)
    assert Wallet.objects.filter(organization_id=lab.id).exists() == (case == "enough for one")


def test_new_organizations_are_counted_by_the_day(lab):
    code = build.voucher(build.campaign(new_within_days=20))

    assert redeem(lab, code).ordinal == 1


def test_a_verified_address_of_the_domain_opens_it(lab):
    code = build.voucher(build.campaign(allowed_domains=["@Uni.example"], organization_max=9))
    stranger = build.member(lab, user=build.user("ada@uni.example.org"))
    student = build.member(lab, user=build.user("Grace@uni.example"))

    with pytest.raises(VoucherInvalid):
        redeem(lab, code, actor=build.user_actor(stranger, lab))
    assert redeem(lab, code, actor=build.user_actor(student, lab)).redeemed_by_id == student.pk


def test_a_key_stands_for_who_made_it(lab):
    student = build.member(lab, Role.OWNER, user=build.user("grace@uni.example"))
    now = timezone.now()
    code = build.voucher(build.campaign(allowed_domains=["uni.example"], now=now), now=now)
    theirs = build.api_key(lab, ["billing.top_up"], actor=build.user_actor(student, lab))

    assert post(lab, REDEEM, code).status_code == 404
    assert post(lab, REDEEM, code, secret=theirs).status_code == 201
    assert Redemption.objects.get().redeemed_by_id == student.pk


def test_another_currency_is_told_to_whom_nothing_else_stands_against(lab):
    code = build.voucher(build.campaign(currency="EUR"))
    over = build.campaign(currency="EUR", ends_at=LATER)

    with pytest.raises(CurrencyMismatch):
        redeem(lab, code)
    with pytest.raises(VoucherInvalid):
        redeem(lab, build.voucher(over), now=LATER)
    assert not Redemption.objects.exists()


def test_an_organization_redeems_as_many_codes_as_the_campaign_says(lab):
    campaign = build.campaign(kind="unique", organization_max=2)
    made = vouchers.issue_codes(actor=build.actor(), campaign=campaign, count=3, now=NOW)

    assert [redeem(lab, code).ordinal for code in made[:2]] == [1, 2]
    with pytest.raises(VoucherInvalid):
        redeem(lab, made[2])
    with pytest.raises(AlreadyRedeemed):
        redeem(lab, made[0])


def test_two_campaigns_made_at_once_under_one_name_are_one(transactional_db):
    made = at_once(*[partial(build.campaign, name="Spring")] * 2)

    assert sorted(type(one).__name__ for one in made) == ["Campaign", "ValidationFailed"]
    assert (
        Campaign.objects.count() == AuditEvent.objects.filter(action="voucher_campaign.created").count() == 1
    )


def test_24_at_once_on_a_voucher_limited_to_5_get_5(transactional_db):
    campaign = build.campaign("10", redemptions_max=5)
    code = build.voucher(campaign)
    organizations = [build.organization(now=NOW) for _number in range(24)]

    results = at_once(*(partial(redeem, organization, code) for organization in organizations))

    refused = [result for result in results if isinstance(result, VoucherInvalid)]
    assert len(refused) == 19, results
    assert Redemption.objects.count() == CreditLot.objects.count() == 5
    campaign.refresh_from_db()
    assert (campaign.redeemed_count, VoucherCode.objects.get().redeemed_count) == (5, 5)
    assert Wallet.objects.count() == 5, "who was refused left nothing"
    assert failing() == []


def test_one_organization_at_once_redeems_once(transactional_db):
    lab = build.organization("lab", now=NOW)
    code = build.voucher(build.campaign("10", organization_max=9))

    results = at_once(*(partial(redeem, lab, code) for _number in range(6)))

    assert sum(isinstance(result, Redemption) for result in results) == 1, results
    assert sum(isinstance(result, AlreadyRedeemed) for result in results) == 5
    assert CreditLot.objects.count() == 1


def test_codes_are_nowhere_but_in_the_answer(lab):
    code = build.voucher(build.campaign())
    redeem(lab, code)

    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            for form in (code, code.replace("-", "")):
                cursor.execute(
                    f'SELECT count(*) FROM "{table}" AS row WHERE row::text LIKE %s', [f"%{form}%"]
                )
                assert cursor.fetchone()[0] == 0, table


def test_there_are_no_more_codes_than_redemptions(db):
    unique = build.campaign(kind="unique", redemptions_max=3)
    issue = partial(vouchers.issue_codes, actor=build.actor(), now=NOW)

    assert len(issue(campaign=unique, count=2)) == 2
    with pytest.raises(CampaignFull):
        issue(campaign=unique, count=2)
    assert len(issue(campaign=unique, count=1)) == 1
    shared = build.campaign()
    issue(campaign=shared, count=1)
    with pytest.raises(CampaignFull):
        issue(campaign=shared, count=1)
    assert VoucherCode.objects.count() == 4


def test_a_shared_code_that_was_lost_is_replaced_with_what_is_left(lab):
    campaign = build.campaign(redemptions_max=3)
    redeem(lab, build.voucher(campaign))
    vouchers.void_code(actor=build.actor(), code=VoucherCode.objects.get(), reason="leaked", now=NOW)

    second = build.voucher(campaign)

    assert VoucherCode.objects.get(voided_at=None).redemptions_max == 2
    assert redeem(build.organization(now=NOW), second).ordinal == 1
    assert failing() == []


def test_the_database_refuses_more_than_the_limits_and_any_change(lab):
    made = redeem(lab, build.voucher(build.campaign(redemptions_max=1)))
    for refused in (
        lambda: Campaign.objects.update(redeemed_count=2),
        lambda: VoucherCode.objects.update(redeemed_count=2),
        lambda: Redemption.objects.update(ordinal=2),
        lambda: Redemption.objects.filter(pk=made.pk).delete(),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            refused()


def test_the_proof_finds_a_wrong_counter(lab):
    redeem(lab, build.voucher(build.campaign(name="Spring")))
    Campaign.objects.update(redeemed_count=2)

    (check,) = failing()
    assert check.name == "Every campaign counts its redemptions"
    assert check.failures == ("Spring: counted 2, redeemed 1",)
