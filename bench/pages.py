"""How long the overview and the explorer take for a customer with a month of a hundred machines, among 500 others.

The rows of the month are made by SQL as metering writes them; what the measured organization used is then charged as in
production. It runs all of its machines all of the time, each other organization each of its own for a day.
"""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import datetime, timedelta
from itertools import product

from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from apps.billing import services as billing
from apps.billing.models import Pot
from apps.core.periods import HOUR, floor_hour
from apps.core.permissions import Role
from apps.identity import services as identity
from apps.metering import services as metering
from apps.organizations import services as organizations
from apps.organizations.models import Organization
from apps.pricing import services as pricing
from bench import world

HOURS = 720
HOURS_OF_OTHERS = 24
RUNNING = 20
SKUS, PROJECTS = 8, 4
REPEATS = 5
GROUPS = ("sku", "project", "region", "credential", "resource")
# An hour's bars go back two weeks at most.
INTERVALS = {"day": 30, "hour": 14}
OVERVIEW_MS_LIMIT = 300
EXPLORER_MS_LIMIT = 1_000


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return the median time of the overview, and of the explorer grouped as takes longest, in ms."""
    now = floor_hour(timezone.now())
    measured, *others = world.make_organizations(
        options.customers, "pages", created_at=now - timedelta(days=60)
    )
    for number in range(PROJECTS):
        organizations.create_project(
            actor=world.ACTOR, organization=measured, slug=f"project-{number}", now=timezone.now()
        )
    started = time.perf_counter()
    _make_month([measured], now, machines=options.machines, hours=HOURS)
    _make_month(others, now, machines=options.machines, hours=HOURS_OF_OTHERS)
    _charge_others(others)
    _charge(measured, now)
    with connection.cursor() as cursor:
        for table in ("metering_usagehour", "metering_resource", "billing_chargehour", "billing_chargekey"):
            cursor.execute(f"ANALYZE {table}")
        cursor.execute("SELECT count(*) FROM metering_usagehour")
        (rows,) = cursor.fetchone()
    seconds = time.perf_counter() - started
    browser = _browser(measured)
    page = f"/app/{measured.slug}"
    last = timezone.now().date()
    explorer = {
        f"{group} by {interval}": _ms(
            browser,
            f"{page}/usage?group={group}&interval={interval}&first={last - timedelta(days=days - 1)}&last={last}",
            shows=b"<tbody><tr>",
        )
        for group, (interval, days) in product(GROUPS, INTERVALS.items())
    }
    slowest = max(explorer, key=lambda name: explorer[name])
    print(f"Explorer, slowest: {slowest}; data made in {seconds:.0f} s")
    return {
        "overview_ms": _ms(browser, page),
        "overview_ms_limit": OVERVIEW_MS_LIMIT,
        "explorer_ms": explorer[slowest],
        "explorer_ms_limit": EXPLORER_MS_LIMIT,
        "pages_usage_rows": rows,
    }


def _ms(browser: Client, path: str, shows: bytes = b"h100-1") -> float:
    """Return the median time of a page that shows something, once it has been opened."""
    times = []
    for _repeat in range(REPEATS + 1):
        started = time.perf_counter()
        answer = browser.get(path)
        times.append((time.perf_counter() - started) * 1_000)
        assert answer.status_code == 200, (path, answer.status_code)
        assert shows in answer.content, f"{path} shows no {shows!r}"
    return round(statistics.median(times[1:]), 1)


def _browser(organization: Organization) -> Client:
    person = identity.create_user(email="bench-pages@example.com", now=timezone.now())
    organizations.add_member(
        actor=world.ACTOR, organization=organization, user=person, role=Role.OWNER, now=timezone.now()
    )
    browser = Client(SERVER_NAME="127.0.0.1")
    browser.force_login(person)
    return browser


def _make_month(owners: list[Organization], now: datetime, *, machines: int, hours: int) -> None:
    """Write resources and the hours that they ran; those that ran for less begin one after the other."""
    ids = [organization.pk for organization in owners]
    with transaction.atomic(), connection.cursor() as cursor:
        # The references hold by construction, and checking millions of them one by one is not what is measured.
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            "INSERT INTO metering_resource (id, organization_id, source, subject, is_single_event, metered_until) "
            "SELECT gen_random_uuid(), owner, 'pages', 'machine-' || lpad(i::text, 3, '0'), false, %s "
            "FROM unnest(%s::uuid[]) AS owner, generate_series(0, %s) AS i",
            [now, ids, machines - 1],
        )
        cursor.execute(
            """
            INSERT INTO metering_usagehour (organization_id, resource_id, meter, sku, region, project_id, hour,
                quantity, revision)
            SELECT machine.organization_id, machine.id, 'gpu_hours', 'h100-' || number %% %(skus)s,
                   'eu-' || number %% 2, project.id, hour, 8 * 3600, 1
            FROM (
                SELECT id, organization_id, right(subject, 3)::int AS number
                FROM metering_resource WHERE source = 'pages' AND organization_id = ANY(%(owners)s)
            ) machine
            LEFT JOIN organizations_project project
              ON project.organization_id = machine.organization_id
               AND project.slug = 'project-' || number %% %(projects)s,
            LATERAL generate_series(0, %(hours)s - 1) AS place,
            LATERAL (
                SELECT %(end)s - interval '1 hour' * (1 + (number * 7) %% (1 + %(month)s - %(hours)s) + place) AS hour
            ) AS time
            """,
            {"skus": SKUS, "projects": PROJECTS, "owners": ids, "hours": hours, "month": HOURS, "end": now},
        )
        cursor.execute(
            "INSERT INTO metering_meteringstate (organization_id, metered_until) SELECT unnest(%s::uuid[]), %s "
            "ON CONFLICT (organization_id) DO UPDATE SET metered_until = excluded.metered_until",
            [ids, now],
        )


def _charge_others(owners: list[Organization]) -> None:
    """Write what the others were charged, so that its tables are as large as they would be."""
    for organization in owners:
        organizations.ensure_periods(
            organization_id=organization.pk, covering=organization.created_at, now=timezone.now()
        )
    ids = [organization.pk for organization in owners]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            """
            INSERT INTO billing_chargekey (id, organization_id, period_id, meter, sku, region, receivable_micros,
                billed_receivable_micros, created_at)
            SELECT gen_random_uuid(), used.organization_id, period.id, used.meter, used.sku, used.region, 0, 0, now()
            FROM (SELECT DISTINCT organization_id, meter, sku, region FROM metering_usagehour
                  WHERE organization_id = ANY(%(owners)s)) used
            JOIN LATERAL (
                SELECT id FROM organizations_billingperiod p WHERE p.organization_id = used.organization_id
                ORDER BY starts_at LIMIT 1
            ) period ON true
            """,
            {"owners": ids},
        )
        cursor.execute(
            """
            INSERT INTO billing_chargehour (id, organization_id, key_id, hour, quantity, amount_micros, revision,
                charged_at)
            SELECT gen_random_uuid(), used.organization_id, key.id, used.hour, sum(used.quantity), 0, 1, now()
            FROM metering_usagehour used JOIN billing_chargekey key
              ON (key.organization_id, key.meter, key.sku, key.region)
               = (used.organization_id, used.meter, used.sku, used.region)
            WHERE used.organization_id = ANY(%(owners)s)
            GROUP BY used.organization_id, key.id, used.hour
            """,
            {"owners": ids},
        )


def _charge(organization: Organization, now: datetime) -> None:
    """Give credit, charge the month as the tick would, and let some machines run."""
    book = world.price_skus([f"h100-{number}" for number in range(SKUS)], name="Pages")
    pricing.assign_book(
        actor=world.ACTOR,
        organization=organization,
        book=book,
        effective_from=floor_hour(organization.created_at),
        now=timezone.now(),
    )
    billing.grant_credit(
        actor=world.ACTOR,
        organization_id=organization.pk,
        amount_micros=10**13,
        pot=Pot.PAID,
        reason="bench",
        now=organization.created_at,
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO metering_usagechange (organization_id, meter, sku, region, hour) "
            "SELECT DISTINCT organization_id, meter, sku, region, hour FROM metering_usagehour "
            "WHERE organization_id = %s",
            [organization.pk],
        )
    moment = timezone.now()
    for body in world.running_bodies(
        organization, RUNNING, sku="h100-1", region=world.REGION, since=now - HOUR, until=moment
    ):
        outcome = metering.ingest_body(
            actor=world.ACTOR, body=body, content_type="application/cloudevents-batch+json", now=moment
        )
        assert not outcome.errors, outcome.errors[:3]
    billing.meter_and_charge(organization_id=organization.pk, until=moment, now=moment)
