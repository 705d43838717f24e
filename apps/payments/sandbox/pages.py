"""The hosted pages: Checkout, the bank's confirmation, receipts, and the control page that scripts what goes wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from django.template import Context
from django.template import Engine as Templates

from apps.core import money
from apps.payments.sandbox import shapes
from apps.payments.sandbox.api import Api
from apps.payments.sandbox.cards import BY_NUMBER
from apps.payments.sandbox.engine import BANK_DEBIT, Engine
from apps.payments.sandbox.errors import Refused, invalid
from apps.payments.sandbox.store import Body
from apps.payments.sandbox.webhooks import Deliverer, deliveries
from config.embedded.folders import ROOT

_TEMPLATES = Templates(dirs=[str(ROOT / "templates" / "payments" / "sandbox")])
_SHOWN = 8


class Redirect(Exception):
    """The browser goes on elsewhere."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(url)


def render(name: str, **context: Any) -> str:
    """Return a page; its texts are English as Stripe's test pages are for our tests."""
    return _TEMPLATES.get_template(name).render(Context(context, use_l10n=False, use_tz=False))


class Pages:
    """What people see of the sandbox."""

    def __init__(self, engine: Engine, api: Api, deliverer: Deliverer | None) -> None:
        self.engine = engine
        self.api = api
        self.deliverer = deliverer

    # --- Checkout ---

    def checkout(self, session_id: str, form: Mapping[str, str] | None) -> str:
        """Show a session's page, or take its form; raises Redirect when the visitor goes on."""
        store = self.engine.store
        problem = target = ""
        with store.transaction():
            session = self.engine.session_open(session_id)
            if session["status"] == "complete":
                target = _success_url(session)
            elif session["status"] == "open" and form is not None:
                try:
                    target = self._pay(session, form)
                except Refused as refusal:
                    problem = refusal.body["error"]["message"]
                    session = self.engine.get("checkout.session", session_id)
        if target:
            raise Redirect(target)
        return render(
            "checkout.html",
            session=session,
            amount=_amount(session["amount_total"], session["currency"]),
            items=session["_items"],
            saved=self._saved(session),
            form=form or {},
            problem=problem,
            year=time.gmtime().tm_year + 3,
        )

    def _pay(self, session: Body, form: Mapping[str, str]) -> str:
        """Pay with what the form says and return where the browser goes next."""
        method = self._method(session, form)
        found = self.engine.pay_session(session["id"], method)
        if found["object"] in {"payment_intent", "setup_intent"}:
            return f"/3ds/{found['id']}"
        return _success_url(found)

    def _method(self, session: Body, form: Mapping[str, str]) -> Body:
        kind = form.get("method", "card")
        if kind == "bank" and session["mode"] == "payment":
            return self.engine.store.add("payment_method", "pm", shapes.debit_method())
        if kind.startswith("pm_"):
            return self.engine.method_named(kind)
        month, _slash, year = form.get("expiry", "").replace(" ", "").partition("/")
        if not (month.isdecimal() and year.isdecimal() and 1 <= int(month) <= 12):
            raise invalid("Your card's expiration date is incomplete.")
        full_year = int(year) if len(year) == 4 else 2000 + int(year)
        if (full_year, int(month)) < (time.gmtime().tm_year, time.gmtime().tm_mon):
            raise invalid("Your card's expiration date is in the past.")
        return self.engine.add_method(
            form.get("number", ""), month=int(month), year=full_year, email=form.get("email", "")
        )

    def _saved(self, session: Body) -> list[Body]:
        if session["mode"] != "payment" or not session["customer"]:
            return []
        methods = self.engine.store.newest("payment_method")
        return [method for method in methods if method["customer"] == session["customer"]]

    def bank(self, identity: str, form: Mapping[str, str] | None) -> str:
        """Show the bank's question about an intent, or take the answer."""
        kind = "setup_intent" if identity.startswith("seti_") else "payment_intent"
        target = ""
        with self.engine.store.transaction():
            intent = self.engine.get(kind, identity)
            if form is not None and intent["status"] == "requires_action":
                target = self._answer_bank(intent, passes=form.get("answer") == "confirm")
        if target:
            raise Redirect(target)
        amount = _amount(intent["amount"], intent["currency"]) if kind == "payment_intent" else ""
        return render("bank.html", intent=intent, amount=amount)

    def _answer_bank(self, intent: Body, *, passes: bool) -> str:
        """Give the holder's answer to the bank and return where the browser goes next."""
        session = self._session_of(intent)
        try:
            if intent["object"] == "setup_intent":
                self.engine.authenticate_setup(intent["id"], passes=passes)
            else:
                self.engine.authenticate(intent["id"], passes=passes)
                if session:
                    self.engine.complete_session(session["id"])
        except Refused:
            return f"/c/pay/{session['id']}" if session else _return_url(intent)
        return _success_url(session) if session else _return_url(intent)

    def _session_of(self, intent: Body) -> Body | None:
        for session in self.engine.store.newest("checkout.session"):
            if intent["id"] in {session["payment_intent"], session["setup_intent"]}:
                return session
        return None

    def receipt(self, charge_id: str) -> str:
        charge = self.engine.get("charge", charge_id)
        refunded = _amount(charge["amount_refunded"], charge["currency"]) if charge["amount_refunded"] else ""
        day = time.strftime("%Y-%m-%d", time.gmtime(charge["created"]))
        amount = _amount(charge["amount"], charge["currency"])
        return render("receipt.html", charge=charge, amount=amount, refunded=refunded, day=day)

    # --- Control ---

    def control(self, *, problem: str = "") -> str:
        """Show the control page; problem: what was wrong with what it was asked."""
        store = self.engine.store

        def shown(kind: str) -> list[Body]:
            rows = []
            for body in store.newest(kind):
                rows.append(body | {"shown_amount": _amount(body["amount"], body["currency"])})
                if len(rows) == _SHOWN:
                    break
            return rows

        return render(
            "control.html",
            problem=problem,
            faults=self.api.faults(),
            mode=self.deliverer.mode if self.deliverer else "off",
            modes=Deliverer.MODES,
            deliveries=deliveries(store),
            charges=shown("charge"),
            intents=[row for row in shown("payment_intent") if row["status"] == "processing"],
            refunds=shown("refund"),
            disputes=shown("dispute"),
            cards=BY_NUMBER.values(),
            bank_debit=BANK_DEBIT,
        )

    def act(self, verb: str, fields: Mapping[str, Any]) -> Body:
        """Do what the control page or a test asks and return what changed."""
        with self.engine.store.transaction():
            match verb:
                case "fault":
                    self.api.add_fault(fields)
                case "clear-faults":
                    self.api.clear_faults()
                case "webhooks":
                    self._set_mode(str(fields.get("mode")))
                case "send-again":
                    if self.deliverer:
                        self.deliverer.send_again(str(fields.get("event")))
                case "dispute":
                    inquiry = _is_true(fields.get("inquiry"))
                    amount = int(fields.get("amount") or 0)
                    return self.engine.open_dispute(str(fields.get("charge")), amount=amount, inquiry=inquiry)
                case "end-dispute":
                    return self.engine.end_dispute(
                        str(fields.get("dispute")), won=_is_true(fields.get("won"))
                    )
                case "end-refund":
                    succeeds = _is_true(fields.get("succeeds"))
                    return self.engine.end_refund(str(fields.get("refund")), succeeds=succeeds)
                case "settle-debit":
                    succeeds = _is_true(fields.get("succeeds"))
                    return self.engine.settle_debit(str(fields.get("intent")), succeeds=succeeds)
                case _:
                    raise invalid(f"Unknown control: {verb}.")
        return {"faults": self.api.faults(), "webhooks": self.deliverer.mode if self.deliverer else "off"}

    def _set_mode(self, mode: str) -> None:
        if self.deliverer is None or mode not in Deliverer.MODES:
            raise invalid(f"Unknown mode of webhooks: {mode}.")
        self.deliverer.mode = mode


def _success_url(session: Body) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", quote(session["id"]))


def _return_url(intent: Body) -> str:
    action = intent["next_action"] or {}
    return str(action.get("redirect_to_url", {}).get("return_url") or "/")


def _amount(minor: int | None, currency: str | None) -> str:
    if minor is None or currency is None:
        return ""
    amount: Decimal = money.from_minor(minor, currency.upper())
    return f"{amount:,f} {currency.upper()}"


def _is_true(value: object) -> bool:
    return value in {True, "true", "1", "on", "yes"}
