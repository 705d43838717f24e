"""What holds still reserve. A hold is shrunk by the usage of its own allocation, posted or not, as it is rated."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from apps.billing.charging import Plan
from apps.billing.models import Hold
from apps.billing.usage import priced_usage, unposted
from apps.core import money

_EARLIEST = """(
    SELECT min(date_trunc('hour', created_at, 'UTC')) FROM billing_hold
    WHERE organization_id = %(organization)s AND released_at IS NULL AND expires_at > %(now)s
)"""


def remaining_micros(
    organization_id: UUID, plan: Plan, *, now: datetime, ids: Collection[UUID] | None = None
) -> dict[UUID, int]:
    """Return what each live hold of an organization still reserves, in micros, in one query.

    That is its amount less what its allocation used since the hold's hour: for each hour, the same share of the
    amount as of the quantity. A hold that was released or has expired reserves nothing and is not among them.
    plan: what is not posted yet. ids: of these holds only.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT held.id, held.amount_micros - round(coalesce(spent.micros, 0))
            FROM billing_hold held
            LEFT JOIN LATERAL (
                SELECT sum(used.quantity / coalesce(open.quantity, charged.quantity)
                           * coalesce(open.micros, charged.amount_micros)) AS micros
                FROM {priced_usage(_EARLIEST)}
                JOIN metering_resource resource ON resource.id = used.resource_id AND NOT resource.is_single_event
                WHERE resource.organization_id = held.organization_id AND resource.subject = held.subject
                  AND held.source IN ('', resource.source)
                  AND used.hour >= date_trunc('hour', held.created_at, 'UTC') AND used.quantity > 0
            ) spent ON true
            WHERE held.organization_id = %(organization)s AND held.released_at IS NULL AND held.expires_at > %(now)s
              AND (%(ids)s::uuid[] IS NULL OR held.id = ANY(%(ids)s::uuid[]))
            """,  # noqa: S608 (nothing but our own clause is put in)
            {
                "organization": organization_id,
                "now": now,
                "ids": None if ids is None else list(ids),
                **unposted(plan),
            },
        )
        return {hold_id: max(int(micros), 0) for hold_id, micros in cursor.fetchall()}


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
