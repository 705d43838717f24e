"""Credit that ends soon is told once for each lot and threshold."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.billing import services as billing
from apps.billing.models import Pot
from apps.notifications.models import Mail
from tests import build
from tests.build import NOW

DAY = timedelta(days=1)


@pytest.fixture
def rich(lab):
    lab.billing_email = "money@example.com"
    lab.save()
    return lab


def told(at):
    billing.tell_expiring_credit(now=at)
    mails = Mail.objects.filter(template="billing/mail/expiring").order_by("pk")
    return [cause.rpartition(":")[2] for cause in mails.values_list("cause", flat=True)]


def test_each_threshold_is_told_once(rich, run_jobs, mailoutbox):
    build.credit(rich, "1250.999999", pot=Pot.PROMO, expires_at=NOW + 30 * DAY, reason="Welcome")
    build.credit(rich, "7")

    assert told(NOW + 15 * DAY) == []
    assert told(NOW + 16 * DAY) == ["14"]
    assert told(NOW + 20 * DAY) == ["14"]
    assert told(NOW + 27 * DAY) == ["14", "3"]
    assert told(NOW + 29 * DAY) == ["14", "3", "1"]
    assert told(NOW + 30 * DAY) == ["14", "3", "1"], "it has ended"
    run_jobs()
    assert {tuple(mail.to) for mail in mailoutbox} == {("money@example.com",)}
    assert mailoutbox[0].subject == "1,250.99 USD of lab end on 14 Jun 2026, 12:00 UTC"
    assert "Welcome" in mailoutbox[0].body
    assert "/app/lab/credits" in mailoutbox[0].body


def test_a_lot_that_was_short_from_the_start_is_not_told_of_what_it_never_had(rich):
    build.credit(rich, "5", pot=Pot.PROMO, expires_at=NOW + 2 * DAY)

    assert told(NOW) == []
    assert told(NOW + DAY) == ["1"]


def test_what_is_used_up_is_not_told(rich):
    build.price_book({"unit_price": "5"})
    build.credit(rich, "5", pot=Pot.PROMO, now=NOW - 5 * DAY, expires_at=NOW + 2 * DAY)
    build.usage(rich, NOW - timedelta(hours=1), NOW)
    build.metered(rich)

    assert told(NOW) == []
