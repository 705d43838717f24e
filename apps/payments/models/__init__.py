"""Attempts to move money through Stripe, saved cards, refunds, disputes, and the inbox of its webhooks."""

from apps.payments.models.cards import (
    CardSetup,
    CardSetupState,
    PaymentMethod,
    PaymentMethodQuerySet,
    StripeCustomer,
)
from apps.payments.models.collecting import (
    AutoTopUp,
    AutoTopUpState,
    Collection,
    CollectionState,
)
from apps.payments.models.inbox import (
    EventState,
    StripeEvent,
    StripeEventQuerySet,
)
from apps.payments.models.payments import (
    LIVE_STATES,
    Payment,
    PaymentKind,
    PaymentQuerySet,
    PaymentState,
)
from apps.payments.models.reconciling import (
    Difference,
    DifferenceKind,
    Reconciliation,
)
from apps.payments.models.returns import (
    HOLDING_STATES,
    UNFINISHED_STATES,
    Dispute,
    Refund,
    RefundDestination,
    RefundQuerySet,
    RefundState,
)

__all__ = [
    "HOLDING_STATES",
    "LIVE_STATES",
    "UNFINISHED_STATES",
    "AutoTopUp",
    "AutoTopUpState",
    "CardSetup",
    "CardSetupState",
    "Collection",
    "CollectionState",
    "Difference",
    "DifferenceKind",
    "Dispute",
    "EventState",
    "Payment",
    "PaymentKind",
    "PaymentMethod",
    "PaymentMethodQuerySet",
    "PaymentQuerySet",
    "PaymentState",
    "Reconciliation",
    "Refund",
    "RefundDestination",
    "RefundQuerySet",
    "RefundState",
    "StripeCustomer",
    "StripeEvent",
    "StripeEventQuerySet",
]
