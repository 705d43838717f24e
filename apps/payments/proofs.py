"""What payments add to `verify_ledger`: each move of money at Stripe is posted once, and clearing says no more."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connection

from apps.core import money
from apps.core.proofs import Check, sql_check, triggers_check

# Each way that money took at Stripe, under the name that its transfers refer to. A refund is posted when it is
# approved, under its own id, or under Stripe's where it was made there; what failed came back, so it has two.
_MOVES = """
    SELECT intent_id AS object, 'top_up' AS kind, true AS comes_in, id AS row_id, organization_id, currency,
           amount_minor
    FROM payments_payment WHERE state = 'succeeded' AND intent_id IS NOT NULL
    UNION ALL
    SELECT coalesce(refund_id, id::text), 'refund', false, id, organization_id, currency, amount_minor
    FROM payments_refund
    WHERE destination = 'card' AND state IN ('approved', 'pending', 'succeeded', 'failed')
    UNION ALL
    SELECT coalesce(refund_id, id::text), 'refund', true, id, organization_id, currency, amount_minor
    FROM payments_refund WHERE destination = 'card' AND state = 'failed'
    UNION ALL
    SELECT dispute_id, 'dispute', false, id, organization_id, currency, amount_minor
    FROM payments_dispute WHERE withdrawn_at IS NOT NULL
    UNION ALL
    SELECT dispute_id, 'dispute', true, id, organization_id, currency, amount_minor
    FROM payments_dispute WHERE reinstated_at IS NOT NULL
"""
# Each posting on a clearing account, with the row of ours that it names; a posting is a batch of transfers.
_POSTINGS = """
    SELECT t.kind, d.kind = 'clearing' AS comes_in, t.organization_id, t.currency,
           coalesce(p.id, r.id, s.id, u.id) AS row_id, min(t.cause) AS cause,
           sum(t.amount_micros) AS micros, count(DISTINCT t.batch_id) AS batches
    FROM ledger_transfer t
    JOIN ledger_account d ON d.id = t.debit_id
    JOIN ledger_account c ON c.id = t.credit_id
    LEFT JOIN payments_payment p ON t.kind = 'top_up' AND p.id = t.batch_id
    LEFT JOIN payments_refund r ON t.kind = 'refund' AND r.id::text = t.reference
    LEFT JOIN payments_refund s ON t.kind = 'refund' AND s.refund_id = t.reference
    LEFT JOIN payments_dispute u ON t.kind = 'dispute' AND u.dispute_id = t.reference
    WHERE 'clearing' IN (d.kind, c.kind)
    GROUP BY 1, 2, 3, 4, 5
"""


def prove_payments() -> Iterator[Check]:
    """Yield the checks on what moved through Stripe."""
    yield sql_check(
        "Every payment, refund and dispute is posted once, and nothing else is on clearing",
        f"SELECT count(*) FROM ({_MOVES}) moves",  # noqa: S608  Statements of ours.
        f"""
        SELECT coalesce(m.object, p.cause) || CASE coalesce(m.comes_in, p.comes_in) WHEN true THEN ' in' ELSE ' out' END
            || ': moved ' || coalesce(m.amount_minor * u.micros, 0) || ', posted ' || coalesce(p.micros, 0)
            || ' in ' || coalesce(p.batches, 0)
        FROM ({_MOVES}) m
        JOIN ({_units()}) u ON u.currency = m.currency
        FULL JOIN ({_POSTINGS}) p ON (p.kind, p.comes_in, p.row_id) = (m.kind, m.comes_in, m.row_id)
        WHERE p.batches IS DISTINCT FROM 1 OR p.micros IS DISTINCT FROM m.amount_minor * u.micros
           OR (p.organization_id, p.currency) IS DISTINCT FROM (m.organization_id, m.currency)
        """,  # noqa: S608  Only our own queries are put in.
    )
    yield triggers_check(
        "The payments' triggers are in force",
        "payments_payment_stays",
        "payments_refund_stays",
        "payments_stripeevent_stays",
    )


def _units() -> str:
    """Return, as SQL, how many micros the minor unit of each currency has that anything was paid in."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT currency FROM payments_payment WHERE currency ~ '^[A-Z]{3}$'")
        rows = [f"('{code}', {money.micros_per_minor(code)})" for (code,) in cursor.fetchall()]
    return f"SELECT * FROM (VALUES {', '.join(rows or ["('', 0)"])}) AS unit (currency, micros)"  # noqa: S608  Codes and numbers of ISO 4217.
