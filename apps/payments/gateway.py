"""The only module that speaks to Stripe: typed questions and answers, and errors of our own.

Stripe's library makes no retries unless told, waits 80 seconds unless told, and makes up an idempotency key for each
call that names none; here each of these is said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, ClassVar, Protocol

import stripe
import structlog
from django.conf import settings
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from apps.core import money
from apps.core.errors import DomainError, Unavailable

logger = structlog.get_logger(__name__)

API_VERSION = "2026-10-28.endive"
TIMEOUT_SECONDS = (3, 10)  # To connect, to answer.
RETRIES = 2
# Stripe may forget a key after 24 hours; sent again after that, it would act again.
KEY_LASTS = timedelta(hours=23)
_PAGE = 100
# Where Stripe counts a currency otherwise than ISO 4217 does: docs.stripe.com/currencies.
_STRIPE_EXPONENTS = {"ISK": 2, "UGX": 2, "MGA": 0}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An idempotency key derived from a row of ours, and the moment it was first sent."""

    text: str
    since: datetime

    def checked(self, now: datetime) -> str:
        """Return the key, or raise KeyTooOld where Stripe may have forgotten it."""
        if now - self.since >= KEY_LASTS:
            raise KeyTooOld
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A Checkout session. reference: the id of our row that it was made for."""

    id: str
    status: str
    payment_status: str
    url: str
    reference: str
    intent_id: str | None
    setup_id: str | None
    customer_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A payment intent; amounts in ISO minor units. reference: the id of our payment."""

    id: str
    status: str
    amount_minor: int
    received_minor: int
    currency: str
    reference: str
    customer_id: str | None
    charge_id: str | None
    failure_code: str
    failure_message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a charge's page says: where its receipt is, and with what it was paid."""

    url: str
    paid_with: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A saved payment method."""

    id: str
    customer_id: str | None
    kind: str
    brand: str
    last4: str
    exp_month: int | None
    exp_year: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundAnswer:
    """A refund; amount in ISO minor units. reference: the id of our row, empty where it was made at Stripe directly."""

    id: str
    status: str
    amount_minor: int
    currency: str
    intent_id: str | None
    reference: str
    failure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeAnswer:
    """A dispute; withdrawn and reinstated say which of the funds' moves Stripe has booked."""

    id: str
    status: str
    reason: str
    amount_minor: int
    currency: str
    intent_id: str | None
    withdrawn: bool
    reinstated: bool
    due_by: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventNote:
    """That something happened to an object."""

    id: str
    event_type: str
    object_id: str
    account: str
    is_live: bool
    happened_at: datetime
    body: bytes


class Gateway(Protocol):
    """What payments ask of Stripe."""

    def account(self) -> str: ...
    def create_customer(self, *, name: str, email: str, reference: str, key: Key) -> str: ...
    def create_payment_session(
        self, *, customer_id: str, reference: str, description: str, amount_minor: int, currency: str,
        save_card: bool, success_url: str, cancel_url: str, expires_at: datetime | None, key: Key,
    ) -> Session: ...  # fmt: skip
    def create_setup_session(
        self, *, customer_id: str, reference: str, currency: str, success_url: str, cancel_url: str, key: Key
    ) -> Session: ...
    def session(self, session_id: str) -> Session: ...
    def find_session(self, *, customer_id: str, reference: str) -> Session | None: ...
    def expire_session(self, session_id: str) -> None: ...
    def create_intent(
        self, *, customer_id: str, method_id: str, reference: str, description: str, amount_minor: int,
        currency: str, key: Key,
    ) -> Intent: ...  # fmt: skip
    def confirm_intent(self, intent_id: str, *, off_session: bool, return_url: str, key: Key) -> Intent: ...
    def cancel_intent(self, intent_id: str, *, key: Key) -> None: ...
    def intent(self, intent_id: str) -> Intent: ...
    def find_intent(self, *, customer_id: str, reference: str) -> Intent | None: ...
    def receipt(self, charge_id: str) -> Receipt: ...
    def card_of_setup(self, setup_id: str) -> Card | None: ...
    def card(self, method_id: str) -> Card: ...
    def detach_card(self, method_id: str) -> None: ...
    def create_refund(
        self, *, intent_id: str, amount_minor: int, currency: str, reference: str, key: Key
    ) -> RefundAnswer: ...
    def refund(self, refund_id: str) -> RefundAnswer: ...
    def find_refund(self, *, intent_id: str, reference: str) -> RefundAnswer | None: ...
    def dispute(self, dispute_id: str) -> DisputeAnswer: ...
    def intents(self, *, since: datetime, until: datetime) -> Iterator[Intent]: ...
    def refunds(self, *, since: datetime, until: datetime) -> Iterator[RefundAnswer]: ...
    def disputes(self, *, since: datetime, until: datetime) -> Iterator[DisputeAnswer]: ...
    def events(self, *, since: datetime, types: Sequence[str]) -> Iterator[EventNote]: ...


