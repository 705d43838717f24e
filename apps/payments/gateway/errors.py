"""What may go wrong between Stripe and us, as errors of ours."""

from __future__ import annotations

from typing import ClassVar

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.core.errors import DomainError, Unavailable


class GatewayError(DomainError):
    """Stripe did not do what it was asked."""

    code, http_status = "upstream_error", 502
    default_message: ClassVar[str | Promise] = _(
        "The payment service answered with an error. Try again in a minute."
    )


class RefusedByStripe(GatewayError):
    """Stripe will not do that, now or later; nothing was done."""

    code = "payment_refused"
    default_message = _("The payment service refuses this. Ask support.")


class GatewayTimeout(GatewayError):
    """Stripe did not answer in time; whether it acted is not known until it is asked again."""

    code, http_status = "upstream_timeout", 504
    default_message = _(
        "The payment service did not answer in time. Try again in a minute; nothing is charged twice."
    )


class PaymentsOff(Unavailable):
    """No Stripe key is set."""

    code = "payments_off"
    default_message = _("Payments are not set up here. Ask support how to pay.")


class CardRefused(DomainError):
    """The card's bank refused it, or wants to hear from its holder first."""

    code, http_status = "card_refused", 402

    def __init__(self, message: str, *, reason: str) -> None:
        self.reason = reason
        super().__init__(message, reason=reason)


class NotAtStripe(RefusedByStripe):
    """Stripe has no such object."""

    code = "not_at_stripe"


class KeyTooOld(GatewayError):
    """An attempt is too old to be sent again; look up what became of it."""

    code, http_status = "attempt_too_old", 409
    default_message = _("This payment was started too long ago. Start a new one.")
