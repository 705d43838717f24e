"""Disputes."""

from __future__ import annotations

from apps.payments.sandbox import shapes
from apps.payments.sandbox.engine.events import Events
from apps.payments.sandbox.errors import invalid
from apps.payments.sandbox.store import Body


class Disputes(Events):
    """What banks do for holders who say that it was not they who paid."""

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
