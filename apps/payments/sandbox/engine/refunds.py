"""Refunds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from apps.payments.sandbox import shapes
from apps.payments.sandbox.engine.methods import Methods
from apps.payments.sandbox.errors import invalid
from apps.payments.sandbox.store import Body


class Refunds(Methods):
    """Money that goes back to a card."""

    def create_refund(self, params: Mapping[str, Any]) -> Body:
        charge_id = params.get("charge")
        if intent_id := params.get("payment_intent"):
            charge_id = self.get("payment_intent", intent_id, param="payment_intent")["latest_charge"]
        charge = self.get("charge", str(charge_id), param="charge")
        if not charge["paid"]:
            raise invalid(f"Charge {charge['id']} has not been paid.", code="charge_not_refundable")
        # An inquiry leaves the money where it is, so it can still go back, before and after it is closed.
        if not all(found["is_charge_refundable"] for found in self._disputes_of(charge)):
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

    def _disputes_of(self, charge: Body) -> Iterator[Body]:
        return (found for found in self.store.newest("dispute") if found["charge"] == charge["id"])

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
