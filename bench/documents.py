"""Documents: how many are printed a second, and whether closing takes as long for each of many organizations."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from apps.invoices import services as invoices
from apps.invoices.models import Invoice
from apps.metering import services as metering
from apps.organizations import services as organizations
from bench import processes, world

PRINTED = 200
HOURS = 1  # Of each resource: what is measured grows with organizations, and invoices an hour are another measure.
# Seconds for one of all organizations over those for one of a tenth; half of it is room for a busy machine.
GROWTH_LIMIT = 1.5
MONTH = "2026-01"
SELLER = {
    "legal_name": "Bench GmbH",
    "line1": "Speicherstadt 4",
    "postal_code": "20457",
    "city": "Hamburg",
    "country": "DE",
    "vat_id": "DE136695976",
    "iban": "DE89370400440532013000",
}


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Close a month of a tenth of some organizations, then of all, and print invoices with their e-invoices.

    close_growth: seconds for each organization of all, over those of the tenth; 1 is
    linear growth.
    """
    count, resources = options.organizations, options.resources
    world.price_book()
    invoices.save_seller(actor=world.ACTOR, code="default", now=timezone.now(), **SELLER)
    small = max(count // 10, 1)
    few, _few_mb = processes.run(_close, _with_usage(small, resources, "few"))
    everybody = _with_usage(count, resources, "many")
    many, _many_mb = processes.run(_close, everybody)
    # Those of this measure alone: what others closed before had no seller, and so no e-invoice.
    final = Invoice.objects.final().filter(organization__in=everybody)
    waiting = final.order_by("pk").values_list("pk", flat=True)
    printed = [str(pk) for pk in waiting[: min(PRINTED, count)]]
    printing, _printing_mb = processes.run(_print, printed)
    return {
        "close_few_organizations": small,
        "close_few_per_s": round(small / few, 1),
        "close_many_organizations": count,
        "close_many_per_s": round(count / many, 1),
        "close_resources": resources,
        "close_growth": round((many / count) / (few / small), 2),
        "close_growth_limit": GROWTH_LIMIT,
        "documents_per_s": round(len(printed) / printing, 1),
    }


def _with_usage(count: int, resources: int, prefix: str) -> list[Any]:
    """Make organizations in Germany whose resources ran some hours of the month and return their ids."""
    made = world.make_organizations(count, f"documents-{prefix}")
    for organization in made:
        organizations.change_billing_profile(
            actor=world.ACTOR, organization=organization, country="DE", now=timezone.now()
        )
    actor = type(world.ACTOR)(
        kind=world.ACTOR.kind, id=None, label="bench", permissions=frozenset({"usage:backfill"})
    )
    for body in world.month_bodies(made, resources, hours=HOURS):
        outcome = metering.ingest_body(
            actor=actor, body=body, content_type="application/cloudevents-batch+json", now=timezone.now()
        )
        assert not outcome.errors, outcome.errors[:3]
    return [organization.pk for organization in made]


def _close(organization_id: Any) -> None:
    invoices.close_period(
        actor=world.ACTOR, organization_id=organization_id, label=MONTH, finalize=True, now=timezone.now()
    )


def _print(invoice_id: Any) -> None:
    invoices.make_files(invoice_id=invoice_id, now=timezone.now())
