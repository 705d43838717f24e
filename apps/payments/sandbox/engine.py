"""What Stripe does with money, in miniature: every change stores its objects and their events in one transaction."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from apps.payments.sandbox import cards, shapes
from apps.payments.sandbox.cards import Card
from apps.payments.sandbox.errors import Refused, invalid, missing
from apps.payments.sandbox.store import Body, Store, now

BANK_DEBIT = "us_bank_account"
OPEN_INTENTS = ("requires_payment_method", "requires_confirmation", "requires_action")


class Engine:
    """The objects of one account and what may happen to them.

    base_url: where the hosted pages are; webhooks: whether events are queued for delivery.
    """

    def __init__(self, store: Store, *, base_url: str, api_version: str, webhooks: bool) -> None:
        self.store = store
        self.base_url = base_url
        self.api_version = api_version
        self.webhooks = webhooks
        self.idempotency_key: str | None = None

    # --- Events ---

    def tell(self, kind: str, body: Body, previous: Body | None = None) -> None:
        """Store an event about an object as it is now, and queue its webhook."""
        data: Body = {"object": body, **({"previous_attributes": previous} if previous else {})}
        event = self.store.add(
            "event",
            "evt",
            {
                "api_version": self.api_version,
                "data": data,
                "livemode": False,
                "pending_webhooks": 1 if self.webhooks else 0,
                "request": {"id": f"req_{secrets.token_hex(7)}", "idempotency_key": self.idempotency_key},
                "type": kind,
            },
        )
        if self.webhooks:
            self.store.run("INSERT INTO delivery (event, due) VALUES (?, ?)", event["id"], time.time())

    def get(self, kind: str, identity: str, *, param: str = "id") -> Body:
        """Return an object or refuse as Stripe does."""
        found = self.store.find(kind, identity)
        if found is None:
            raise missing(kind.rsplit(".", maxsplit=1)[-1], identity, param=param)
        return found

    # --- Customers and cards ---

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
        method["customer"] = None
        self.tell("payment_method.detached", self.store.save(method), before)
        return method

    # --- Payment intents ---

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
        method_body = self.get("payment_method", intent["payment_method"])
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

    def _declined(self, decline: str) -> Refused:
        code, decline_code = cards.codes_of(decline)
        message = cards.MESSAGES.get(decline, "We are unable to authenticate your payment method.")
        more = {} if decline == "payment_intent_authentication_failure" else {"decline_code": decline_code}
        return Refused(402, "card_error", message, code=code, **more)

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

    # --- Checkout ---

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

    # --- Refunds ---

    def create_refund(self, params: Mapping[str, Any]) -> Body:
        charge_id = params.get("charge")
        if intent_id := params.get("payment_intent"):
            charge_id = self.get("payment_intent", intent_id, param="payment_intent")["latest_charge"]
        charge = self.get("charge", str(charge_id), param="charge")
        if not charge["paid"]:
            raise invalid(f"Charge {charge['id']} has not been paid.", code="charge_not_refundable")
        if charge["disputed"]:
            raise invalid(f"Charge {charge['id']} has been charged back.", code="charge_disputed")
        left = charge["amount"] - charge["amount_refunded"]
        amount = int(params.get("amount", left))
        if left == 0:
            raise invalid(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
        if not 0 < amount <= left:
            raise invalid(
                f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
                param="amount",
            )
        card = self.card_of(self.get("payment_method", charge["payment_method"]))
        status = "pending" if card.refund == "pending" else "succeeded"
        refund = self.store.add("refund", "re", shapes.refund(charge, amount, params, status))
        self._count_refund(charge, amount)
        self.tell("refund.created", refund)
        self.tell("charge.refunded", charge)
        if card.refund == "failed":
            self.end_refund(refund["id"], succeeds=False)
        return refund

    def _count_refund(self, charge: Body, amount: int) -> None:
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        self.store.save(charge)

    def end_refund(self, identity: str, *, succeeds: bool) -> Body:
        """End a pending refund, or let one that seemed to succeed fail, as banks do days later."""
        refund = self.get("refund", identity)
        if refund["status"] not in {"pending", "succeeded"} or (succeeds and refund["status"] == "succeeded"):
            raise invalid(f"This refund is {refund['status']}.")
        before = {"status": refund["status"]}
        refund["status"] = "succeeded" if succeeds else "failed"
        if not succeeds:
            refund["failure_reason"] = "expired_or_canceled_card"
            self._count_refund(self.get("charge", refund["charge"]), -refund["amount"])
        self.tell("refund.updated", self.store.save(refund), before)
        if not succeeds:
            self.tell("refund.failed", refund)
        return refund

    # --- Disputes ---

    def open_dispute(
        self, charge_id: str, *, reason: str = "fraudulent", amount: int = 0, inquiry: bool = False
    ) -> Body:
        """Dispute a charge; an inquiry takes no money yet."""
        charge = self.get("charge", charge_id)
        if not charge["paid"] or charge["disputed"]:
            raise invalid("This charge cannot be disputed.")
        status = "warning_needs_response" if inquiry else "needs_response"
        body = shapes.dispute(charge, amount or charge["amount"], reason, status)
        dispute = self.store.add("dispute", "du", body)
        charge["disputed"] = True
        self.store.save(charge)
        self.tell("charge.dispute.created", dispute)
        if not inquiry:
            self._move_disputed(dispute, -1, "charge.dispute.funds_withdrawn")
        return dispute

    def end_dispute(self, identity: str, *, won: bool) -> Body:
        """Decide a dispute; won, the money comes back."""
        dispute = self.get("dispute", identity)
        if dispute["status"] in {"won", "lost", "warning_closed"}:
            raise invalid(f"This dispute is {dispute['status']}.")
        if dispute["status"].startswith("warning"):
            dispute["status"] = "warning_closed"
        else:
            dispute["status"] = "won" if won else "lost"
            if won:
                self._move_disputed(dispute, 1, "charge.dispute.funds_reinstated")
        self.tell("charge.dispute.closed", self.store.save(dispute))
        return dispute

    def _move_disputed(self, dispute: Body, sign: int, event: str) -> None:
        dispute["balance_transactions"].append(shapes.balance_transaction(dispute, sign * dispute["amount"]))
        self.tell(event, self.store.save(dispute))
