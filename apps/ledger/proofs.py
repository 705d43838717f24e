"""The proof that the books are right, recomputed from the transfers; it trusts neither the code nor the triggers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.conf import settings
from django.db import connection, transaction
from django.utils.module_loading import import_string

SAMPLES = 5  # Failing rows shown for each check.


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing proved: how many rows it looked at and the rows that fail it, in words."""

    name: str
    rows: int
    failures: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.failures


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


def triggers_check(name: str, *triggers: str) -> Check:
    """Return the check that triggers exist and act in every session that is not a replica."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname FROM pg_trigger WHERE tgname = ANY(%s) AND tgenabled = 'O'", [list(triggers)]
        )
        acting = {trigger for (trigger,) in cursor.fetchall()}
    missing = sorted(set(triggers) - acting)
    return Check(
        name=name,
        rows=len(triggers),
        failures=tuple(f"{trigger} is missing or disabled" for trigger in missing),
    )


def sql_check(name: str, count: str, failing: str) -> Check:
    """Return the check that no row comes back from `failing`; `count` says how many rows were looked at."""
    with connection.cursor() as cursor:
        cursor.execute(count)
        (rows,) = cursor.fetchone()
        cursor.execute(failing)
        found = cursor.fetchmany(SAMPLES + 1)
    failures = [str(row[0]) for row in found[:SAMPLES]]
    if len(found) > SAMPLES:
        failures.append("and more")
    return Check(name=name, rows=rows, failures=tuple(failures))
