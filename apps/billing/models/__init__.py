"""The tables of billing."""

from apps.billing.models.budgets import (
    Budget,
    BudgetAction,
    BudgetNotice,
    BudgetQuerySet,
    BudgetScope,
)
from apps.billing.models.charges import (
    AMOUNT_MICROS_MAX,
    BillingProgress,
    Burn,
    ChargeHour,
    ChargeKey,
    ChargeKeyQuerySet,
    CreditLot,
    CreditLotQuerySet,
    Pot,
)
from apps.billing.models.guard import (
    BillingTransition,
    Hold,
    HoldQuerySet,
    HoldRelease,
    SpendGuard,
    StopRequest,
)

__all__ = [
    "AMOUNT_MICROS_MAX",
    "BillingProgress",
    "BillingTransition",
    "Budget",
    "BudgetAction",
    "BudgetNotice",
    "BudgetQuerySet",
    "BudgetScope",
    "Burn",
    "ChargeHour",
    "ChargeKey",
    "ChargeKeyQuerySet",
    "CreditLot",
    "CreditLotQuerySet",
    "Hold",
    "HoldQuerySet",
    "HoldRelease",
    "Pot",
    "SpendGuard",
    "StopRequest",
]
