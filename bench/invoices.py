"""Invoices: from stored events to final documents."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from apps.invoices import services as invoices
from apps.metering import services as metering
from bench import processes, world


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Invoices an hour, from stored events to final invoices, in as many processes as there are cores."""
    world.price_book()
    made = world.make_organizations(options.organizations, "month")
    actor = world.ACTOR
    backfill = type(actor)(kind=actor.kind, id=None, label="bench", permissions=frozenset({"usage:backfill"}))
    for body in world.month_bodies(made, options.resources):
        outcome = metering.ingest_body(
            actor=backfill, body=body, content_type="application/cloudevents-batch+json", now=timezone.now()
        )
        assert not outcome.errors, outcome.errors[:3]
    seconds, rss = processes.run(_close, [organization.id for organization in made])
    return {
        "invoices_per_hour": round(len(made) / seconds * 3600),
        "invoice_seconds": round(seconds, 1),
        "invoiced_organizations": len(made),
        "peak_rss_mb_closer": rss,
    }


def _close(organization_id: Any) -> None:
    closed = invoices.close_period(
        actor=world.ACTOR, organization_id=organization_id, label="2026-01", finalize=True, now=timezone.now()
    )
    assert closed.invoice is not None, "there was usage"
