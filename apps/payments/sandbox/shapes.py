"""The shapes of Stripe's objects, with the fields that its clients read; tests hold each against Stripe's schema."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from apps.payments.sandbox.cards import MESSAGES, Card, codes_of
from apps.payments.sandbox.errors import invalid
from apps.payments.sandbox.store import Body, now

SESSION_SECONDS = 24 * 3600
SESSION_SECONDS_MIN = 30 * 60
_AMOUNT_MAX = 99_999_999


def customer(params: Mapping[str, Any]) -> Body:
    return {
        "address": None,
        "balance": 0,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": params.get("description"),
        "email": params.get("email"),
        "invoice_settings": {
            "custom_fields": None, "default_payment_method": None, "footer": None, "rendering_options": None,
        },
        "livemode": False,
        "metadata": dict(params.get("metadata", {})),
        "name": params.get("name"),
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
    }  # fmt: skip


def card_method(card: Card, month: int, year: int, email: str) -> Body:
    return {
        "allow_redisplay": "unspecified",
        "billing_details": {
            "address": None,
            "email": email or None,
            "name": None,
            "phone": None,
            "tax_id": None,
        },
        "card": {
            "brand": card.brand,
            "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
            "country": "US",
            "display_brand": card.brand,
            "exp_month": month,
            "exp_year": year,
            "fingerprint": f"sandbox{card.number[-8:]}",
            "funding": "credit",
            "generated_from": None,
            "last4": card.last4,
            "networks": {"available": [card.brand], "preferred": None},
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "customer": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def debit_method() -> Body:
    return {
        "allow_redisplay": "unspecified",
        "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
        "customer": None,
        "livemode": False,
        "metadata": {},
        "type": "us_bank_account",
        "us_bank_account": {
            "account_holder_type": "company",
            "account_type": "checking",
            "bank_name": "STRIPE TEST BANK",
            "fingerprint": "sandboxdebit",
            "financial_connections_account": None,
            "last4": "6789",
            "networks": {"preferred": "ach", "supported": ["ach"]},
            "routing_number": "110000000",
            "status_details": None,
        },
    }


def intent(params: Mapping[str, Any]) -> Body:
    amount = _amount(params.get("amount"))
    return {
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "automatic_payment_methods": {"allow_redirects": "always", "enabled": True},
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic_async",
        "client_secret": None,
        "confirmation_method": "automatic",
        "currency": _currency(params.get("currency")),
        "customer": params.get("customer"),
        "description": params.get("description"),
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": dict(params.get("metadata", {})),
        "next_action": None,
        "payment_method": None,
        "payment_method_options": {},
        "payment_method_types": ["card", "us_bank_account"],
        "processing": None,
        "receipt_email": params.get("receipt_email"),
        "setup_future_usage": params.get("setup_future_usage"),
        "shipping": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": params.get("statement_descriptor_suffix"),
        "status": "requires_payment_method",
    }


def charge(of: Body, method: Body, *, status: str, decline: str) -> Body:
    succeeded = status == "succeeded"
    code, decline_code = codes_of(decline) if decline else (None, None)
    outcome_type = "authorized" if status != "failed" else "issuer_declined"
    return {
        "amount": of["amount"],
        "amount_captured": of["amount"] if succeeded else 0,
        "amount_refunded": 0,
        "balance_transaction": f"txn_{secrets.token_hex(12)}" if succeeded else None,
        "billing_details": method["billing_details"],
        "captured": succeeded,
        "currency": of["currency"],
        "customer": of["customer"],
        "description": of["description"],
        "disputed": False,
        "failure_code": code,
        "failure_message": MESSAGES.get(decline, "The payment was not authenticated.") if decline else None,
        "livemode": False,
        "metadata": of["metadata"],
        "outcome": {
            "advice_code": None,
            "network_advice_code": None,
            "network_decline_code": None,
            "network_status": "approved_by_network" if status != "failed" else "declined_by_network",
            "reason": decline_code,
            "risk_level": "normal",
            "seller_message": "Payment complete." if succeeded else None,
            "type": outcome_type,
        },
        "paid": succeeded,
        "payment_intent": of["id"],
        "payment_method": method["id"],
        "payment_method_details": {"type": method["type"], method["type"]: _details(method)},
        "receipt_email": of["receipt_email"],
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "status": status,
    }


def _details(method: Body) -> Body:
    if method["type"] != "card":
        return {"account_holder_type": "company", "bank_name": "STRIPE TEST BANK", "last4": "6789"}
    card = method["card"]
    names = (
        "brand",
        "checks",
        "country",
        "exp_month",
        "exp_year",
        "fingerprint",
        "funding",
        "last4",
        "wallet",
    )
    more = {"network": card["brand"], "three_d_secure": None, "installments": None, "mandate": None}
    return {name: card[name] for name in names} | more


def session(params: Mapping[str, Any]) -> Body:
    is_setup = params["mode"] == "setup"
    total, currency = (None, params.get("currency")) if is_setup else _total(params["line_items"])
    expires_at = int(params.get("expires_at", now() + SESSION_SECONDS))
    if not now() + SESSION_SECONDS_MIN - 60 <= expires_at <= now() + SESSION_SECONDS + 60:
        raise invalid(
            "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation.",
            param="expires_at",
        )
    if not params.get("success_url"):
        raise invalid("You must provide `success_url`.", param="success_url")
    return {
        "after_expiration": None,
        "allow_promotion_codes": None,
        "amount_subtotal": total,
        "amount_total": total,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None,
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "currency": currency,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None, "shipping_address": None, "submit": None, "terms_of_service_acceptance": None,
        },
        "customer": params.get("customer"),
        "customer_creation": None,
        "customer_details": None,
        "customer_email": None,
        "expires_at": expires_at,
        "invoice": None,
        "livemode": False,
        "locale": None,
        "metadata": dict(params.get("metadata", {})),
        "mode": params["mode"],
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": "always",
        "payment_method_options": {},
        "payment_method_types": ["card"] if is_setup else ["card", "us_bank_account"],
        "payment_status": "no_payment_required" if is_setup else "unpaid",
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": None,
        "subscription": None,
        "success_url": params["success_url"],
        "total_details": None if is_setup else {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": None,
        # What becomes of the session's intent; Stripe keeps it to itself as well.
        "_intent": dict(params.get("payment_intent_data", {})),
        "_items": [
            {
                "name": item.get("price_data", {}).get("product_data", {}).get("name", ""),
                "amount": int(item.get("quantity", 1)) * int(item["price_data"]["unit_amount"]),
            }
            for item in params.get("line_items", [])
        ],
    }  # fmt: skip


def intent_params_of(of: Body) -> Body:
    """Return what a session says about the intent that it will make."""
    return dict(of["_intent"])


def _total(items: Any) -> tuple[int, str]:
    currencies = {item["price_data"]["currency"] for item in items}
    if len(currencies) != 1:
        raise invalid("All line items must have the same currency.", param="line_items")
    total = sum(int(item["price_data"]["unit_amount"]) * int(item.get("quantity", 1)) for item in items)
    return _amount(total), _currency(currencies.pop())


def setup_intent(params: Mapping[str, Any]) -> Body:
    data = params.get("setup_intent_data", {})
    return {
        "application": None,
        "attach_to_self": False,
        "automatic_payment_methods": None,
        "cancellation_reason": None,
        "client_secret": f"seti_secret_{secrets.token_hex(8)}",
        "customer": params.get("customer"),
        "description": data.get("description"),
        "flow_directions": None,
        "last_setup_error": None,
        "latest_attempt": None,
        "livemode": False,
        "mandate": None,
        "metadata": dict(data.get("metadata", {})),
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "single_use_mandate": None,
        "status": "requires_payment_method",
        "usage": "off_session",
    }


def refund(of: Body, amount: int, params: Mapping[str, Any], status: str) -> Body:
    return {
        "amount": amount,
        "balance_transaction": f"txn_{secrets.token_hex(12)}",
        "charge": of["id"],
        "currency": of["currency"],
        "destination_details": {
            "card": {
                "reference_status": "pending",
                "reference_type": "acquirer_reference_number",
                "type": "refund",
            },
            "type": "card",
        },
        "metadata": dict(params.get("metadata", {})),
        "payment_intent": of["payment_intent"],
        "reason": params.get("reason"),
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": status,
        "transfer_reversal": None,
    }


def dispute(of: Body, amount: int, reason: str, status: str) -> Body:
    return {
        "amount": amount,
        "balance_transactions": [],
        "charge": of["id"],
        "currency": of["currency"],
        "enhanced_eligibility_types": [],
        "evidence": dict.fromkeys(_EVIDENCE) | {"enhanced_evidence": {}},
        "evidence_details": {
            "due_by": now() + 7 * 86_400,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": None,
        },
        "is_charge_refundable": status.startswith("warning"),
        "livemode": False,
        "metadata": {},
        "payment_intent": of["payment_intent"],
        "reason": reason,
        "status": status,
    }


def webhook_endpoint(url: str, event_types: Sequence[str], api_version: str) -> Body:
    return {
        "api_version": api_version,
        "application": None,
        "description": None,
        "enabled_events": list(event_types),
        "livemode": False,
        "metadata": {},
        "status": "enabled",
        "url": url,
    }


def balance_transaction(of: Body, amount: int) -> Body:
    return {
        "id": f"txn_{secrets.token_hex(12)}",
        "object": "balance_transaction",
        "amount": amount,
        "available_on": now(),
        "balance_type": "payments",
        "created": now(),
        "currency": of["currency"],
        "description": f"Chargeback for {of['charge']}",
        "exchange_rate": None,
        "fee": 1500 if amount < 0 else 0,
        "fee_details": [],
        "net": amount - (1500 if amount < 0 else 0),
        "reporting_category": "dispute" if amount < 0 else "dispute_reversal",
        "source": of["id"],
        "status": "available",
        "type": "adjustment",
    }


def public(body: Body) -> Body:
    """Return an object without what only the sandbox needs to know."""
    return {name: value for name, value in body.items() if not name.startswith("_")}


def _amount(value: Any) -> int:
    if value is None:
        raise invalid("Missing required param: amount.", param="amount", code="parameter_missing")
    text = str(value)
    if not text.lstrip("-").isdecimal():
        raise invalid(f"Invalid integer: {text}", param="amount", code="parameter_invalid_integer")
    if int(text) < 1:
        raise invalid(
            "This value must be greater than or equal to 1.", param="amount", code="parameter_invalid_integer"
        )
    if int(text) > _AMOUNT_MAX:
        raise invalid("Amount must be no more than $999,999.99", param="amount", code="amount_too_large")
    return int(text)


def _currency(value: Any) -> str:
    text = str(value or "")
    if len(text) != 3 or text != text.lower():
        raise invalid(f"Invalid currency: {text}.", param="currency")
    return text


_EVIDENCE = (
    "access_activity_log", "billing_address", "cancellation_policy", "cancellation_policy_disclosure",
    "cancellation_rebuttal", "customer_communication", "customer_email_address", "customer_name",
    "customer_purchase_ip", "customer_signature", "duplicate_charge_documentation", "duplicate_charge_explanation",
    "duplicate_charge_id", "product_description", "receipt", "refund_policy", "refund_policy_disclosure",
    "refund_refusal_explanation", "service_date", "service_documentation", "shipping_address", "shipping_carrier",
    "shipping_date", "shipping_documentation", "shipping_tracking_number", "uncategorized_file", "uncategorized_text",
)  # fmt: skip
