"""kill -9 of a real process in the midst of charging and closing: the next run completes it, nothing twice or lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from django.conf import settings
from django.db import connection

from apps.billing.models import BillingProgress, ChargeHour, Pot
from apps.invoices.models import Invoice, InvoiceCounter, PeriodClose
from apps.ledger.models import Transfer
from apps.metering.models import UsageChange
from tests import build
from tests.billing.runs import HOUR
from tests.money import books, failing
from tests.threads import PATIENCE_SECONDS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.faults]

APRIL = datetime(2026, 4, 10, tzinfo=UTC)
# `manage.py` on the test's database; without DATABASE_URL a development run, where failpoints act.
MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
settings.DEBUG = True
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[2:]])
"""


def manage(*arguments: str, fail_at: str = "") -> int:
    """Run a command in a process of its own, to be killed at a point, and return its status."""
    done = subprocess.run(
        [sys.executable, "-c", MANAGE, connection.settings_dict["NAME"], *arguments],
        cwd=settings.ROOT,
        env={**os.environ, "COUNTINGHOUSE_FAIL_AT": fail_at},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode


@pytest.fixture
def lab():
    organization = build.organization("lab", now=APRIL)
    build.price_book({"unit_price": "2.4949"})
    build.credit(organization, "3", now=APRIL)
    build.credit(organization, "1", pot=Pot.PROMO, now=APRIL, expires_at=APRIL + 5 * HOUR)
    build.usage(organization, APRIL, APRIL + 4 * HOUR)
    return organization


CHARGED = {"bank": -3_000_000, "promo_expense": -1_000_000, "receivable": -5_979_600, "revenue": 9_979_600}


@pytest.mark.parametrize("point", ["billing.after_claim", "billing.before_commit"])
def test_a_killed_charge_is_completed_by_the_next_run(lab, point):
    assert manage("meter", fail_at=point) == -signal.SIGKILL

    # Usage is counted and waits in the queue; nothing is charged, in whole or in part.
    assert UsageChange.objects.count() == 4
    assert not ChargeHour.objects.exists()
    assert not Transfer.objects.filter(kind__in=["usage", "expiry"]).exists()
    assert not BillingProgress.objects.exists()

    assert manage("meter") == 0
    assert manage("meter") == 0

    assert not UsageChange.objects.exists()
    assert books(lab) == CHARGED
    assert failing() == []


@pytest.mark.parametrize("point", ["billing.after_claim", "billing.before_commit", "invoices.before_commit"])
def test_a_killed_close_is_completed_by_the_next_run(lab, point):
    close = ["close_period", "--period", "2026-04", "--finalize"]

    assert manage(*close, fail_at=point) == -signal.SIGKILL

    assert not Invoice.objects.exists()
    assert not InvoiceCounter.objects.exists()
    assert not PeriodClose.objects.exists()
    assert not Transfer.objects.filter(kind="invoice").exists()

    assert manage(*close) == 0
    assert manage(*close) == 0

    invoice = Invoice.objects.get()
    assert (invoice.number, invoice.subtotal_minor, invoice.discount_minor, invoice.due_minor) == (
        "INV-2026-000001",
        998,
        100,
        598,
    )
    # 9.9796 was charged and 5.9796 of it owed: both are rounded by 400 micros, which cancel.
    assert books(lab) == {
        "bank": -3_000_000,
        "promo_expense": -1_000_000,
        "receivable": -5_980_000,
        "revenue": 9_980_000,
    }
    assert failing() == []
