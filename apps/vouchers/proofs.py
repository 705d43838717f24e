"""What vouchers add to `verify_ledger`: counters equal rows, and every redemption is one lot of its amount."""

from __future__ import annotations

from collections.abc import Iterator

from apps.core.proofs import Check, sql_check, triggers_check


def prove_redemptions() -> Iterator[Check]:
    """Yield the checks on campaigns, codes and redemptions."""
    yield sql_check(
        "Every campaign counts its redemptions",
        "SELECT count(*) FROM vouchers_campaign",
        """
        SELECT c.name || ': counted ' || c.redeemed_count || ', redeemed ' || count(r.id)
        FROM vouchers_campaign c LEFT JOIN vouchers_redemption r ON r.campaign_id = c.id
        GROUP BY c.id HAVING c.redeemed_count <> count(r.id) OR count(r.id) > c.redemptions_max
        """,
    )
    yield sql_check(
        "Every voucher code counts its redemptions",
        "SELECT count(*) FROM vouchers_vouchercode",
        """
        SELECT v.id || ': counted ' || v.redeemed_count || ', redeemed ' || count(r.id)
        FROM vouchers_vouchercode v LEFT JOIN vouchers_redemption r ON r.code_id = v.id
        GROUP BY v.id HAVING v.redeemed_count <> count(r.id) OR count(r.id) > v.redemptions_max
        """,
    )
    yield sql_check(
        "Every redemption is one promotional lot of its campaign's amount",
        "SELECT count(*) FROM vouchers_redemption",
        """
        SELECT r.id || ': ' || coalesce(l.amount_micros || ' ' || l.currency || ' ' || l.pot, 'no lot')
        FROM vouchers_redemption r
        JOIN vouchers_campaign c ON c.id = r.campaign_id
        LEFT JOIN billing_creditlot l ON l.id = r.lot_id
        WHERE l.id IS NULL OR l.organization_id <> r.organization_id OR l.source <> 'voucher' OR l.pot <> 'promo'
           OR (l.amount_micros, l.currency) <> (c.amount_micros, c.currency)
        UNION ALL
        SELECT l.id || ': a lot of no redemption'
        FROM billing_creditlot l LEFT JOIN vouchers_redemption r ON r.lot_id = l.id
        WHERE l.source = 'voucher' AND r.id IS NULL
        """,
    )
    yield triggers_check(
        "The redemptions' triggers are in force",
        "vouchers_redemption_rows_stay",
        "vouchers_redemption_table_stays",
    )
