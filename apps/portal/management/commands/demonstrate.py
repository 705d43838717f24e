from __future__ import annotations

import json
import random
import signal
import time
import urllib.error
import urllib.request
from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from apps.billing import services as billing
from apps.core.actor import system_actor
from apps.core.errors import DomainError
from apps.core.periods import label_of, previous_label
from apps.invoices import services as invoices
from apps.metering.models import UsageEvent
from apps.organizations.models import BillingPeriod
from apps.portal import demonstration, selectors

START_SECONDS_MAX = 60
REQUEST_SECONDS_MAX = 20

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = "Play the demonstration's provisioner: send its events through the API until stopped. Development only."

    def handle(self, **_options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("The demonstration runs in development only.")
        signal.signal(signal.SIGTERM, _stop)
        logins = selectors.logins()
        if logins is None:
            raise CommandError("There are no keys yet; run `manage.py bootstrap --json` first.")
        key = str(logins["integration_key"])
        _wait_for_the_web()
        now = timezone.now()
        organizations = demonstration.set_up(now=now)
        numbers = random.Random()  # noqa: S311 (nothing secret is made of it)
        provisioners = [demonstration.Provisioner(tenant, numbers) for tenant in demonstration.tenants()]
        if not UsageEvent.objects.filter(source=demonstration.SOURCE).exists():
            for provisioner in provisioners:
                _send(list(provisioner.history(now=now)), key)
            last_month = previous_label(label_of(now, "UTC"))
            for organization in organizations:
                _close_until(organization.id, last_month)
        try:
            while True:
                for provisioner in provisioners:
                    _send(provisioner.report(now=timezone.now()), key)
                time.sleep(demonstration.HEARTBEAT.total_seconds())
        except KeyboardInterrupt:
            return


def _send(events: list[dict[str, Any]], key: str) -> None:
    """Send one batch; a web server that is away for a moment costs nothing, the next heartbeat proves continuity."""
    if not events:
        return
    request = urllib.request.Request(
        f"http://127.0.0.1:{settings.PORT}/api/v1/usage/events",
        data=json.dumps(events).encode(),
        headers={"Content-Type": "application/cloudevents-batch+json", "Authorization": f"Bearer {key}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS_MAX) as response:  # noqa: S310  Our own server.
            answer = json.load(response)
        if answer["rejected"]:
            log.warning("demonstration.rejected", errors=answer["errors"][:3])
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        log.warning("demonstration.not_sent", error=str(error))


def _close_until(organization_id: Any, label: str) -> None:
    """Make final invoices of the months before this one, so that there is something to look at."""
    now = timezone.now()
    billing.meter_and_charge(organization_id=organization_id, until=now, now=now)
    for period in BillingPeriod.objects.of(organization_id).filter(label__lte=label):
        try:
            invoices.close_period(
                actor=system_actor("demonstration"),
                organization_id=organization_id,
                label=period.label,
                finalize=True,
                now=timezone.now(),
            )
        except DomainError as error:
            log.warning("demonstration.not_closed", period=period.label, error=str(error))
            return


def _wait_for_the_web() -> None:
    until = timezone.now() + timedelta(seconds=START_SECONDS_MAX)
    while timezone.now() < until:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{settings.PORT}/healthz", timeout=2).close()
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
        else:
            return
    raise CommandError("The web server does not answer; the demonstration has nobody to send to.")


def _stop(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
