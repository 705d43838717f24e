"""Where an organization stands between healthy and suspended: each change once, with its mail, event and dates."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import time_machine
from django.db import IntegrityError, transaction

from apps.audit.models import AuditEvent
from apps.billing import ladders, selectors
from apps.billing import services as billing
from apps.billing.models import BillingTransition, CreditLot, Pot
from apps.billing.services import NotPostpaid
from apps.billing.states import DATA_KEPT
from apps.core.errors import ValidationFailed
from apps.metering import services as metering
from apps.notifications.models import Mail
from apps.notifications.rendering import render
from apps.organizations.models import BillingState
from apps.outbox.models import OutboxEvent
from apps.quotas import services as quotas
from tests import build
from tests.billing.runs import HOUR, at, run, stop
from tests.metering.events import heartbeat
from tests.threads import at_once


@pytest.fixture(autouse=True)
def prices(db):
    return build.price_book({"sku": "h100", "unit_price": "2.4"})


@pytest.fixture
def lab(lab):
    lab.billing_email = "money@lab.example"
    lab.save()
    return lab


def steps(organization) -> list[tuple[str, str]]:
    rows = BillingTransition.objects.filter(organization=organization).order_by("number")
    return list(rows.values_list("before", "after"))


def mails() -> list[tuple[str, str]]:
    rows = Mail.objects.filter(template="billing/mail/state").order_by("created_at", "pk")
    return [(row.recipient, render(row.template, row.context).subject) for row in rows]


def events(kind: str) -> list[dict]:
    rows = OutboxEvent.objects.filter(event_type=f"billing.{kind}").order_by("pk")
    return [row.payload for row in rows]


def state(organization) -> str:
    organization.refresh_from_db()
    return organization.billing_state


def test_credit_that_lasts_a_day_is_low_and_says_when_it_ends(lab):
    build.credit(lab, "60", now=at(9))
    run(lab, "a", at(9), at(12))
    build.metered(lab, at(9.5))

    # 58.80 at 2.40 an hour: 24 hours and a half.
    assert (state(lab), steps(lab), mails()) == ("healthy", [], [])

    build.metered(lab, at(10))

    assert (state(lab), steps(lab)) == ("low", [("healthy", "low")])
    assert mails() == [("money@lab.example", "The credit of lab is running low")]
    (event,) = events("state_changed")
    ends = at(10) + timedelta(hours=24)
    assert (event["before"], event["after"], event["available"]) == ("healthy", "low", "57.60")
    assert event["runway_ends_at"] == ends.isoformat()
    # The free plan has an hour of grace.
    assert event["stop_at"] == (ends + HOUR).isoformat()
    row = AuditEvent.objects.get(action="billing_state.changed")
    assert (row.diff["billing_state"], row.organization_id) == (["healthy", "low"], lab.id)


def test_one_notice_until_credit_comes_in(lab):
    build.credit(lab, "30", now=at(9))
    run(lab, "a", at(9), at(12))
    for hour in (9.5, 10, 10.5):
        build.metered(lab, at(hour))
    stop(lab, "a", at(10.5))
    build.metered(lab, at(11))  # Nothing runs, but nothing came in either.

    assert (state(lab), len(mails())) == ("low", 1)

    build.credit(lab, "0.01", now=at(11))

    assert (state(lab), steps(lab)) == ("healthy", [("healthy", "low"), ("low", "healthy")])
    assert mails()[-1] == ("money@lab.example", "The credit of lab is no longer low")


def test_the_amount_to_be_warned_at_counts_without_anything_running(lab):
    build.credit(lab, "30", now=at(9))

    billing.set_warning(
        actor=build.actor(lab), organization=lab, warn_below_micros=30_000_000, reason="tests", now=at(9)
    )

    assert state(lab) == "low"


def deplete(lab) -> None:
    """Let one allocation use up 2.40 by ten o'clock; it runs on."""
    build.credit(lab, "2.4", now=at(9))
    run(lab, "a", at(9), at(12))
    build.metered(lab, at(9.5))
    build.metered(lab, at(10))