def is_live_key(key: str) -> bool:
    """Return whether a key moves real money."""
    return key.startswith(("sk_live_", "rk_live_"))


def current() -> Gateway:
    """Return the gateway of the settings, or raise PaymentsOff."""
    if not settings.STRIPE_SECRET_KEY:
        raise PaymentsOff
    return _gateway(settings.STRIPE_SECRET_KEY, settings.STRIPE_API_BASE)


@cache
def _gateway(secret_key: str, api_base: str) -> StripeGateway:
    return StripeGateway(secret_key=secret_key, api_base=api_base)


# A forked worker that went on with its parent's connections would read the answers to its siblings' questions.
os.register_at_fork(after_in_child=_gateway.cache_clear)


class StripeGateway:
    """Stripe behind its own library, version and manners pinned."""

    def __init__(self, *, secret_key: str, api_base: str = "") -> None:
        self._api = stripe.StripeClient(
            secret_key,
            stripe_version=API_VERSION,
            max_network_retries=RETRIES,
            http_client=stripe.RequestsClient(timeout=TIMEOUT_SECONDS),
            base_addresses={"api": api_base} if api_base else {},
        ).v1

    def account(self) -> str:
        """Return the id of the account that the key is of."""
        return str(_asked(self._api.accounts.retrieve_current).id)

    # --- Customers ---

    def create_customer(self, *, name: str, email: str, reference: str, key: Key) -> str:
        params: dict[str, Any] = {"name": name, "metadata": {"reference": reference}}
        if email:
            params["email"] = email
        return str(self._write(self._api.customers.create, params, key=key).id)

    # --- Checkout ---

    def create_payment_session(
        self,
        *,
        customer_id: str,
        reference: str,
        description: str,
        amount_minor: int,
        currency: str,
        save_card: bool,
        success_url: str,
        cancel_url: str,
        expires_at: datetime | None,
        key: Key,
    ) -> Session:
        metadata = {"reference": reference}
        intent: dict[str, Any] = {"metadata": metadata, "description": description}
        if save_card:
            intent["setup_future_usage"] = "off_session"
        price = {
            "currency": currency.lower(),
            "unit_amount": to_stripe(amount_minor, currency),
            "product_data": {"name": description},
        }
        params: dict[str, Any] = {
            "mode": "payment",
            "customer": customer_id,
            "client_reference_id": reference,
            "metadata": metadata,
            "payment_intent_data": intent,
            "line_items": [{"quantity": 1, "price_data": price}],
            "success_url": success_url,
            "cancel_url": cancel_url,
        }
        if expires_at is not None:
            params["expires_at"] = int(expires_at.timestamp())
        return _session(self._write(self._api.checkout.sessions.create, params, key=key))

    def create_setup_session(
        self, *, customer_id: str, reference: str, currency: str, success_url: str, cancel_url: str, key: Key
    ) -> Session:
        params: dict[str, Any] = {
            "mode": "setup",
            "customer": customer_id,
            "client_reference_id": reference,
            "currency": currency.lower(),
            "metadata": {"reference": reference},
            "success_url": success_url,
            "cancel_url": cancel_url,
        }
        return _session(self._write(self._api.checkout.sessions.create, params, key=key))

    def session(self, session_id: str) -> Session:
        return _session(_asked(lambda: self._api.checkout.sessions.retrieve(session_id)))

    def find_session(self, *, customer_id: str, reference: str) -> Session | None:
        params: Any = {"customer": customer_id, "limit": _PAGE}
        found = map(_session, _pages(lambda: self._api.checkout.sessions.list(params)))
        return next((session for session in found if session.reference == reference), None)

    def expire_session(self, session_id: str) -> None:
        _asked(lambda: self._api.checkout.sessions.expire(session_id))

    # --- Intents ---

    def create_intent(
        self,
        *,
        customer_id: str,
        method_id: str,
        reference: str,
        description: str,
        amount_minor: int,
        currency: str,
        key: Key,
    ) -> Intent:
        params: dict[str, Any] = {
            "amount": to_stripe(amount_minor, currency),
            "currency": currency.lower(),
            "customer": customer_id,
            "payment_method": method_id,
            "description": description,
            "metadata": {"reference": reference},
            "automatic_payment_methods": {"enabled": True},
        }
        return _intent(self._write(self._api.payment_intents.create, params, key=key))

    def confirm_intent(self, intent_id: str, *, off_session: bool, return_url: str, key: Key) -> Intent:
        params: dict[str, Any] = {"off_session": True} if off_session else {"return_url": return_url}
        options: Any = {"idempotency_key": key.checked(timezone.now())}
        return _intent(
            _asked(lambda: self._api.payment_intents.confirm(intent_id, params, options))  # type: ignore[arg-type]
        )

    def cancel_intent(self, intent_id: str, *, key: Key) -> None:
        options: Any = {"idempotency_key": key.checked(timezone.now())}
        _asked(lambda: self._api.payment_intents.cancel(intent_id, {}, options))

    def intent(self, intent_id: str) -> Intent:
        return _intent(_asked(lambda: self._api.payment_intents.retrieve(intent_id)))

    def find_intent(self, *, customer_id: str, reference: str) -> Intent | None:
        params: Any = {"customer": customer_id, "limit": _PAGE}
        found = map(_intent, _pages(lambda: self._api.payment_intents.list(params)))
        return next((intent for intent in found if intent.reference == reference), None)

    def receipt(self, charge_id: str) -> Receipt:
        charge = _asked(lambda: self._api.charges.retrieve(charge_id))
        details = charge.payment_method_details
        card = getattr(details, "card", None) if details else None
        paid_with = (
            f"{str(card.brand).title()} •••• {card.last4}" if card else str(details.type if details else "")
        )
        return Receipt(url=charge.receipt_url or "", paid_with=paid_with)

    # --- Cards ---

    def card_of_setup(self, setup_id: str) -> Card | None:
        setup = _asked(lambda: self._api.setup_intents.retrieve(setup_id))
        return self.card(str(setup.payment_method)) if setup.payment_method else None

    def card(self, method_id: str) -> Card:
        method = _asked(lambda: self._api.payment_methods.retrieve(method_id))
        card = getattr(method, "card", None)
        return Card(
            id=method.id,
            customer_id=str(method.customer) if method.customer else None,
            kind=method.type,
            brand=card.brand if card else "",
            last4=(card.last4 or "") if card else "",
            exp_month=card.exp_month if card else None,
            exp_year=card.exp_year if card else None,
        )

    def detach_card(self, method_id: str) -> None:
        _asked(lambda: self._api.payment_methods.detach(method_id))

    # --- Refunds and disputes ---

    def create_refund(
        self, *, intent_id: str, amount_minor: int, currency: str, reference: str, key: Key
    ) -> RefundAnswer:
        params: dict[str, Any] = {
            "payment_intent": intent_id,
            "amount": to_stripe(amount_minor, currency),
            "metadata": {"reference": reference},
        }
        return _refund(self._write(self._api.refunds.create, params, key=key))

    def refund(self, refund_id: str) -> RefundAnswer:
        return _refund(_asked(lambda: self._api.refunds.retrieve(refund_id)))

    def find_refund(self, *, intent_id: str, reference: str) -> RefundAnswer | None:
        params: Any = {"payment_intent": intent_id, "limit": _PAGE}
        found = map(_refund, _pages(lambda: self._api.refunds.list(params)))
        return next((refund for refund in found if refund.reference == reference), None)

    def dispute(self, dispute_id: str) -> DisputeAnswer:
        return _dispute(_asked(lambda: self._api.disputes.retrieve(dispute_id)))

    # --- Everything of a span of time, oldest last ---

    def intents(self, *, since: datetime, until: datetime) -> Iterator[Intent]:
        params = _span(since, until)
        return map(_intent, _pages(lambda: self._api.payment_intents.list(params)))

    def refunds(self, *, since: datetime, until: datetime) -> Iterator[RefundAnswer]:
        params = _span(since, until)
        return map(_refund, _pages(lambda: self._api.refunds.list(params)))

    def disputes(self, *, since: datetime, until: datetime) -> Iterator[DisputeAnswer]:
        params = _span(since, until)
        return map(_dispute, _pages(lambda: self._api.disputes.list(params)))

    def events(self, *, since: datetime, types: Sequence[str]) -> Iterator[EventNote]:
        params: Any = {"created": {"gte": int(since.timestamp())}, "types": list(types), "limit": _PAGE}
        return map(_event, _pages(lambda: self._api.events.list(params)))

    def _write(self, call: Callable[..., Any], params: Mapping[str, Any], *, key: Key) -> Any:
        options = {"idempotency_key": key.checked(timezone.now())}
        return _asked(lambda: call(params, options))


