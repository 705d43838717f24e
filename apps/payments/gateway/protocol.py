"""What payments ask of Stripe and what it answers, in types of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from apps.payments.gateway.errors import KeyTooOld

# Stripe may forget a key after 24 hours; sent again after that, it would act again.
KEY_LASTS = timedelta(hours=23)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where Stripe sends its webhooks, and what of. api_version: empty where the account's own counts."""

    url: str
    event_types: frozenset[str]
    is_enabled: bool
    api_version: str


class Gateway(Protocol):
    """What payments ask of Stripe."""

    def account(self) -> str: ...
    def endpoints(self) -> Iterator[Endpoint]: ...
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