def test_without_credit_new_usage_is_blocked_and_the_dates_are_told(lab):
    deplete(lab)

    assert (state(lab), steps(lab)[-1]) == ("depleted", ("low", "depleted"))
    assert mails()[-1][1] == "The credit of lab is used up"
    assert events("stop_requested") == []
    mail = Mail.objects.filter(template="billing/mail/state").latest("created_at", "pk")
    text = render(mail.template, mail.context).text
    assert "15 May 2026, 11:00 UTC: what still runs is stopped" in text
    assert "14 Jun 2026, 11:00 UTC: its data is no longer kept" in text


def test_after_the_grace_each_running_resource_is_asked_to_stop_once(lab):
    deplete(lab)
    run(lab, "b", at(10.1), at(12), gpus=2)
    build.metered(lab, at(10.9))
    assert (state(lab), events("stop_requested")) == ("depleted", [])

    build.metered(lab, at(11))
    build.metered(lab, at(11.1))

    assert state(lab) == "suspended"
    kept = (at(11) + DATA_KEPT).isoformat()
    assert [(one["subject"], one["reason"], one["data_kept_until"]) for one in events("stop_requested")] == [
        ("a", "credit_depleted", kept),
        ("b", "credit_depleted", kept),
    ]
    assert mails()[-1][1] == "What lab runs is being stopped"


def test_what_starts_after_the_stops_were_requested_is_asked_as_well(lab):
    deplete(lab)
    build.metered(lab, at(11))
    told = mails()

    run(lab, "new", at(11.2), at(12))
    build.metered(lab, at(11.3))
    # Its event arrives late: it ran already when the others were asked.
    run(lab, "late", at(10.5), at(12))
    build.metered(lab, at(11.4))
    build.metered(lab, at(11.5))

    assert [one["subject"] for one in events("stop_requested")] == ["a", "new", "late"]
    asked = AuditEvent.objects.filter(action="billing.stop_requested").order_by("pk")
    assert [row.diff["resources"] for row in asked] == [["a"], ["new"], ["late"]]
    assert (state(lab), mails()) == ("suspended", told)

    # What stopped and starts again is asked again; and all of it where new credit is used up as well.
    stop(lab, "new", at(11.6))
    run(lab, "new", at(11.7), at(12))
    build.metered(lab, at(11.8))
    assert [one["subject"] for one in events("stop_requested")] == ["a", "new", "late", "new"]
    build.credit(lab, "9", now=at(11.8))
    assert state(lab) == "low"
    for name in ("a", "late", "new"):
        build.events(heartbeat(name, at(13.2), organization="lab"), now=at(13.2))
    build.metered(lab, at(11.9))
    build.metered(lab, at(13))
    build.metered(lab, at(13.1))
    assert [one["subject"] for one in events("stop_requested")][4:] == ["a", "late", "new"]


def test_a_top_up_lifts_it_at_once_and_starts_nothing(lab):
    deplete(lab)
    build.metered(lab, at(11))
    assert state(lab) == "suspended"
    before = OutboxEvent.objects.count()

    build.credit(lab, "500", now=at(11))

    assert state(lab) == "healthy"
    written = OutboxEvent.objects.order_by("pk")[before:]
    assert [row.event_type for row in written] == ["billing.credit_granted", "billing.state_changed"]


def test_a_plan_with_more_grace_is_stopped_later(lab):
    lab.plan = "professional"
    lab.save()
    deplete(lab)

    build.metered(lab, at(33.9))
    assert state(lab) == "depleted"
    build.metered(lab, at(34))
    assert state(lab) == "suspended"


def test_reserved_credit_is_not_used_credit(lab):
    build.credit(lab, "60", now=at(9))
    build.hold(lab, "a", "60", now=at(9))

    build.metered(lab, at(10))

    assert (selectors.balance(lab, now=at(10)).available_micros, state(lab)) == (0, "healthy")


