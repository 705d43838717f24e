"""What holds still reserve. A hold is shrunk by the usage of its own allocation, posted or not, as it is rated."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection

from apps.billing.charging import Plan
from apps.billing.models import Hold
from apps.billing.usage import PRICED_USAGE, unposted
from apps.core import money


def remaining_micros(holds: Collection[Hold], plan: Plan, *, now: datetime) -> dict[UUID, int]:
    """Return what each hold of one organization still reserves, in micros, in at most one query.

    That is its amount less what its allocation used since the hold's hour: for each hour, the same share of the
    amount as of the quantity. Nothing is left of a hold that was released or has expired.
    plan: what is not posted yet.
    """
    found = {hold.id: 0 for hold in holds}
    live = [hold for hold in holds if hold.released_at is None and hold.expires_at > now]
    used = _used_micros(live, plan) if live else {}
    for hold in live:
        found[hold.id] = max(hold.amount_micros - used.get(hold.id, 0), 0)
    return found


def _used_micros(live: Sequence[Hold], plan: Plan) -> dict[UUID, int]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT held.id,
                   sum(used.quantity / coalesce(open.quantity, charged.quantity)
                       * coalesce(open.micros, charged.amount_micros))
            FROM {PRICED_USAGE}
            JOIN metering_resource resource ON resource.id = used.resource_id AND NOT resource.is_single_event
            JOIN unnest(%(ids)s::uuid[], %(sources)s::text[], %(subjects)s::text[], %(since)s::timestamptz[])
                AS held (id, source, subject, since)
              ON held.subject = resource.subject AND held.source IN ('', resource.source)
             AND used.hour >= held.since
            WHERE resource.organization_id = %(organization)s AND used.quantity > 0
            GROUP BY held.id
            """,  # noqa: S608 (nothing but our own clause is put in)
            {
                "organization": live[0].organization_id,
                "ids": [hold.id for hold in live],
                "sources": [hold.source for hold in live],
                "subjects": [hold.subject for hold in live],
                "since": [hold.counts_from for hold in live],
                **unposted(plan),
            },
        )
        return {
            hold_id: int((micros or Decimal(0)).to_integral_value(context=money.EXACT))
            for hold_id, micros in cursor.fetchall()
        }


def hold_row(hold: Hold, remaining: int, *, now: datetime) -> dict[str, Any]:
    """Return a hold as programs read it; amounts in major units to the micro."""
    expired = hold.released_at is None and hold.expires_at <= now
    return {
        "id": hold.id,
        "source": hold.source,
        "subject": hold.subject,
        "amount": f"{money.from_micros(hold.amount_micros):f}",
        "remaining": f"{money.from_micros(remaining):f}",
        "currency": hold.currency,
        "expires_at": hold.expires_at,
        "state": "expired" if expired else hold.release or "live",
        "released_at": hold.expires_at if expired else hold.released_at,
        "created_at": hold.created_at,
    }
