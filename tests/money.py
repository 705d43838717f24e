"""What the tests of money look at: the whole of a book, in micros, and the proof."""

from __future__ import annotations

from apps.billing.models import CreditLot
from apps.core.proofs import Check
from apps.invoices.models import Invoice, InvoiceLine
from apps.ledger import proofs
from apps.ledger.models import Account, Transfer
from apps.organizations.models import Organization


def books(organization: Organization) -> dict[str, int]:
    """Return the balance of every kind of account that is not zero; the lots of a pot are added up."""
    found: dict[str, int] = {}
    for kind, micros in Account.objects.filter(organization_id=organization.id).values_list(
        "kind", "balance_micros"
    ):
        found[kind] = found.get(kind, 0) + micros
    return {kind: micros for kind, micros in sorted(found.items()) if micros}


def lots(organization: Organization) -> list[tuple[str, int]]:
    """Return pot and balance of each lot, the oldest first."""
    rows = CreditLot.objects.filter(organization=organization).select_related("account")
    return [(lot.pot, lot.account.balance_micros) for lot in rows.order_by("created_at", "id")]


def transfers(organization: Organization) -> list[tuple[str, str, str, int]]:
    """Return kind, debited and credited account and micros of every transfer, in the order of posting."""
    rows = Transfer.objects.filter(organization_id=organization.id).select_related("debit", "credit")
    return [
        (row.kind, row.debit.kind, row.credit.kind, row.amount_micros)
        for row in rows.order_by("created_at", "id")
    ]


def lines(invoice: Invoice | None) -> list[tuple[str, str, str, str, int, int]]:
    """Return kind, month, SKU, quantity, amount and discount of each line, in print order."""
    rows = InvoiceLine.objects.filter(invoice=invoice).order_by("position")
    return [
        (
            line.kind,
            line.usage_period,
            line.sku or line.meter,
            f"{line.quantity.normalize():f}",
            line.amount_minor,
            line.discount_minor,
        )
        for line in rows
    ]


def failing() -> list[Check]:
    """Return the checks of the proof that do not hold, proved within the test's own transaction."""
    return [check for check in proofs.checks() if not check.holds]