def _asked[T](call: Callable[[], T]) -> T:
    """Make a call and raise what went wrong as an error of ours; what Stripe said goes to the log."""
    try:
        return call()
    except stripe.CardError as error:
        reason = error.code or "card_declined"
        if error.error is not None and reason == "card_declined":
            reason = error.error.decline_code or reason
        raise CardRefused(error.user_message or str(error), reason=reason) from error
    except stripe.APIConnectionError as error:
        logger.warning("stripe_unreachable", reason=str(error))
        raise GatewayTimeout from error
    except stripe.InvalidRequestError as error:
        if error.code == "resource_missing":
            raise NotAtStripe(str(error.user_message or error)) from error
        logger.exception("stripe_refused", reason=str(error), code=error.code, request=error.request_id)
        raise RefusedByStripe from error
    except stripe.StripeError as error:
        logger.warning("stripe_failed", reason=str(error), status=error.http_status, request=error.request_id)
        raise GatewayError from error


def _pages(first: Callable[[], Any]) -> Iterator[Any]:
    """Yield every object of a list, asking for further pages as they are needed."""
    pages = _asked(first).auto_paging_iter()
    while True:
        try:
            yield _asked(lambda: next(pages))
        except StopIteration:
            return


def _span(since: datetime, until: datetime) -> Any:
    return {"created": {"gte": int(since.timestamp()), "lt": int(until.timestamp())}, "limit": _PAGE}


