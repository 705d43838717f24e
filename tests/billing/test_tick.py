"""The sweep: who gets a tick of their own, and who is counted on together with all others."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from apps.billing.models import Pot
from apps.billing.services import queue_metering
from apps.metering import selectors, services
from apps.metering.models import MeteringState
from apps.organizations import services as organizations
from apps.organizations.models import Organization
from tests import build
from tests.billing.runs import HOUR, at, run
from tests.metering.events import started, stopped
from tests.money import lots
from tests.threads import at_once

MINUTE = timedelta(minutes=1)


@pytest.fixture
def lab(db):
    return build.organization("lab", now=at(1))


@pytest.fixture
def swept(captured_jobs):
    """Return the function that sweeps and returns who is queued, by slug, in order."""
    slugs = {}

    def sweep(now):
        captured_jobs.queued.clear()
        queue_metering(now=now)
        slugs.update({str(pk): slug for pk, slug in Organization.objects.values_list("pk", "slug")})
        return [slugs[arguments["organization_id"]] for _name, arguments in captured_jobs.queued]

    return sweep


def counted_until(organization):
    return selectors.metered_until(organization.pk)


def test_who_uses_nothing_is_counted_on_without_a_task_of_its_own(lab, swept):
    assert swept(at(9)) == ["lab"], "never counted before"
    build.metered(lab, at(9))

    assert swept(at(9) + MINUTE) == []

    assert counted_until(lab) == at(9) + MINUTE


def test_who_ever_had_credit_gets_a_task_when_an_hour_has_ended(lab, swept):
    build.credit(lab, "5", pot=Pot.PROMO, now=at(8.9), expires_at=at(10))
    build.metered(lab, at(9.1))
    assert swept(at(9.5)) == swept(at(9.9)) == []

    assert swept(at(10)) == ["lab"]
    build.metered(lab, at(10))

    assert lots(lab) == [("promo", 0)]
    lab.refresh_from_db()
    assert lab.billing_state == "depleted"


@pytest.mark.parametrize("what", ["news", "runs", "changed", "unpriced", "held", "depleted", "first credit"])
def test_what_has_to_be_looked_at_each_minute_is(lab, swept, what):
    if what != "unpriced":
        build.price_book({"unit_price": "2"})
    if what not in {"depleted", "unpriced"}:
        build.metered(lab, at(9))
    match what:
        case "news":
            build.usage(lab, at(8), at(8) + MINUTE, now=at(9))
        case "runs":
            build.events(started("a", at(9), organization="lab"), now=at(9))
            build.metered(lab, at(9) + MINUTE)
        case "changed":
            build.usage(lab, at(8), at(8) + MINUTE, now=at(9))
            services.meter_organization(organization_id=lab.pk, until=at(9) + MINUTE, now=at(9) + MINUTE)
        case "unpriced" | "depleted":
            build.usage(lab, at(7), at(7) + HOUR, now=at(9))
            build.metered(lab, at(9) + MINUTE)
        case "held":
            build.credit(lab, "5", now=at(9))
            build.hold(lab, "a", "1", now=at(9))
            build.metered(lab, at(9) + MINUTE)
        case "first credit":
            build.credit(lab, "5", now=at(9))

    assert swept(at(9) + 2 * MINUTE) == ["lab"]
    assert counted_until(lab) < at(9) + 2 * MINUTE, "left to its own tick"


def test_what_has_run_is_idle_once_its_last_hour_is_charged(lab, swept):
    build.price_book({"unit_price": "2"})
    build.credit(lab, "50", now=at(9))
    run(lab, "a", at(9), at(9.5))
    build.events(stopped("a", at(9.5), organization="lab"), now=at(9.6))
    build.metered(lab, at(9.6))
    assert swept(at(9.7)) == ["lab"], "its hour is not charged"
    build.metered(lab, at(10))

    assert swept(at(10.1)) == []


def test_a_trial_that_was_left_is_looked_at_until_its_grace_has_ended(lab, swept):
    build.price_book({"unit_price": "2"})
    build.credit(lab, "2", pot=Pot.PROMO, now=at(7))
    build.usage(lab, at(8), at(9), now=at(9))
    build.metered(lab, at(9))
    assert swept(at(9) + 59 * MINUTE) == ["lab"]

    build.metered(lab, at(10))

    lab.refresh_from_db()
    assert lab.billing_state == "suspended"
    assert swept(at(10) + MINUTE) == []


def test_a_deleted_organization_is_counted_no_further(lab, swept):
    build.metered(lab, at(9))
    organizations.delete_organization(actor=build.actor(), organization=lab, now=at(9))

    assert swept(at(9.5)) == []
    assert counted_until(lab) == at(9)


def test_a_sweep_takes_as_many_statements_for_many_as_for_one(lab, swept):
    def statements(now):
        with CaptureQueriesContext(connection) as found:
            assert swept(now) == []
        return len(found)

    build.metered(lab, at(9))
    alone = statements(at(9.1))
    for number in range(20):
        build.metered(build.organization(f"other-{number}", now=at(1)), at(9))

    assert statements(at(9.2)) == alone
    assert set(MeteringState.objects.values_list("metered_until", flat=True)) == {at(9.2)}


@pytest.mark.django_db(transaction=True)
def test_a_sweep_waits_for_nobody_who_counts():
    lab, other = (build.organization(slug, now=at(1)) for slug in ("lab", "other"))
    for organization in (lab, other):
        build.metered(organization, at(9))

    with transaction.atomic():
        services.lock_metering(organization_id=lab.pk)
        (moved,) = at_once(lambda: services.advance_idle(until=at(9.5)))

    assert moved == 1
    assert (counted_until(lab), counted_until(other)) == (at(9), at(9.5))


def test_what_waited_for_a_price_and_got_one_is_idle(lab, swept):
    build.usage(lab, at(7), at(7) + HOUR, now=at(9))
    build.credit(lab, "50", now=at(9))
    build.metered(lab, at(9))
    assert swept(at(9) + MINUTE) == ["lab"]

    build.price_book({"unit_price": "2"})
    build.metered(lab, at(10))
    assert lots(lab) == [("paid", 48_000_000)]

    assert swept(at(10) + MINUTE) == []
