"""Every write of billing, a verb a module: grant credit, hold it, charge usage, run the metering tick."""

from apps.billing.services.charge import ChargeStep, charge_organization
from apps.billing.services.credit import (
    Grant,
    InvalidExpiry,
    bill_receivable,
    expire_lots,
    grant_credit,
    take_unbilled_receipts,
)
from apps.billing.services.holding import (
    InsufficientCredit,
    place_hold,
    release_hold,
    settle_holds,
)
from apps.billing.services.tick import (
    meter_and_charge,
    queue_metering,
)

__all__ = [
    "ChargeStep",
    "Grant",
    "InsufficientCredit",
    "InvalidExpiry",
    "bill_receivable",
    "charge_organization",
    "expire_lots",
    "grant_credit",
    "meter_and_charge",
    "place_hold",
    "queue_metering",
    "release_hold",
    "settle_holds",
    "take_unbilled_receipts",
]
