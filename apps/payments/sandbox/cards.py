"""The well-known test cards: what each of them does."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A test card. decline: the code of its refusal; a card that authenticates asks its bank first.

    always_authenticates: also when it is charged without its holder present, where nobody can answer.
    dispute: the reason with which its holder disputes every payment; refund: how its refunds end.
    """

    brand: str
    number: str
    decline: str = ""
    authenticates: bool = False
    always_authenticates: bool = False
    attaches: bool = True
    dispute: str = ""
    refund: str = "succeeded"

    @property
    def last4(self) -> str:
        return self.number[-4:]

    @property
    def spaced(self) -> str:
        """The number as it stands on a card."""
        return " ".join(re.findall(r".{1,4}", self.number))

    @property
    def does(self) -> str:
        """What happens with the card, in words."""
        asks = (
            "Asks its bank, always"
            if self.always_authenticates
            else "Asks its bank"
            if self.authenticates
            else ""
        )
        refused = f"Refused: {self.decline.replace('_', ' ')}" if self.decline else ""
        if refused and self.attaches:
            refused += ", once it is saved"
        disputed = "Paid, then disputed" if self.dispute else ""
        refund = {"pending": "Paid; refunds take time", "failed": "Paid; refunds fail"}.get(self.refund, "")
        return "; then ".join(filter(None, (asks, refused, disputed, refund))) or "Paid"


_CARDS = (
    Card(brand="visa", number="4242424242424242"),
    Card(brand="mastercard", number="5555555555554444"),
    Card(brand="amex", number="378282246310005"),
    Card(brand="visa", number="4000000000000002", decline="card_declined", attaches=False),
    Card(brand="visa", number="4000000000009995", decline="insufficient_funds", attaches=False),
    Card(brand="visa", number="4000000000000069", decline="expired_card", attaches=False),
    Card(brand="visa", number="4000000000000127", decline="incorrect_cvc", attaches=False),
    Card(brand="visa", number="4000000000000119", decline="processing_error", attaches=False),
    Card(brand="visa", number="4000000000000341", decline="card_declined"),
    Card(brand="visa", number="4000002500003155", authenticates=True),
    Card(brand="visa", number="4000002760003184", authenticates=True, always_authenticates=True),
    Card(brand="visa", number="4000008260003178", authenticates=True, decline="insufficient_funds"),
    Card(brand="visa", number="4000000000000259", dispute="fraudulent"),
    Card(brand="visa", number="4000000000007726", refund="pending"),
    Card(brand="visa", number="4000000000005126", refund="failed"),
)
BY_NUMBER = {card.number: card for card in _CARDS}
# The ready-made payment methods of Stripe's test mode that we know, by the card behind each.
TOKENS = {
    "pm_card_visa": "4242424242424242",
    "pm_card_mastercard": "5555555555554444",
    "pm_card_chargeCustomerFail": "4000000000000341",
    "pm_card_authenticationRequiredOnSetup": "4000002500003155",
    "pm_card_authenticationRequired": "4000002760003184",
    "pm_card_createDispute": "4000000000000259",
    "pm_card_pendingRefund": "4000000000007726",
    "pm_card_refundFail": "4000000000005126",
}
MESSAGES = {
    "card_declined": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "expired_card": "Your card has expired.",
    "incorrect_cvc": "Your card's security code is incorrect.",
    "processing_error": "An error occurred while processing your card. Try again in a little bit.",
    "authentication_required": "Your card was declined. This transaction requires authentication.",
}


def find(number: str) -> Card | None:
    """Return the test card of a number as people type it, or None."""
    return BY_NUMBER.get("".join(character for character in number if character.isdigit()))


def codes_of(decline: str) -> tuple[str, str]:
    """Return the code and the decline code that Stripe gives for a refusal."""
    if decline in {"card_declined", "insufficient_funds"}:
        return "card_declined", {"card_declined": "generic_decline"}.get(decline, decline)
    return decline, decline