def to_stripe(minor: int, currency: str) -> int:
    """Return ISO minor units as Stripe counts them; ValueError where Stripe has no such amount."""
    shift = _STRIPE_EXPONENTS.get(currency, money.exponent(currency)) - money.exponent(currency)
    if shift >= 0:
        return int(minor * 10**shift)
    amount, rest = divmod(minor, 10**-shift)
    if rest:
        raise ValueError(f"Stripe takes no fractions of {currency}")
    return int(amount)


def from_stripe(amount: int, currency: str) -> int:
    """Return an amount as Stripe counts it in ISO minor units; ValueError for what ISO cannot say."""
    code = currency.upper()
    shift = money.exponent(code) - _STRIPE_EXPONENTS.get(code, money.exponent(code))
    if shift >= 0:
        return int(amount * 10**shift)
    minor, rest = divmod(amount, 10**-shift)
    if rest:
        raise ValueError(f"{code} has no such fractions")
    return int(minor)


def _session(found: Any) -> Session:
    return Session(
        id=found.id,
        status=found.status or "",
        payment_status=found.payment_status,
        url=found.url or "",
        reference=found.client_reference_id or "",
        intent_id=_id(found.payment_intent),
        setup_id=_id(found.setup_intent),
        customer_id=_id(found.customer),
    )


def _intent(found: Any) -> Intent:
    error = found.last_payment_error
    return Intent(
        id=found.id,
        status=found.status,
        amount_minor=from_stripe(found.amount, found.currency),
        received_minor=from_stripe(found.amount_received, found.currency),
        currency=found.currency.upper(),
        reference=_reference(found),
        customer_id=_id(found.customer),
        charge_id=_id(found.latest_charge),
        failure_code=(getattr(error, "decline_code", None) or getattr(error, "code", None) or "")
        if error
        else "",
        failure_message=(getattr(error, "message", None) or "") if error else "",
    )


def _refund(found: Any) -> RefundAnswer:
    return RefundAnswer(
        id=found.id,
        status=found.status or "",
        amount_minor=from_stripe(found.amount, found.currency),
        currency=found.currency.upper(),
        intent_id=_id(found.payment_intent),
        reference=_reference(found),
        failure=getattr(found, "failure_reason", None) or "",
    )


def _dispute(found: Any) -> DisputeAnswer:
    moves = [row.amount for row in found.balance_transactions]
    due_by = found.evidence_details.due_by
    return DisputeAnswer(
        id=found.id,
        status=found.status,
        reason=found.reason,
        amount_minor=from_stripe(found.amount, found.currency),
        currency=found.currency.upper(),
        intent_id=_id(found.payment_intent),
        withdrawn=any(amount < 0 for amount in moves),
        reinstated=any(amount > 0 for amount in moves),
        due_by=datetime.fromtimestamp(due_by, UTC) if due_by else None,
    )


def _event(found: Any) -> EventNote:
    return EventNote(
        id=found.id,
        event_type=found.type,
        object_id=str(getattr(found.data.object, "id", "")),
        account=getattr(found, "account", None) or "",
        is_live=found.livemode,
        happened_at=datetime.fromtimestamp(found.created, UTC),
        body=str(found).encode(),
    )


def _reference(found: Any) -> str:
    return str(getattr(found.metadata, "reference", "") or "") if found.metadata else ""


def _id(value: Any) -> str | None:
    """Return the id of what is an id, an object or nothing."""
    if value is None or isinstance(value, str):
        return value
    return str(value.id)
