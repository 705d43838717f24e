"""Charged hours and burns as rows that stream into their tables: a month of an organization has thousands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import connection

from apps.billing.charging import ChargedHour, KeyPlan
from apps.core import binary_copy
from apps.core.ids import uuid7
from apps.core.money import EXACT

_DECIMALS = 6
_COPY_BURNS = """
    COPY billing_burn (organization_id, key_id, hour, lot_id, amount_micros, reversed_micros, transfer_id)
    FROM STDIN (FORMAT binary)
"""
_BURN_FIELDS = (7).to_bytes(2)
_COPY_HOURS = """
    COPY billing_chargehour (id, organization_id, key_id, hour, quantity, amount_micros, revision, charged_at)
    FROM STDIN (FORMAT binary)
"""
_HOUR_FIELDS = (8).to_bytes(2)
_UPDATE_HOURS = """
    UPDATE billing_chargehour stored
       SET quantity = charged.quantity, amount_micros = charged.amount_micros, revision = charged.revision,
           charged_at = %s
      FROM unnest(%s::uuid[], %s::numeric[], %s::bigint[], %s::integer[])
           AS charged (id, quantity, amount_micros, revision)
     WHERE stored.id = charged.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBurn:
    """What is to become a burn: an hour of a key, and the lot that pays it, None for the receivable."""

    key_id: UUID
    hour: datetime
    lot_id: UUID | None
    amount_micros: int


def insert_burns(organization_id: UUID, burns: Sequence[NewBurn], transfer_ids: Sequence[UUID]) -> None:
    """Write burns in their order, which their ids keep, each with the transfer that it posted."""
    organization, nothing = binary_copy.uuid(organization_id), binary_copy.bigint(0)
    binary_copy.send(
        _COPY_BURNS,
        (
            b"".join(
                (
                    _BURN_FIELDS,
                    organization,
                    binary_copy.uuid(burn.key_id),
                    binary_copy.instant(burn.hour),
                    binary_copy.uuid(burn.lot_id),
                    binary_copy.bigint(burn.amount_micros),
                    nothing,
                    binary_copy.uuid(transfer_id),
                )
            )
            for burn, transfer_id in zip(burns, transfer_ids, strict=True)
        ),
    )


def write_hours(plans: Iterable[KeyPlan], *, now: datetime) -> None:
    """Write the touched hours of the plans: new ones are copied, others updated."""
    added: list[bytes] = []
    changed: list[ChargedHour] = []
    at = binary_copy.instant(now)
    for plan in plans:
        of_key = binary_copy.uuid(plan.key.organization_id) + binary_copy.uuid(plan.key.id)
        for hour in sorted(plan.touched):
            row = plan.hours[hour]
            if row.id is not None:
                changed.append(row)
                continue
            added.append(
                b"".join(
                    (
                        _HOUR_FIELDS,
                        binary_copy.uuid(uuid7()),
                        of_key,
                        binary_copy.instant(hour),
                        binary_copy.numeric(_scaled(row.quantity), _DECIMALS),
                        binary_copy.bigint(row.amount_micros),
                        binary_copy.integer(row.revision),
                        at,
                    )
                )
            )
    if added:
        binary_copy.send(_COPY_HOURS, added)
    if changed:
        with connection.cursor() as cursor:
            cursor.execute(
                _UPDATE_HOURS,
                [
                    now,
                    [row.id for row in changed],
                    [row.quantity for row in changed],
                    [row.amount_micros for row in changed],
                    [row.revision for row in changed],
                ],
            )


def _scaled(quantity: Decimal) -> int:
    return int(quantity.scaleb(_DECIMALS, EXACT))
