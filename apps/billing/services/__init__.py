"""Every write of billing, a verb a module: grant credit, charge usage, run the metering tick."""

from apps.billing.services.charge import ChargeStep, charge_organization
from apps.billing.services.credit import (
    Grant,
    InvalidExpiry,
    bill_receivable,
    expire_lots,
    grant_credit,
    take_unbilled_receipts,
)
from apps.billing.services.tick import (
    meter_and_charge,
    queue_metering,
)

__all__ = [
    "ChargeStep",
    "Grant",
    "InvalidExpiry",
    "bill_receivable",
    "charge_organization",
    "expire_lots",
    "grant_credit",
    "meter_and_charge",
    "queue_metering",
    "take_unbilled_receipts",
]
