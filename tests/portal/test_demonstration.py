"""The demonstration: what it makes, and that it runs out of credit by itself when asked to hurry."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import pytest

from apps.billing import selectors as billing_state
from apps.billing.models import BillingTransition, SpendGuard
from apps.notifications.models import Mail
from apps.organizations.models import Organization
from apps.portal import demonstration
from tests import build

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def development(settings, tmp_path):
    settings.DEBUG = True
    settings.VAR = tmp_path


def steps(organization: Organization) -> list[str]:
    rows = BillingTransition.objects.filter(organization=organization).order_by("number")
    return list(rows.values_list("after", flat=True))


def play(organization: Organization, numbers: random.Random, start: datetime, minutes: int) -> None:
    """Let the hurried provisioner report every 15 seconds, with a tick each minute."""
    provisioner = demonstration.Provisioner(demonstration.HURRIED, numbers)
    for quarter in range(minutes * 4 + 1):
        now = start + quarter * timedelta(seconds=15)
        build.events(*provisioner.report(now=now), now=now)
        if quarter % 4 == 0:
            build.metered(organization, now)


def test_without_hurry_one_pays_by_invoice_and_nobody_runs_out():
    made = demonstration.set_up(now=build.NOW)
    again = demonstration.set_up(now=build.NOW)

    assert [one.slug for one in made] == [tenant.slug for tenant in demonstration.TENANTS]
    assert again == made
    assert [guard.credit_limit_micros for guard in SpendGuard.objects.filter(credit_limit_micros__gt=0)] == [
        50_000_000_000
    ]


def test_in_a_hurry_it_reaches_low_and_depleted_within_minutes_and_mails_each(settings):
    settings.DEMO = "fast"
    hurried = demonstration.set_up(now=build.NOW)[-1]

    play(hurried, random.Random(7), build.NOW, 10)  # noqa: S311 (nothing secret)

    assert steps(hurried) == ["low", "depleted"]
    mails = Mail.objects.filter(organization_id=hurried.id, template="billing/mail/state")
    assert {mail.recipient for mail in mails} == {"finance@dusk-rendering.example"}
    assert mails.count() == 2

    later = build.NOW + timedelta(minutes=12)
    demonstration.set_up(now=later)

    assert steps(hurried)[2:] in (["healthy"], ["low"])
    assert billing_state.balance(hurried, now=later).available_micros == 9_000_000
