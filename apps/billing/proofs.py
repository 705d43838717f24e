"""What billing adds to `verify_ledger`: every posted amount follows from the usage and its price."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from apps.billing.charging import amounts_micros
from apps.billing.models import ChargeHour, ChargeKey
from apps.core.proofs import SAMPLES, Check, sql_check, triggers_check
from apps.pricing import selectors as pricing


def prove_charges() -> Iterator[Check]:
    """Yield the checks from usage to transfers."""
    yield sql_check(
        "Every charged hour has the quantity that was metered",
        "SELECT count(*) FROM billing_chargehour",
        """
        SELECT charged.organization_id || ' ' || charged.meter || ' ' || charged.sku || ' ' || charged.hour
            || ': charged ' || charged.quantity || ', metered ' || coalesce(used.quantity, 0)
        FROM (
            SELECT k.organization_id, k.meter, k.sku, k.region, h.hour, sum(h.quantity) AS quantity
            FROM billing_chargehour h JOIN billing_chargekey k ON k.id = h.key_id
            GROUP BY k.organization_id, k.meter, k.sku, k.region, h.hour
        ) charged
        LEFT JOIN (
            SELECT organization_id, meter, sku, region, hour, sum(quantity) AS quantity
            FROM metering_usagehour GROUP BY organization_id, meter, sku, region, hour
        ) used USING (organization_id, meter, sku, region, hour)
        WHERE charged.quantity <> coalesce(used.quantity, 0)
          AND NOT EXISTS (
            SELECT FROM metering_usagechange c
            WHERE (c.organization_id, c.meter, c.sku, c.region, c.hour)
                = (charged.organization_id, charged.meter, charged.sku, charged.region, charged.hour)
          )
        """,
    )
    yield sql_check(
        "Every metered hour that has ended is charged",
        "SELECT count(*) FROM metering_usagehour WHERE quantity > 0",
        """
        SELECT used.organization_id || ' ' || used.meter || ' ' || used.sku || ' ' || used.hour
        FROM metering_usagehour used
        JOIN billing_billingprogress progress ON progress.organization_id = used.organization_id
        WHERE used.quantity > 0 AND used.hour < progress.charged_until
          AND NOT EXISTS (
            SELECT FROM billing_chargehour h JOIN billing_chargekey k ON k.id = h.key_id
            WHERE k.organization_id = used.organization_id AND h.hour = used.hour
              AND (k.meter, k.sku, k.region) = (used.meter, used.sku, used.region)
          )
          AND NOT EXISTS (
            SELECT FROM metering_usagechange c
            WHERE (c.organization_id, c.meter, c.sku, c.region, c.hour)
                = (used.organization_id, used.meter, used.sku, used.region, used.hour)
          )
        """,
    )
    yield _prove_amounts()
    yield sql_check(
        "The burns of every key add up to its hours",
        "SELECT count(*) FROM billing_chargekey",
        """
        SELECT k.id || ': hours ' || coalesce(h.micros, 0) || ', burns ' || coalesce(b.micros, 0)
        FROM billing_chargekey k
        LEFT JOIN (SELECT key_id, sum(amount_micros) AS micros FROM billing_chargehour GROUP BY key_id) h
            ON h.key_id = k.id
        LEFT JOIN (
            SELECT key_id, sum(amount_micros - reversed_micros) AS micros,
                   sum(amount_micros - reversed_micros) FILTER (WHERE lot_id IS NULL) AS receivable
            FROM billing_burn GROUP BY key_id
        ) b ON b.key_id = k.id
        WHERE coalesce(h.micros, 0) <> coalesce(b.micros, 0)
           OR k.receivable_micros <> coalesce(b.receivable, 0)
        """,
    )
    yield sql_check(
        "Every lot began with a transfer of its amount",
        "SELECT count(*) FROM billing_creditlot",
        """
        SELECT l.id || ': ' || l.amount_micros || ', transferred ' || coalesce(t.amount_micros, 0)
        FROM billing_creditlot l LEFT JOIN ledger_transfer t ON t.cause = 'lot:' || l.id || ':1'
        WHERE t.id IS NULL OR (t.amount_micros, t.credit_id) <> (l.amount_micros, l.account_id)
        """,
    )
    yield sql_check(
        "Every burn is the transfer that it names",
        "SELECT count(*) FROM billing_burn",
        """
        SELECT b.id || ' ' || coalesce(t.cause, 'without a transfer')
        FROM billing_burn b
        LEFT JOIN ledger_transfer t ON t.id = b.transfer_id
        LEFT JOIN ledger_account a ON a.id = t.debit_id
        LEFT JOIN billing_creditlot l ON l.id = b.lot_id
        WHERE t.id IS NULL OR t.amount_micros <> b.amount_micros OR t.organization_id <> b.organization_id
           OR (b.lot_id IS NULL AND a.kind <> 'receivable')
           OR (b.lot_id IS NOT NULL AND l.account_id <> t.debit_id)
        """,
    )
    yield triggers_check(
        "The burns' triggers are in force", "billing_burn_rows_stay", "billing_burn_table_stays"
    )


def _prove_amounts() -> Check:
    """Recompute every hour of every key from its quantities and its price."""
    failures: list[str] = []
    rows = 0
    hours = ChargeHour.objects.select_related("key").order_by("key_id", "hour").iterator(chunk_size=5_000)
    stored = ChargeKey.objects.filter(hours__isnull=False).exclude(price_key_id=None)
    terms = pricing.terms_of_keys(set(stored.values_list("price_id", "override_id").distinct()))
    for _key_id, group in groupby(hours, key=lambda row: row.key_id):
        of_key = list(group)
        rows += len(of_key)
        key = of_key[0].key
        expected = (
            amounts_micros(terms[key.price_id, key.override_id], (row.quantity for row in of_key))
            if key.price_key_id
            else [0] * len(of_key)
        )
        failures.extend(
            f"{key} {row.hour:%Y-%m-%d %H:%M}: posted {row.amount_micros}, should be {amount}"
            for row, amount in zip(of_key, expected, strict=True)
            if row.amount_micros != amount
        )
    return Check(
        name="Every hour costs what its price makes of its quantity",
        rows=rows,
        failures=tuple(failures[:SAMPLES]),
    )
