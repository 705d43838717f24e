"""Every write of billing, a verb a module: grant, take back, receive, hold, charge, serve invoices, guard, tick."""

from apps.billing.services.budgeting import (
    TooManyBudgets,
    change_budget,
    create_budget,
    end_budget,
    settle_budgets,
)
from apps.billing.services.charge import ChargeStep, charge_organization
from apps.billing.services.credit import (
    AlreadyGranted,
    Grant,
    InvalidExpiry,
    expire_lots,
    grant_credit,
    open_lot,
    put_unbilled_receipts,
)
from apps.billing.services.expiring import tell_expiring_credit
from apps.billing.services.guarding import (
    NotPostpaid,
    decide_spending,
    set_credit_limit,
    set_warning,
    settle_state,
    suspend_spending,
)
from apps.billing.services.holding import (
    InsufficientCredit,
    SpendingSuspended,
    check_and_hold,
    place_hold,
    release_hold,
    settle_holds,
)
from apps.billing.services.invoicing import (
    bill_receivable,
    give_credit,
    paid_credit_micros,
    pay_from_credit,
    reopen_keys,
    settle_from_credit,
    take_unbilled_receipts,
    unbill_receivable,
    unbilled_debt_micros,
    unbilled_receipts_micros,
)
from apps.billing.services.payments import (
    NotEnoughLeft,
    give_back,
    receive_payment,
    take_back,
    take_from_lots,
)
from apps.billing.services.tick import (
    meter_and_charge,
    queue_metering,
)
from apps.billing.services.withdrawing import (
    AlreadyTakenBack,
    CreditNotGranted,
    CreditSpent,
    withdraw_credit,
)

__all__ = [
    "AlreadyGranted",
    "AlreadyTakenBack",
    "ChargeStep",
    "CreditNotGranted",
    "CreditSpent",
    "Grant",
    "InsufficientCredit",
    "InvalidExpiry",
    "NotEnoughLeft",
    "NotPostpaid",
    "SpendingSuspended",
    "TooManyBudgets",
    "bill_receivable",
    "change_budget",
    "charge_organization",
    "check_and_hold",
    "create_budget",
    "decide_spending",
    "end_budget",
    "expire_lots",
    "give_back",
    "give_credit",
    "grant_credit",
    "meter_and_charge",
    "open_lot",
    "paid_credit_micros",
    "pay_from_credit",
    "place_hold",
    "put_unbilled_receipts",
    "queue_metering",
    "receive_payment",
    "release_hold",
    "reopen_keys",
    "set_credit_limit",
    "set_warning",
    "settle_budgets",
    "settle_from_credit",
    "settle_holds",
    "settle_state",
    "suspend_spending",
    "take_back",
    "take_from_lots",
    "take_unbilled_receipts",
    "tell_expiring_credit",
    "unbill_receivable",
    "unbilled_debt_micros",
    "unbilled_receipts_micros",
    "withdraw_credit",
]