def test_an_organization_that_never_had_anything_is_healthy(lab):
    build.metered(lab, at(10))

    assert (state(lab), steps(lab)) == ("healthy", [])


def test_credit_that_expires_depletes_an_idle_organization(lab):
    build.credit(lab, "5", pot=Pot.PROMO, now=at(9), expires_at=at(10))
    build.metered(lab, at(9.5))
    assert state(lab) == "healthy"

    build.metered(lab, at(10))

    assert state(lab) == "depleted"


# --- what staff decide


def limit(lab, amount, now=None):
    return billing.set_credit_limit(
        actor=build.actor(lab),
        organization=lab,
        credit_limit_micros=amount * 1_000_000,
        reason="Contract 7",
        now=now or at(9),
    )


def test_a_credit_limit_is_available_and_lasts_until_it_is_owed(lab):
    lab.plan = "enterprise"
    lab.save()
    limit(lab, 100)
    run(lab, "a", at(9), at(12))
    build.metered(lab, at(9.5))

    found = selectors.balance(lab, now=at(9.5))

    assert (found.available_micros, found.credit_limit_micros) == (98_800_000, 100_000_000)
    assert found.runway_ends_at == at(9.5) + 98.8 / 2.4 * HOUR
    assert state(lab) == "healthy"
    row = AuditEvent.objects.get(action="credit_limit.changed")
    assert (row.diff["credit_limit"], row.reason) == (["0.00", "100.00"], "Contract 7")
    assert events("credit_limit_changed")[0]["credit_limit"] == ["0.00", "100.00"]


def test_a_lower_limit_acts_at_once(lab):
    lab.plan = "enterprise"
    lab.save()
    limit(lab, 100)
    run(lab, "a", at(9), at(12))
    build.metered(lab, at(10))

    limit(lab, 2, now=at(10))

    assert state(lab) == "depleted"


def test_a_limit_counts_only_while_the_plan_pays_by_invoice(lab, run_jobs):
    def plan(code):
        with time_machine.travel(at(10), tick=False):
            quotas.assign_plan(
                actor=build.actor(), organization=lab, plan_code=code, reason="tests", now=at(10)
            )
            run_jobs()
            lab.refresh_from_db()
            found = selectors.balance(lab, now=at(10))
        return found.billing_state, found.available_micros, found.credit_limit_micros

    plan("enterprise")
    limit(lab, 100)
    run(lab, "a", at(9), at(12))
    build.metered(lab, at(10))

    assert plan("professional") == ("depleted", -2_400_000, 0)
    assert plan("sovereign") == ("healthy", 97_600_000, 100_000_000)


def test_only_plans_that_pay_by_invoice_may_owe(lab):
    with pytest.raises(NotPostpaid):
        limit(lab, 100)

    assert not AuditEvent.objects.filter(action="credit_limit.changed").exists()


def test_a_limit_that_cannot_be_is_refused(lab):
    with pytest.raises(ValidationFailed):
        limit(lab, -1)


def decide(lab, *, suspended, now=None):
    return billing.suspend_spending(
        actor=build.actor(lab), organization=lab, suspended=suspended, reason="Fraud", now=now or at(9)
    )


def test_staff_block_new_usage_whatever_the_credit_and_stop_nothing(lab):
    build.credit(lab, "500", now=at(9))
    run(lab, "a", at(9), at(12))

    decide(lab, suspended=True)
    decide(lab, suspended=True)
    build.metered(lab, at(9.5))

    assert (state(lab), steps(lab)) == ("suspended", [("healthy", "suspended")])
    assert events("stop_requested") == []
    assert mails() == [("money@lab.example", "New usage of lab is blocked")]
    assert AuditEvent.objects.filter(action="spending.suspended").count() == 1
    with pytest.raises(billing.SpendingSuspended):
        build.hold(lab, "b", "1", now=at(9.5))

    decide(lab, suspended=False)

    assert state(lab) == "healthy"


