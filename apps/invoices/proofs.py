"""What invoices add to `verify_ledger`: documents, numbers and receivable agree with the books."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import connection
from django.db.models import Sum

from apps.core import money
from apps.core.proofs import SAMPLES, Check, sql_check, triggers_check
from apps.invoices.composing import line_total_minor
from apps.invoices.models import BILLED_KINDS, FINAL_STATES, Invoice, InvoiceLine
from apps.pricing import selectors as pricing


def prove_invoices() -> Iterator[Check]:
    """Yield the checks on invoices."""
    yield sql_check(
        "Every invoice is the sum of its lines",
        "SELECT count(*) FROM invoices_invoice WHERE state <> 'void'",
        """
        SELECT i.id || ' ' || coalesce(i.number, 'draft')
        FROM invoices_invoice i
        LEFT JOIN (
            SELECT invoice_id, sum(amount_minor) AS amount, sum(discount_minor) AS discount, sum(tax_minor) AS tax
            FROM invoices_invoiceline GROUP BY invoice_id
        ) l ON l.invoice_id = i.id
        WHERE i.state <> 'void' AND (
            (i.subtotal_minor, i.discount_minor, i.tax_minor) IS DISTINCT FROM (l.amount, l.discount, l.tax)
            OR i.total_minor <> i.subtotal_minor - i.discount_minor + i.tax_minor
        )
        """,
    )
    yield sql_check(
        "The taxes of every invoice are those of its rate groups, and these of their lines",
        "SELECT count(*) FROM invoices_invoicetax",
        """
        SELECT coalesce(i.number, i.id::text) FROM invoices_invoice i
        LEFT JOIN (
            SELECT invoice_id, sum(tax_minor) AS tax FROM invoices_invoicetax GROUP BY invoice_id
        ) t ON t.invoice_id = i.id
        WHERE i.state <> 'void' AND i.tax_minor <> coalesce(t.tax, 0)
        UNION ALL
        SELECT t.invoice_id || ' ' || t.category || ' ' || t.percent FROM invoices_invoicetax t
        LEFT JOIN (
            SELECT invoice_id, tax_category, tax_percent, tax_country, tax_note,
                   sum(amount_minor - discount_minor) AS base, sum(tax_minor) AS tax
            FROM invoices_invoiceline GROUP BY 1, 2, 3, 4, 5
        ) l ON l.invoice_id = t.invoice_id AND (l.tax_category, l.tax_percent, l.tax_country, l.tax_note)
            = (t.category, t.percent, t.country, t.note)
        WHERE (t.base_minor, t.tax_minor) IS DISTINCT FROM (l.base, l.tax)
        """,
    )
    yield sql_check(
        "Invoice numbers have no gap and no repeat",
        "SELECT count(*) FROM invoices_invoice WHERE number IS NOT NULL",
        """
        SELECT c.series || ' ' || c.year || ': counted to ' || c.last_number || ', found ' || count(i.number)
        FROM invoices_invoicecounter c
        LEFT JOIN invoices_invoice i ON i.entity = c.entity AND i.series = c.series
            AND i.number LIKE c.series || '-' || c.year || '-%'
            AND split_part(i.number, '-', 3)::int BETWEEN 1 AND c.last_number
        GROUP BY c.id HAVING count(DISTINCT i.number) <> c.last_number
        """,
    )
    yield sql_check(
        "Every final period has its close, and every final invoice its period",
        "SELECT count(*) FROM organizations_billingperiod WHERE state = 'final'",
        """
        SELECT p.organization_id || ' ' || p.label FROM organizations_billingperiod p
        LEFT JOIN invoices_periodclose c ON c.period_id = p.id
        WHERE (p.state = 'final') <> (c.id IS NOT NULL)
        UNION ALL
        SELECT i.number FROM invoices_invoice i
        LEFT JOIN invoices_periodclose c ON c.invoice_id = i.id
        WHERE i.number IS NOT NULL AND i.kind IN ('invoice', 'adjustment_note') AND c.id IS NULL
        """,
    )
    yield sql_check(
        "The journal of every locked month is numbered without a gap",
        "SELECT count(*) FROM invoices_journalentry WHERE NOT is_released",
        """
        SELECT m.label || ' ' || e.entity FROM invoices_journalentry e
        JOIN invoices_journalmonth m ON m.id = e.month_id
        GROUP BY m.id, e.entity HAVING max(e.number) <> count(*)
        """,
    )
    yield sql_check(
        "What later invoices no longer look at is told by earlier ones",
        "SELECT count(*) FROM billing_chargekey WHERE NOT is_reopened",
        """
        SELECT 'key ' || k.id || ': charged ' || coalesce(h.quantity, 0) || ', told ' || coalesce(l.quantity, 0)
        FROM billing_chargekey k
        JOIN organizations_billingperiod p ON p.id = k.period_id AND p.state = 'final'
        LEFT JOIN (
            SELECT key_id, sum(quantity) AS quantity, sum(amount_micros) AS micros
            FROM billing_chargehour GROUP BY key_id
        ) h ON h.key_id = k.id
        LEFT JOIN (
            SELECT l.key_id, sum(l.quantity) AS quantity, sum(l.ledger_micros) AS micros
            FROM invoices_invoiceline l JOIN invoices_invoice i ON i.id = l.invoice_id
            WHERE i.number IS NOT NULL AND l.kind IN ('usage', 'adjustment') GROUP BY l.key_id
        ) l ON l.key_id = k.id
        WHERE NOT k.is_reopened AND k.price_key_id IS NOT NULL
          AND (coalesce(h.quantity, 0), coalesce(h.micros, 0)) <> (coalesce(l.quantity, 0), coalesce(l.micros, 0))
        """,
    )
    yield _prove_lines()
    yield _prove_receivables()
    yield _prove_tax()
    yield triggers_check(
        "The invoices' triggers are in force",
        "invoices_invoice_stays",
        "invoices_invoice_table_stays",
        "invoices_invoiceline_stays",
        "invoices_invoiceline_table_stays",
        "invoices_invoicetax_stays",
        "invoices_invoicetax_table_stays",
        "invoices_invoiceclaim_stays",
        "invoices_invoiceclaim_table_stays",
        "invoices_journalentry_stays",
        "invoices_journalentry_table_stays",
        "invoices_journalmonth_stays",
        "invoices_journalmonth_table_stays",
        "invoices_invoicefile_rows_stay",
        "invoices_invoicefile_table_stays",
        "invoices_taxrate_rows_stay",
        "invoices_taxrate_table_stays",
        "invoices_vatcheck_rows_stay",
        "invoices_vatcheck_table_stays",
        "invoices_invoicepayment_rows_stay",
        "invoices_invoicepayment_table_stays",
        "invoices_periodclose_rows_stay",
        "invoices_periodclose_table_stays",
    )


def _prove_lines() -> Check:
    """Prove that what final invoices say of each charge key is its price's amount for their quantity."""
    rows = (
        InvoiceLine.objects.filter(invoice__state__in=FINAL_STATES, kind__in=BILLED_KINDS)
        .values("key_id", "key__price_id", "key__override_id", "invoice__currency")
        .annotate(quantity_sum=Sum("quantity"), amount_sum=Sum("amount_minor"))
    )
    terms = pricing.terms_of_keys({(row["key__price_id"], row["key__override_id"]) for row in rows})
    failures = []
    for row in rows:
        if row["quantity_sum"] < 0:
            failures.append(
                f"key {row['key_id']}: invoiced {row['quantity_sum']} of what is never below zero"
            )
            continue
        price = terms[row["key__price_id"], row["key__override_id"]]
        expected = line_total_minor(price, row["quantity_sum"], row["invoice__currency"])
        if expected != row["amount_sum"]:
            failures.append(f"key {row['key_id']}: invoiced {row['amount_sum']}, should be {expected}")
    return Check(
        name="Every invoiced key costs what its price makes of its quantity",
        rows=len(rows),
        failures=tuple(failures[:SAMPLES]),
    )


