"""Every invoice of the demonstration is what its events come to when they are counted and priced anew.

Its bundles are accepted by the program that they bring along.
"""

from __future__ import annotations

import json
import random
import zipfile
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from apps.billing import services as billing
from apps.core.actor import system_actor
from apps.invoices import services as invoices
from apps.invoices import verifier
from apps.invoices.bundle import write_bundle
from apps.invoices.models import Invoice, PeriodClose
from apps.metering import services as metering
from apps.organizations.models import BillingPeriod
from apps.portal import demonstration
from tests.metering.events import provisioner


def replayed(slug: str, period: str) -> str:
    out = StringIO()
    call_command("replay", "--organization", slug, "--period", period, stdout=out)
    return out.getvalue().splitlines()[-1]


@pytest.fixture
def closed(db):
    """Return the closed periods of the demonstration: its history, and some minutes of what it reports later."""
    now = timezone.now()
    numbers = random.Random(7)  # noqa: S311  To be repeated, not to be secret.
    organizations = demonstration.set_up(now=now)
    for tenant in demonstration.TENANTS:
        simulated = demonstration.Provisioner(tenant, numbers)
        events = list(simulated.history(now=now))
        for minute in range(60, 0, -5):
            events += simulated.report(now=now - timedelta(minutes=minute))
        answer = metering.ingest_body(
            actor=provisioner("usage:backfill"),
            body=json.dumps(events).encode(),
            content_type="application/cloudevents-batch+json",
            now=now,
        )
        assert not answer.errors
    for organization in organizations:
        billing.meter_and_charge(organization_id=organization.pk, until=now, now=now)
        for period in BillingPeriod.objects.of(organization.pk).filter(ends_at__lte=now):
            invoices.close_period(
                actor=system_actor("test"),
                organization_id=organization.pk,
                label=period.label,
                finalize=True,
                now=now,
            )
    return list(PeriodClose.objects.select_related("organization", "period", "invoice"))


def test_every_invoice_of_the_demonstration_replays_identically_and_verifies(closed, tmp_path):
    assert len({close.organization_id for close in closed if close.invoice}) == len(demonstration.TENANTS)
    for close in closed:
        assert replayed(close.organization.slug, close.period.label) == "Identical."
    documents = 0
    for label in {close.period.label for close in closed}:
        path = tmp_path / f"{label}.zip"
        with path.open("wb") as out:
            write_bundle(label, out)
        with zipfile.ZipFile(path) as bundle:
            recomputed, wrong = verifier.check_bundle(bundle)
        assert wrong == [], label
        documents += recomputed
    assert documents == Invoice.objects.final().count() > 0


def test_a_counted_hour_that_was_tampered_with_is_told(closed):
    """Replay trusts no stored usage: an invoice that was made from a wrong quantity differs from the events."""
    close = next(close for close in closed if close.invoice)
    with connection.cursor() as cursor:
        cursor.execute(
            "SET session_replication_role = replica;"
            "UPDATE invoices_invoiceline SET quantity = quantity + 1;"
            "SET session_replication_role = DEFAULT"
        )

    with pytest.raises(CommandError, match="Not identical"):
        replayed(close.organization.slug, close.period.label)
