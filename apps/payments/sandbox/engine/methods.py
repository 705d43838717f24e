"""Customers, and how they pay."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from apps.payments.sandbox import cards, shapes
from apps.payments.sandbox.cards import Card
from apps.payments.sandbox.engine.events import Events
from apps.payments.sandbox.errors import Refused, invalid
from apps.payments.sandbox.store import Body


class Methods(Events):
    """Customers and their payment methods."""

    def create_customer(self, params: Mapping[str, Any]) -> Body:
        made = self.store.add("customer", "cus", shapes.customer(params))
        self.tell("customer.created", made)
        return made

    def update_customer(self, identity: str, params: Mapping[str, Any]) -> Body:
        customer = self.get("customer", identity)
        settings = params.get("invoice_settings", {})
        if "default_payment_method" in settings:
            method = settings["default_payment_method"] or None
            if method and self.get("payment_method", method)["customer"] != identity:
                raise invalid(f"The customer does not have a payment method with the ID {method}.")
            customer["invoice_settings"]["default_payment_method"] = method
        customer.update({name: params[name] for name in ("email", "name", "description") if name in params})
        customer["metadata"] |= params.get("metadata", {})
        self.tell("customer.updated", self.store.save(customer))
        return customer

    def add_method(self, number: str, *, month: int, year: int, email: str = "") -> Body:
        """Store a payment method of a test card's number; no customer has it yet."""
        card = cards.find(number)
        if card is None:
            raise Refused(
                402, "card_error", "Your card number is incorrect.", code="incorrect_number", param="number"
            )
        method = self.store.add("payment_method", "pm", shapes.card_method(card, month, year, email))
        return self._remember_number(method, card.number)

    def _remember_number(self, method: Body, number: str) -> Body:
        # Beside the object, so that what clients see has Stripe's shape.
        self.store.run(
            "INSERT INTO object (id, kind, body) VALUES (?, 'card_number', ?)",
            f"number_{method['id']}",
            f'"{number}"',
        )
        return method

    def card_of(self, method: Body) -> Card:
        rows = self.store.run("SELECT body FROM object WHERE id = ?", f"number_{method['id']}")
        return cards.BY_NUMBER[rows[0][0].strip('"')]

    def method_named(self, identity: str) -> Body:
        """Return a payment method; a ready-made one of test mode becomes a new one."""
        if number := cards.TOKENS.get(identity):
            return self.add_method(number, month=12, year=time.gmtime().tm_year + 3)
        return self.get("payment_method", identity, param="payment_method")

    def attach_method(self, identity: str, customer: str) -> Body:
        method = self.method_named(identity)
        self.get("customer", customer, param="customer")
        card = self.card_of(method)
        if not card.attaches:
            raise self._declined(card.decline)
        return self._attach(method, customer)

    def _attach(self, method: Body, customer: str) -> Body:
        if method["customer"] != customer:
            method["customer"] = customer
            self.tell("payment_method.attached", self.store.save(method))
        return method

    def detach_method(self, identity: str) -> Body:
        method = self.get("payment_method", identity, param="payment_method")
        if method["customer"] is None:
            raise invalid(
                "The payment method you provided is not attached to a customer so detachment is impossible."
            )
        customer = self.get("customer", method["customer"])
        if customer["invoice_settings"]["default_payment_method"] == identity:
            customer["invoice_settings"]["default_payment_method"] = None
            self.store.save(customer)
        before = {"customer": method["customer"]}
        method["customer"], method["_is_spent"] = None, True
        self.tell("payment_method.detached", self.store.save(method), before)
        return method

    def _declined(self, decline: str) -> Refused:
        code, decline_code = cards.codes_of(decline)
        message = cards.MESSAGES.get(decline, "We are unable to authenticate your payment method.")
        more = {} if decline == "payment_intent_authentication_failure" else {"decline_code": decline_code}
        return Refused(402, "card_error", message, code=code, **more)
