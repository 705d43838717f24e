"""Taking usage events in, and counting them by the hour."""

from apps.metering.services.changes import claim_changes
from apps.metering.services.counting import MeteringBusy, MeteringStep, lock_metering, meter_organization
from apps.metering.services.idling import advance_idle
from apps.metering.services.ingestion import Outcome, Rejection, ingest_body, ingest_events

__all__ = [
    "MeteringBusy",
    "MeteringStep",
    "Outcome",
    "Rejection",
    "advance_idle",
    "claim_changes",
    "ingest_body",
    "ingest_events",
    "lock_metering",
    "meter_organization",
]
