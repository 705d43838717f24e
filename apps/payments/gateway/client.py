"""Stripe behind its own library: the only module that imports it.

The library makes no retries unless told, waits 80 seconds unless told, and makes up an idempotency key for each call
that names none; here each of these is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import batched
from typing import Any

import stripe
import structlog
from django.utils import timezone

from apps.payments.gateway import reading
from apps.payments.gateway.errors import (
    CardRefused,
    GatewayError,
    GatewayTimeout,
    NotAtStripe,
    RefusedByStripe,
)
from apps.payments.gateway.protocol import (
    Card,
    DisputeAnswer,
    Endpoint,
    EventNote,
    Intent,
    Key,
    Receipt,
    RefundAnswer,
    Session,
)

logger = structlog.get_logger(__name__)

API_VERSION = "2026-10-28.endive"
TIMEOUT_SECONDS = (3, 10)  # To connect, to answer.
RETRIES = 2
_PAGE = 100
_TYPES_AT_ONCE = 20  # Stripe refuses a list of events that names more.


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

    def endpoints(self) -> Iterator[Endpoint]:
        params: Any = {"limit": _PAGE}
        return map(reading.endpoint, _pages(lambda: self._api.webhook_endpoints.list(params)))

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
            "unit_amount": reading.to_stripe(amount_minor, currency),
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
        return reading.session(self._write(self._api.checkout.sessions.create, params, key=key))

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
        return reading.session(self._write(self._api.checkout.sessions.create, params, key=key))

    def session(self, session_id: str) -> Session:
        return reading.session(_asked(lambda: self._api.checkout.sessions.retrieve(session_id)))

    def find_session(self, *, customer_id: str, reference: str) -> Session | None:
        params: Any = {"customer": customer_id, "limit": _PAGE}
        found = map(reading.session, _pages(lambda: self._api.checkout.sessions.list(params)))
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
            "amount": reading.to_stripe(amount_minor, currency),
            "currency": currency.lower(),
            "customer": customer_id,
            "payment_method": method_id,
            "description": description,
            "metadata": {"reference": reference},
            "automatic_payment_methods": {"enabled": True},
        }
        return reading.intent(self._write(self._api.payment_intents.create, params, key=key))

    def confirm_intent(self, intent_id: str, *, off_session: bool, return_url: str, key: Key) -> Intent:
        params: Any = {"off_session": True} if off_session else {"return_url": return_url}
        options: Any = {"idempotency_key": key.checked(timezone.now())}
        return reading.intent(_asked(lambda: self._api.payment_intents.confirm(intent_id, params, options)))

    def cancel_intent(self, intent_id: str, *, key: Key) -> None:
        options: Any = {"idempotency_key": key.checked(timezone.now())}
        _asked(lambda: self._api.payment_intents.cancel(intent_id, {}, options))

    def intent(self, intent_id: str) -> Intent:
        return reading.intent(_asked(lambda: self._api.payment_intents.retrieve(intent_id)))

    def find_intent(self, *, customer_id: str, reference: str) -> Intent | None:
        params: Any = {"customer": customer_id, "limit": _PAGE}
        found = map(reading.intent, _pages(lambda: self._api.payment_intents.list(params)))
        return next((intent for intent in found if intent.reference == reference), None)

    def receipt(self, charge_id: str) -> Receipt:
        return reading.receipt(_asked(lambda: self._api.charges.retrieve(charge_id)))

    # --- Cards ---

    def card_of_setup(self, setup_id: str) -> Card | None:
        setup = _asked(lambda: self._api.setup_intents.retrieve(setup_id))
        return self.card(str(setup.payment_method)) if setup.payment_method else None

    def card(self, method_id: str) -> Card:
        return reading.card(_asked(lambda: self._api.payment_methods.retrieve(method_id)))

    def detach_card(self, method_id: str) -> None:
        _asked(lambda: self._api.payment_methods.detach(method_id))

    # --- Refunds and disputes ---

    def create_refund(
        self, *, intent_id: str, amount_minor: int, currency: str, reference: str, key: Key
    ) -> RefundAnswer:
        params: dict[str, Any] = {
            "payment_intent": intent_id,
            "amount": reading.to_stripe(amount_minor, currency),
            "metadata": {"reference": reference},
        }
        return reading.refund(self._write(self._api.refunds.create, params, key=key))

    def refund(self, refund_id: str) -> RefundAnswer:
        return reading.refund(_asked(lambda: self._api.refunds.retrieve(refund_id)))

    def find_refund(self, *, intent_id: str, reference: str) -> RefundAnswer | None:
        params: Any = {"payment_intent": intent_id, "limit": _PAGE}
        found = map(reading.refund, _pages(lambda: self._api.refunds.list(params)))
        return next((refund for refund in found if refund.reference == reference), None)

    def dispute(self, dispute_id: str) -> DisputeAnswer:
        return reading.dispute(_asked(lambda: self._api.disputes.retrieve(dispute_id)))

    # --- Everything of a span of time, oldest last ---

    def intents(self, *, since: datetime, until: datetime) -> Iterator[Intent]:
        params = _span(since, until)
        return map(reading.intent, _pages(lambda: self._api.payment_intents.list(params)))

    def refunds(self, *, since: datetime, until: datetime) -> Iterator[RefundAnswer]:
        params = _span(since, until)
        return map(reading.refund, _pages(lambda: self._api.refunds.list(params)))

    def disputes(self, *, since: datetime, until: datetime) -> Iterator[DisputeAnswer]:
        params = _span(since, until)
        return map(reading.dispute, _pages(lambda: self._api.disputes.list(params)))

    def events(self, *, since: datetime, types: Sequence[str]) -> Iterator[EventNote]:
        created = {"gte": int(since.timestamp())}
        for part in batched(types, _TYPES_AT_ONCE):
            params: Any = {"created": created, "types": list(part), "limit": _PAGE}
            yield from map(reading.event, _pages(partial(self._api.events.list, params)))

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
