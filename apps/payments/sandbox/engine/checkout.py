"""Checkout sessions: what the hosted pages do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.payments.sandbox import shapes
from apps.payments.sandbox.engine.intents import Intents
from apps.payments.sandbox.errors import invalid
from apps.payments.sandbox.store import Body, now


class Checkout(Intents):
    """Pages on which somebody pays or saves a card."""

    def create_session(self, params: Mapping[str, Any]) -> Body:
        if customer := params.get("customer"):
            self.get("customer", customer, param="customer")
        mode = params.get("mode")
        if mode not in {"payment", "setup"}:
            raise invalid("You must provide `mode`: payment or setup.", param="mode")
        if mode == "payment" and not params.get("line_items"):
            raise invalid("`line_items` is required in payment mode.", param="line_items")
        session = self.store.add("checkout.session", "cs_test", shapes.session(params))
        session["url"] = f"{self.base_url}/c/pay/{session['id']}"
        if mode == "setup":
            setup = self.store.add("setup_intent", "seti", shapes.setup_intent(params))
            session["setup_intent"] = setup["id"]
        return self.store.save(session)

    def session_open(self, identity: str) -> Body:
        """Return a session, expired first if its time is over."""
        session = self.get("checkout.session", identity)
        if session["status"] == "open" and session["expires_at"] <= now():
            return self.expire_session(identity)
        return session

    def expire_session(self, identity: str) -> Body:
        session = self.get("checkout.session", identity)
        if session["status"] != "open":
            raise invalid(
                f'Only Checkout Sessions with a status in ["open"] can be expired. This one is {session["status"]}.'
            )
        session |= {"status": "expired", "url": None}
        if session["payment_intent"]:
            self.cancel_intent(session["payment_intent"], {"cancellation_reason": "automatic"})
        self.tell("checkout.session.expired", self.store.save(session))
        return session

    def pay_session(self, identity: str, method: Body) -> Body:
        """Pay or set up with a method, as the hosted page does; returns the session, or the intent that asks a bank."""
        session = self.session_open(identity)
        if session["status"] != "open":
            raise invalid("This page is no longer open.")
        if session["mode"] == "setup":
            return self._set_up(session, method, authenticated=False)
        intent = self._intent_of(session)
        # The page is where the holder is present; a saved card of the customer counts as set up.
        intent = self.confirm_intent(intent["id"], {"payment_method": method["id"]})
        return self.complete_session(identity) if intent["status"] != "requires_action" else intent

    def _intent_of(self, session: Body) -> Body:
        if session["payment_intent"]:
            return self.get("payment_intent", session["payment_intent"])
        intent = self.create_intent(
            {
                "amount": session["amount_total"],
                "currency": session["currency"],
                "customer": session["customer"],
                **shapes.intent_params_of(session),
            }
        )
        session["payment_intent"] = intent["id"]
        self.store.save(session)
        return intent

    def complete_session(self, identity: str) -> Body:
        """Complete a session whose intent has been paid, or is on its way."""
        session = self.get("checkout.session", identity)
        intent = self.get("payment_intent", session["payment_intent"])
        paid = intent["status"] == "succeeded"
        session |= {"status": "complete", "payment_status": "paid" if paid else "unpaid", "url": None}
        self.tell("checkout.session.completed", self.store.save(session))
        return session

    def authenticate_setup(self, identity: str, *, passes: bool) -> Body:
        """Finish what the bank asked when a card is saved, and the session with it."""
        setup = self.get("setup_intent", identity)
        if setup["status"] != "requires_action":
            raise invalid(f"This SetupIntent has a status of {setup['status']}.")
        session = next(
            one for one in self.store.newest("checkout.session") if one["setup_intent"] == identity
        )
        if passes:
            method = self.get("payment_method", setup["payment_method"])
            return self._set_up(session, method, authenticated=True)
        refusal = self._declined("payment_intent_authentication_failure")
        setup |= {
            "status": "requires_payment_method", "payment_method": None, "next_action": None,
            "last_setup_error": refusal.body["error"],
        }  # fmt: skip
        self.tell("setup_intent.setup_failed", self.store.save(setup))
        raise refusal

    def _set_up(self, session: Body, method: Body, *, authenticated: bool) -> Body:
        setup = self.get("setup_intent", session["setup_intent"])
        card = self.card_of(method)
        if card.authenticates and not authenticated:
            setup |= {"status": "requires_action", "payment_method": method["id"]}
            self.tell("setup_intent.requires_action", self.store.save(setup))
            return setup
        if card.decline and not card.attaches:
            refusal = self._declined(card.decline)
            setup["last_setup_error"] = refusal.body["error"]
            self.tell("setup_intent.setup_failed", self.store.save(setup))
            raise refusal
        self._attach(method, session["customer"])
        setup |= {"status": "succeeded", "payment_method": method["id"]}
        session |= {"status": "complete", "payment_status": "no_payment_required", "url": None}
        self.tell("setup_intent.succeeded", self.store.save(setup))
        self.tell("checkout.session.completed", self.store.save(session))
        return session
