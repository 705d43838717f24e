"""Payment intents and their charges."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from apps.payments.sandbox import shapes
from apps.payments.sandbox.cards import Card
from apps.payments.sandbox.engine.disputes import Disputes
from apps.payments.sandbox.engine.methods import Methods
from apps.payments.sandbox.errors import Refused, invalid
from apps.payments.sandbox.store import Body, now

BANK_DEBIT = "us_bank_account"
OPEN_INTENTS = ("requires_payment_method", "requires_confirmation", "requires_action")


class Intents(Methods, Disputes):
    """Payments from their first word to their last."""

    def create_intent(self, params: Mapping[str, Any]) -> Body:
        customer = params.get("customer")
        if customer:
            self.get("customer", customer, param="customer")
        intent = self.store.add("payment_intent", "pi", shapes.intent(params))
        intent["client_secret"] = f"{intent['id']}_secret_{secrets.token_hex(8)}"
        if method := params.get("payment_method"):
            intent["payment_method"] = self._usable(method, customer)["id"]
            intent["status"] = "requires_confirmation"
        self.tell("payment_intent.created", self.store.save(intent))
        if params.get("confirm") == "true":
            return self.confirm_intent(intent["id"], params)
        return intent

    def _usable(self, method: str, customer: str | None) -> Body:
        found = self.method_named(method)
        if found.get("_is_spent"):
            raise invalid(
                f"The payment method `{method}` was detached from a customer. It may not be used again.",
                param="payment_method",
            )
        if found["customer"] not in (None, customer):
            raise invalid(
                f"The payment method `{method}` belongs to another customer.", param="payment_method"
            )
        return found

    def confirm_intent(self, identity: str, params: Mapping[str, Any]) -> Body:
        intent = self.get("payment_intent", identity, param="intent")
        if intent["status"] not in OPEN_INTENTS:
            raise self._unexpected(intent, "confirm")
        if method := params.get("payment_method"):
            intent["payment_method"] = self._usable(method, intent["customer"])["id"]
        if not intent["payment_method"]:
            raise invalid(
                "You cannot confirm this PaymentIntent because it's missing a payment method.",
                code="payment_intent_unexpected_state",
            )
        method_body = self._usable(intent["payment_method"], intent["customer"])
        off_session = params.get("off_session") in {"true", "one_off", "recurring"}
        if method_body["type"] == BANK_DEBIT:
            return self._process_debit(intent)
        card = self.card_of(method_body)
        set_up = method_body["customer"] is not None
        if off_session and (card.always_authenticates or (card.authenticates and not set_up)):
            raise self._fail(intent, "authentication_required")
        if not off_session and card.authenticates and (card.always_authenticates or not set_up):
            return self._ask_bank(intent, params.get("return_url"))
        return self._charge(intent, card)

    def _ask_bank(self, intent: Body, return_url: str | None) -> Body:
        intent["status"] = "requires_action"
        intent["next_action"] = {
            "type": "redirect_to_url",
            "redirect_to_url": {"url": f"{self.base_url}/3ds/{intent['id']}", "return_url": return_url},
        }
        self.tell("payment_intent.requires_action", self.store.save(intent))
        return intent

    def authenticate(self, identity: str, *, passes: bool) -> Body:
        """Finish what the bank asked; raises Refused when it was not passed or the card is declined after it."""
        intent = self.get("payment_intent", identity)
        if intent["status"] != "requires_action":
            raise self._unexpected(intent, "authenticate")
        if not passes:
            raise self._fail(intent, "payment_intent_authentication_failure")
        return self._charge(intent, self.card_of(self.get("payment_method", intent["payment_method"])))

    def _charge(self, intent: Body, card: Card) -> Body:
        if card.decline:
            raise self._fail(intent, card.decline)
        charge = self._add_charge(intent, status="succeeded")
        self._succeed(intent, charge)
        if card.dispute:
            self.open_dispute(charge["id"], reason=card.dispute)
        return self.get("payment_intent", intent["id"])

    def _succeed(self, intent: Body, charge: Body) -> None:
        intent |= {
            "status": "succeeded",
            "amount_received": intent["amount"],
            "latest_charge": charge["id"],
            "last_payment_error": None,
            "next_action": None,
        }
        if intent["setup_future_usage"] and intent["customer"]:
            self._attach(self.get("payment_method", intent["payment_method"]), intent["customer"])
        self.tell("charge.succeeded", charge)
        self.tell("payment_intent.succeeded", self.store.save(intent))

    def _add_charge(self, intent: Body, *, status: str, decline: str = "") -> Body:
        method = self.get("payment_method", intent["payment_method"])
        charge = self.store.add("charge", "ch", shapes.charge(intent, method, status=status, decline=decline))
        charge["receipt_url"] = f"{self.base_url}/receipts/{charge['id']}"
        return self.store.save(charge)

    def _fail(self, intent: Body, decline: str) -> Refused:
        """Store a refused attempt and return the refusal to raise; the caller's transaction must still commit."""
        refusal = self._declined(decline)
        error = refusal.body["error"]
        charge = self._add_charge(intent, status="failed", decline=decline)
        error["charge"] = charge["id"]
        method = intent["payment_method"]
        intent |= {
            "status": "requires_payment_method",
            "latest_charge": charge["id"],
            "last_payment_error": {
                **error, "payment_method": self.get("payment_method", method),
            },
            "next_action": None,
            "payment_method": None,
        }  # fmt: skip
        self.tell("charge.failed", charge)
        self.tell("payment_intent.payment_failed", self.store.save(intent))
        error["payment_intent"] = dict(intent)
        return refusal

    def _process_debit(self, intent: Body) -> Body:
        charge = self._add_charge(intent, status="pending")
        intent |= {"status": "processing", "latest_charge": charge["id"], "next_action": None}
        self.tell("charge.pending", charge)
        self.tell("payment_intent.processing", self.store.save(intent))
        return intent

    def settle_debit(self, identity: str, *, succeeds: bool) -> Body:
        """End a payment that takes days, one way or the other; its Checkout hears of it too."""
        intent = self.get("payment_intent", identity)
        if intent["status"] != "processing":
            raise self._unexpected(intent, "settle")
        charge = self.get("charge", intent["latest_charge"])
        if succeeds:
            charge |= {
                "status": "succeeded",
                "paid": True,
                "captured": True,
                "amount_captured": charge["amount"],
            }
            self._succeed(intent, self.store.save(charge))
        else:
            charge |= {"status": "failed", "failure_code": "debit_not_authorized"}
            message = "The bank refused the debit."
            intent |= {
                "status": "requires_payment_method",
                "last_payment_error": {
                    "type": "invalid_request_error", "code": "payment_method_provider_decline", "message": message,
                },
                "payment_method": None,
            }  # fmt: skip
            self.tell("charge.failed", self.store.save(charge))
            self.tell("payment_intent.payment_failed", self.store.save(intent))
        for session in self.store.newest("checkout.session"):
            if session["payment_intent"] == identity:
                session["payment_status"] = "paid" if succeeds else "unpaid"
                outcome = "succeeded" if succeeds else "failed"
                self.tell(f"checkout.session.async_payment_{outcome}", self.store.save(session))
        return intent

    def cancel_intent(self, identity: str, params: Mapping[str, Any]) -> Body:
        intent = self.get("payment_intent", identity, param="intent")
        if intent["status"] not in OPEN_INTENTS:
            raise self._unexpected(intent, "cancel")
        intent |= {
            "status": "canceled",
            "canceled_at": now(),
            "cancellation_reason": params.get("cancellation_reason"),
            "next_action": None,
        }
        self.tell("payment_intent.canceled", self.store.save(intent))
        return intent

    def _unexpected(self, intent: Body, verb: str) -> Refused:
        refusal = invalid(
            f"You cannot {verb} this PaymentIntent because it has a status of {intent['status']}.",
            code="payment_intent_unexpected_state",
        )
        refusal.body["error"]["payment_intent"] = intent
        return refusal