def _prove_receivables() -> Check:
    """Prove that what an organization owes is its open invoices, usage not invoiced yet and payments taken back."""
    owed = {
        row[0]: int(row[1])
        for row in _rows(
            "SELECT organization_id, -sum(balance_micros) FROM ledger_account WHERE kind = 'receivable' "
            "GROUP BY organization_id"
        )
    }
    expected: dict[object, int] = dict.fromkeys(owed, 0)
    for organization_id, micros in _rows(
        "SELECT organization_id, sum(receivable_micros - billed_receivable_micros) FROM billing_chargekey "
        "GROUP BY organization_id UNION ALL "
        "SELECT organization_id, taken_back_micros - unbilled_receipts_micros FROM billing_billingprogress UNION ALL "
        "SELECT organization_id, -sum(amount_micros) FROM invoices_invoicepayment GROUP BY organization_id"
    ):
        expected[organization_id] = expected.get(organization_id, 0) + int(micros)
    for invoice in Invoice.objects.final().iterator():
        expected[invoice.organization_id] = expected.get(invoice.organization_id, 0) + money.minor_to_micros(
            invoice.due_minor, invoice.currency
        )
    failures = [
        f"{organization_id}: owes {owed.get(organization_id, 0)}, documents say {micros}"
        for organization_id, micros in expected.items()
        if owed.get(organization_id, 0) != micros
    ]
    return Check(
        name="What is owed is open invoices, usage not invoiced yet and payments taken back",
        rows=len(expected),
        failures=tuple(failures[:SAMPLES]),
    )


def _prove_tax() -> Check:
    """Prove that the tax payable of every book is the tax of its final documents."""
    owed = {
        (row[0], row[1]): int(row[2])
        for row in _rows(
            "SELECT organization_id, currency, balance_micros FROM ledger_account WHERE kind = 'tax_payable'"
        )
    }
    told = {
        (row[0], row[1]): money.minor_to_micros(int(row[2]), str(row[1]))
        for row in _rows(
            "SELECT organization_id, currency, sum(tax_minor) FROM invoices_invoice WHERE number IS NOT NULL "
            "GROUP BY organization_id, currency"
        )
    }
    failures = [
        f"{book[0]} {book[1]}: {owed.get(book, 0)} payable, documents say {told.get(book, 0)}"
        for book in owed.keys() | told.keys()
        if owed.get(book, 0) != told.get(book, 0)
    ]
    return Check(
        name="The tax payable is the tax of all documents",
        rows=len(owed),
        failures=tuple(sorted(failures)[:SAMPLES]),
    )


def _rows(query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())