@pytest.mark.parametrize("blocked_at", [9.2, 10.2], ids=["before the credit ends", "after it"])
def test_once_staff_lift_a_block_after_the_grace_what_runs_is_asked_to_stop_once(lab, blocked_at):
    build.credit(lab, "2.4", now=at(9))
    run(lab, "a", at(9), at(12))
    for hour in (9.1, 9.5, 10, 10.5, 11.5):
        if hour > blocked_at and state(lab) != "suspended":
            decide(lab, suspended=True, now=at(blocked_at))
        build.metered(lab, at(hour))
    assert (state(lab), events("stop_requested")) == ("suspended", [])

    decide(lab, suspended=False, now=at(11.5))
    build.metered(lab, at(11.6))

    assert state(lab) == "suspended"
    assert [one["subject"] for one in events("stop_requested")] == ["a"]
    assert mails()[-1][1] == "What lab runs is being stopped"
    assert [subject for _to, subject in mails()].count("What lab runs is being stopped") == 1
    assert AuditEvent.objects.get(action="billing.stop_requested").diff == {"resources": ["a"]}
    guard = selectors.guard_of(lab.id)
    assert (guard.depleted_at, guard.stop_requested_at) == (at(10), at(11.5))

    # Another block and its end ask nobody again; credit that comes in forgets all of it.
    decide(lab, suspended=True, now=at(11.7))
    decide(lab, suspended=False, now=at(11.8))
    assert len(events("stop_requested")) == 1
    build.credit(lab, "50", now=at(11.9))
    assert selectors.guard_of(lab.id).stop_requested_at is None


def test_the_ladder_tells_its_dates_in_advance_and_what_has_happened(lab):
    build.credit(lab, "120", now=at(9))
    run(lab, "a", at(9), at(12))
    build.metered(lab, at(9.5))

    def ladder(moment):
        found = selectors.balance(lab, now=moment)
        return [(step.label, step.at, step.is_past) for step in ladders.steps_of(found, now=moment)]

    ends = at(9) + 50 * HOUR
    assert ladder(at(9.5)) == [
        ("We tell your billing contacts", ends - 24 * HOUR, False),
        ("Nothing new can start", ends, False),
        ("What runs is asked to stop", ends + HOUR, False),
        ("Its data is no longer kept", ends + HOUR + DATA_KEPT, False),
    ]
    take_all(lab)
    lab.refresh_from_db()
    assert [past for _label, _at, past in ladder(at(10))] == [True, False, False]
    decide(lab, suspended=True, now=at(10))
    assert ladder(at(10)) == []


def take_all(lab) -> None:
    lot = CreditLot.objects.get(organization=lab)
    billing.withdraw_credit(
        actor=build.actor(), lot_id=lot.id, amount_micros=None, reason="tests", now=at(9.5)
    )


def test_transitions_are_never_edited(lab):
    decide(lab, suspended=True)

    with pytest.raises(IntegrityError), transaction.atomic():
        BillingTransition.objects.update(after=BillingState.LOW)


# --- at the same time


@pytest.mark.django_db(transaction=True)
def test_two_ticks_at_once_tell_once():
    lab = build.organization(
        "lab", now=datetime.fromisoformat("2026-05-01T00:00Z"), billing_email="m@lab.example"
    )
    build.credit(lab, "2.4", now=at(9))
    build.usage(lab, at(9), at(10), now=at(10))
    billing.charge_organization(organization_id=lab.id, now=at(9.5))
    metering.meter_organization(organization_id=lab.id, until=at(10), now=at(10))
    billing.charge_organization(organization_id=lab.id, now=at(10))

    found = at_once(*[lambda: billing.settle_state(organization_id=lab.id, now=at(10))] * 4)

    assert found == ["depleted"] * 4
    assert steps(lab) == [("healthy", "depleted")]
    assert len(mails()) == len(events("state_changed")) == 1
