"""The queue between metering and charging: sums that changed, taken exactly once."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import connection, transaction

from apps.metering.selectors import UsageSlot


@transaction.atomic
def claim_changes(*, organization_id: UUID, before: datetime, limit: int) -> tuple[int, set[UsageSlot]]:
    """Take at most `limit` changes of hours before a moment off the queue, earliest hours first.

    Returns how many rows that were and the slots they name. Exactly these rows are deleted, so a change committed
    meanwhile stays for the next claim; they come back if the caller's transaction fails.
    """
    with connection.cursor() as cursor:
        # An array is built once. `IN (SELECT … LIMIT … FOR UPDATE)` may be run again for each row of a nested loop, and
        # skips what this very statement has deleted, so that it would take more than the limit.
        cursor.execute(
            """
            DELETE FROM metering_usagechange WHERE id = ANY(ARRAY(
                SELECT id FROM metering_usagechange WHERE organization_id = %s AND hour < %s
                ORDER BY hour, id LIMIT %s FOR UPDATE
            )) RETURNING meter, sku, region, hour
            """,
            [organization_id, before, limit],
        )
        rows = cursor.fetchall()
    return len(rows), {UsageSlot(*row) for row in rows}
