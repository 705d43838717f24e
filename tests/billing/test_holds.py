"""Holds: credit reserved before something starts, used up by its own usage, and never left behind."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.audit.models import AuditEvent
from apps.billing import selectors
from apps.billing.models import Hold
from apps.billing.services import InsufficientCredit, SpendingSuspended
from apps.core.errors import ValidationFailed
from apps.ledger.models import Transfer, Wallet
from apps.organizations.models import Organization
from apps.organizations.services import OrganizationSuspended
from apps.outbox.models import OutboxEvent
from tests import build
from tests.billing.runs import HOUR, at, run, stop
from tests.metering.events import started, stopped
from tests.threads import at_once


@pytest.fixture(autouse=True)
def prices(db):
    return build.price_book({"sku": "h100", "unit_price": "2.4"})


def stands(lab, now):
    """Return what is available and what is held, in micros."""
    found = selectors.balance(lab, now=now)
    return found.available_micros, found.held_micros


def states():
    return list(Hold.objects.order_by("created_at", "id").values_list("subject", "release"))


def test_a_hold_reserves_and_posts_nothing(lab):
    build.credit(lab, "10", now=at(9))
    posted = Transfer.objects.count()

    hold = build.hold(lab, "a", "4", now=at(9))

    assert stands(lab, at(9)) == (6_000_000, 4_000_000)
    assert Transfer.objects.count() == posted
    assert AuditEvent.objects.get(action="hold.placed").target_id == str(hold.id)
    event = OutboxEvent.objects.get(event_type="billing.hold_placed")
    assert (event.payload["subject"], event.payload["amount"]) == ("a", "4.00")


def test_asking_again_returns_the_live_hold_as_it_is(lab):
    build.credit(lab, "10", now=at(9))

    first = build.hold(lab, "a", "4", now=at(9))
    again = build.hold(lab, "a", "7", now=at(9.5))

    assert (again.id, again.amount_micros) == (first.id, 4_000_000)
    assert Hold.objects.count() == 1
    assert OutboxEvent.objects.filter(event_type="billing.hold_placed").count() == 1


def test_what_is_not_available_cannot_be_held_and_nothing_is_written(lab):
    build.credit(lab, "10", now=at(9))
    build.hold(lab, "a", "6", now=at(9))

    with pytest.raises(InsufficientCredit) as refusal:
        build.hold(lab, "b", "4.000001", now=at(9))

    assert refusal.value.details == {"available": "4.00", "missing": "0.000001", "currency": "USD"}
    assert states() == [("a", "")]
    assert OutboxEvent.objects.filter(event_type="billing.hold_placed").count() == 1


def test_a_refusal_opens_no_book(lab):
    with pytest.raises(InsufficientCredit):
        build.hold(lab, "a", "1", now=at(9))

    assert not Wallet.objects.exists()


@pytest.mark.parametrize(
    ("change", "refusal"),
    [({"status": "suspended"}, OrganizationSuspended), ({"billing_state": "suspended"}, SpendingSuspended)],
)
def test_a_suspended_organization_holds_nothing(lab, change, refusal):
    build.credit(lab, "10", now=at(9))
    # Somebody else's write, after the request has read the organization.
    Organization.objects.filter(pk=lab.pk).update(**change)

    with pytest.raises(refusal):
        build.hold(lab, "a", "1", now=at(9))
    assert not Hold.objects.exists()


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("subject", {"subject": ""}),
        ("source", {"source": "s" * 256}),
        ("amount", {"amount": "0"}),
        ("expires_at", {"expires_at": at(9)}),
        ("expires_at", {"expires_at": at(9) + timedelta(days=31, seconds=1)}),
    ],
)
def test_what_cannot_be_is_refused(lab, field, change):
    build.credit(lab, "10", now=at(9))

    with pytest.raises(ValidationFailed) as refusal:
        build.hold(lab, **{"subject": "a", "amount": "1", "now": at(9), **change})

    assert [error.path for error in refusal.value.fields] == [field]


def test_the_allocations_own_usage_uses_the_hold_up_whether_posted_or_not(lab):
    build.credit(lab, "10", now=at(9))
    build.hold(lab, "a", "4", now=at(9))
    run(lab, "a", at(9), at(12))
    build.usage(lab, at(9), at(10), gpus="0.5")

    build.metered(lab, at(9.5))  # 1.20 of its own, 1.20 of the other's whole interval still open
    assert stands(lab, at(9.5)) == (10_000_000 - 4_000_000 - 600_000, 4_000_000 - 1_200_000)

    build.metered(lab, at(10.5))  # 3.60 of its own; the first hour is posted.
    assert stands(lab, at(10.5)) == (10_000_000 - 4_000_000 - 1_200_000, 400_000)

    build.metered(lab, at(11.5))  # 6.00 of its own, so the hold is used up.
    assert stands(lab, at(11.5)) == (10_000_000 - 6_000_000 - 1_200_000, 0)


def test_usage_before_the_holds_hour_does_not_use_it(lab):
    build.credit(lab, "10", now=at(8))
    run(lab, "a", at(8), at(12))
    build.metered(lab, at(9.5))

    build.hold(lab, "a", "4", now=at(9.5))

    # 3.60 are used: 2.40 before the hold's hour, and 1.20 in it, which are not reserved twice.
    assert stands(lab, at(9.5)) == (10_000_000 - 3_600_000 - 2_800_000, 2_800_000)


def test_a_stop_releases_once_its_usage_is_counted(lab):
    build.credit(lab, "10", now=at(9))
    build.hold(lab, "a", "4", now=at(9))
    build.events(started("a", at(9), gpus=1), stopped("a", at(9.5)), now=at(9.5))
    assert stands(lab, at(9.5)) == (6_000_000, 4_000_000)

    build.metered(lab, at(9.5))

    assert stands(lab, at(9.5)) == (8_800_000, 0)
    assert states() == [("a", "stopped")]
    assert OutboxEvent.objects.get(event_type="billing.hold_released").payload["release"] == "stopped"


def test_a_stop_before_the_hold_was_made_means_nothing(lab):
    build.credit(lab, "10", now=at(8))
    build.events(started("a", at(8), gpus=1), stopped("a", at(8.5)), now=at(9))
    build.hold(lab, "a", "4", now=at(9))

    build.metered(lab, at(9.5))

    assert states() == [("a", "")]


def test_an_allocation_that_starts_again_right_after_its_stop_gets_a_new_hold(lab):
    build.credit(lab, "10", now=at(9))
    build.hold(lab, "a", "4", now=at(9))
    build.events(started("a", at(9), gpus=1), stopped("a", at(9.5)), now=at(9.5))

    again = build.hold(lab, "a", "3", now=at(9.5))
    build.metered(lab, at(9.75))

    assert again.amount_micros == 3_000_000
    assert states() == [("a", "stopped"), ("a", "")]
    # What it used in the hold's hour, before the hold, is not reserved again.
    assert stands(lab, at(9.75)) == (10_000_000 - 1_200_000 - 1_800_000, 1_800_000)


def test_time_releases_at_the_instant_and_the_tick_writes_it_down(lab):
    build.credit(lab, "10", now=at(9))
    build.hold(lab, "a", "4", now=at(9), expires_at=at(10))
    assert stands(lab, at(10) - timedelta(microseconds=1)) == (6_000_000, 4_000_000)

    assert stands(lab, at(10)) == (10_000_000, 0)
    assert states() == [("a", "")]

    build.metered(lab, at(10))
    assert states() == [("a", "expired")]


def test_a_released_or_expired_name_can_be_held_again(lab):
    build.credit(lab, "10", now=at(9))
    build.hold(lab, "a", "4", now=at(9), expires_at=at(10))

    build.hold(lab, "a", "9", now=at(10))

    assert states() == [("a", "expired"), ("a", "")]


# --- at the same time


@pytest.mark.django_db(transaction=True)
def test_twenty_launches_at_once_cannot_spend_the_same_credit():
    lab = build.organization("lab", now=at(1))
    build.credit(lab, "10", now=at(9))

    found = at_once(
        *(lambda number=number: build.hold(lab, f"a{number}", "1", now=at(9)) for number in range(20))
    )

    assert sorted(type(one).__name__ for one in found) == ["Hold"] * 10 + ["InsufficientCredit"] * 10
    assert Hold.objects.count() == 10
    assert stands(lab, at(9)) == (0, 10_000_000)


@pytest.mark.django_db(transaction=True)
def test_one_allocation_asking_twice_at_once_holds_once():
    lab = build.organization("lab", now=at(1))
    build.credit(lab, "10", now=at(9))

    found = at_once(*[lambda: build.hold(lab, "a", "6", now=at(9))] * 2)

    assert found[0] == found[1]
    assert Hold.objects.count() == 1


# --- over HTTP


@pytest.fixture
def provisioner(lab):
    build.credit(lab, "10")
    return build.client(build.integration(["holds:write"]))


def body(**change):
    return {
        "source": "prov",
        "subject": "a",
        "amount": "2.50",
        "expires_at": (build.timezone.now() + HOUR).isoformat(),
        **change,
    }


def test_an_integration_places_reads_and_releases(lab, provisioner):
    sent = body()

    made = provisioner.post("/orgs/lab/holds", sent, headers={"Idempotency-Key": "1"})
    again = provisioner.post("/orgs/lab/holds", sent, headers={"Idempotency-Key": "2"})
    listed = provisioner.get("/orgs/lab/holds?state=live").json()["data"]
    path = f"/orgs/lab/holds/{made.json()['id']}"
    released = [provisioner.delete(path).status_code for _time in range(2)]

    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json() == again.json() == listed[0]
    assert (made.json()["remaining"], made.json()["state"]) == ("2.500000", "live")
    assert released == [204, 204]
    assert provisioner.get(path).json()["state"] == "cancelled"
    assert provisioner.get("/orgs/lab/holds?state=live").json()["data"] == []
    assert AuditEvent.objects.filter(action="hold.released").count() == 1


def test_over_http_a_key_is_required_and_too_little_credit_is_402(lab, provisioner):
    without = provisioner.post("/orgs/lab/holds", body())
    refused = provisioner.post("/orgs/lab/holds", body(amount="10.01"), headers={"Idempotency-Key": "1"})
    finer = provisioner.post("/orgs/lab/holds", body(amount="0.0000001"), headers={"Idempotency-Key": "2"})

    assert (without.status_code, without.json()["code"]) == (400, "idempotency_key_required")
    assert (refused.status_code, refused.json()["code"]) == (402, "insufficient_credit")
    assert refused.json()["details"]["missing"] == "0.01"
    assert finer.status_code == 422


def test_members_see_holds_and_the_balance_says_what_is_held(lab, provisioner):
    provisioner.post("/orgs/lab/holds", body(), headers={"Idempotency-Key": "1"})
    reader = build.client(build.api_key(lab, ["billing.read"]))

    assert reader.get("/orgs/lab/balance").json()["held"] == "2.500000"
    assert [row["subject"] for row in reader.get("/orgs/lab/holds").json()["data"]] == ["a"]
    assert reader.post("/orgs/lab/holds", body(), headers={"Idempotency-Key": "9"}).status_code == 403


def test_another_organizations_hold_is_not_found(lab, provisioner):
    hold = build.hold(lab, "a", "1", now=build.timezone.now())
    build.organization("other")

    assert provisioner.get(f"/orgs/other/holds/{hold.id}").status_code == 404
    assert provisioner.delete(f"/orgs/other/holds/{hold.id}").status_code == 404


def test_stop_of_a_running_allocation_is_found_among_others(lab):
    build.credit(lab, "10", now=at(9))
    for subject in ("a", "b"):
        build.hold(lab, subject, "2", now=at(9))
        run(lab, subject, at(9), at(12))
    stop(lab, "a", at(9.5))

    build.metered(lab, at(10))

    assert states() == [("a", "stopped"), ("b", "")]
