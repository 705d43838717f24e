"""The proof that the books are right, recomputed from the transfers; it trusts neither the code nor the triggers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from django.conf import settings
from django.db import connection, transaction
from django.utils.module_loading import import_string

from apps.core.proofs import Check, sql_check, triggers_check

Proof = Callable[[], Iterator[Check]]


@transaction.atomic(durable=True)
def verify() -> list[Check]:
    """Return every check of the ledger and of the apps named in LEDGER_PROOFS, all in one consistent snapshot."""
    with connection.cursor() as cursor:
        # Deferrable waits for a snapshot that no serialization failure can spoil, and then never blocks a writer.
        cursor.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE")
    return checks()


def checks() -> list[Check]:
    """Return every check as `verify` does, as the caller's transaction sees the rows."""
    proofs: list[Proof] = [prove_books, *(import_string(name) for name in settings.LEDGER_PROOFS)]
    return [check for proof in proofs for check in proof()]


def prove_books() -> Iterator[Check]:
    """Yield the checks on wallets, accounts and transfers."""
    yield sql_check(
        "Every account balance equals its credits minus its debits",
        "SELECT count(*) FROM ledger_account",
        """
        SELECT a.id || ': balance ' || a.balance_micros || ', transfers ' || coalesce(t.sum, 0)
        FROM ledger_account a LEFT JOIN (
            SELECT account_id, sum(amount) AS sum FROM (
                SELECT credit_id AS account_id, amount_micros AS amount FROM ledger_transfer
                UNION ALL SELECT debit_id, -amount_micros FROM ledger_transfer
            ) legs GROUP BY account_id
        ) t ON t.account_id = a.id
        WHERE a.balance_micros <> coalesce(t.sum, 0)
        """,
    )
    yield sql_check(
        "Every book sums to zero",
        "SELECT count(*) FROM ledger_wallet",
        """
        SELECT organization_id || ' ' || currency || ': ' || sum(balance_micros)
        FROM ledger_account GROUP BY organization_id, currency HAVING sum(balance_micros) <> 0
        """,
    )
    yield sql_check(
        "No lot is below zero and no receivable above it",
        "SELECT count(*) FROM ledger_account WHERE kind IN ('paid_lot', 'promo_lot', 'receivable')",
        """
        SELECT id || ' ' || kind || ': ' || balance_micros FROM ledger_account
        WHERE (kind IN ('paid_lot', 'promo_lot') AND balance_micros < 0)
           OR (kind = 'receivable' AND balance_micros > 0)
        """,
    )
    yield sql_check(
        "Every transfer is positive, between two accounts of its own book",
        "SELECT count(*) FROM ledger_transfer",
        """
        SELECT t.cause FROM ledger_transfer t
        LEFT JOIN ledger_account d ON d.id = t.debit_id
        LEFT JOIN ledger_account c ON c.id = t.credit_id
        WHERE t.amount_micros <= 0 OR t.debit_id = t.credit_id
           OR (d.organization_id, d.currency) IS DISTINCT FROM (t.organization_id, t.currency)
           OR (c.organization_id, c.currency) IS DISTINCT FROM (t.organization_id, t.currency)
        """,
    )
    yield sql_check(
        "No cause was posted twice",
        "SELECT count(*) FROM ledger_transfer",
        "SELECT cause FROM ledger_transfer GROUP BY cause HAVING count(*) > 1",
    )
    yield triggers_check(
        "The ledger's triggers are in force",
        "ledger_transfer_rows_stay",
        "ledger_transfer_table_stays",
        "ledger_transfer_moves_balances",
        "ledger_account_guards_balance",
        "ledger_account_stays",
    )
