"""What the database refuses about invoices, and about rows of one organization that point at another's."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection, transaction
from psycopg import errors

from apps.invoices.models import Invoice, InvoiceLine
from tests import build
from tests.billing.runs import HOUR
from tests.build import NOW
from tests.invoices.conftest import APRIL


@pytest.fixture
def invoiced(lab):
    """April is final, paid in part; May is a draft."""
    build.price_book({"unit_price": "1"})
    build.usage(lab, APRIL, APRIL + HOUR)
    build.closed(lab, "2026-04")
    build.credit(lab, "0.5")
    build.credit(lab, "5")
    build.usage(lab, NOW - HOUR, NOW)
    build.metered(lab)
    build.closed(lab, "2026-05", finalize=False, now=NOW.replace(month=6))
    return lab


def run(*statements: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def refusal(*statements: str) -> tuple[type[BaseException] | None, str]:
    """Return the class of PostgreSQL's refusal, and the constraint or the message."""
    with pytest.raises(DatabaseError) as caught:
        run(*statements)
    cause = caught.value.__cause__
    assert isinstance(cause, errors.Error)
    return type(cause), cause.diag.constraint_name or cause.diag.message_primary or ""


def test_refuses_to_edit_a_final_invoice(invoiced):
    for change in (
        "total_minor = 0, subtotal_minor = 0",
        "due_minor = 0",
        "number = 'INV-2026-000009'",
        "number = NULL",
        "currency = 'EUR'",
        "finalized_at = now()",
        "drafted_at = now()",
        "tax_minor = 1, total_minor = total_minor + 1",
    ):
        assert refusal(f"UPDATE invoices_invoice SET {change} WHERE number IS NOT NULL") == (
            errors.RestrictViolation,
            "Invoice INV-2026-000001 is final; only its state changes.",
        ), change


def test_refuses_a_state_that_a_paid_invoice_cannot_reach(invoiced):
    assert Invoice.objects.get(number="INV-2026-000001").state == "paid"
    for state in ("draft", "void"):
        assert refusal(f"UPDATE invoices_invoice SET state = '{state}' WHERE number IS NOT NULL") == (
            errors.RestrictViolation,
            f"An invoice that is paid cannot become {state}.",
        )
    run("UPDATE invoices_invoice SET state = 'open' WHERE number IS NOT NULL")  # A payment that came back.


def test_refuses_to_delete_an_invoice_and_to_move_a_draft(invoiced):
    assert refusal("DELETE FROM invoices_invoice WHERE state = 'draft'") == (
        errors.RestrictViolation,
        "Invoices are never deleted; a draft becomes void.",
    )
    assert refusal(
        "UPDATE invoices_invoice SET period_id = (SELECT period_id FROM invoices_invoice WHERE state <> 'draft')"
        " WHERE state = 'draft'"
    ) == (errors.RestrictViolation, "An invoice stays with its organization and period.")


def test_refuses_to_change_the_lines_of_a_final_invoice(invoiced):
    for statement in (
        "UPDATE invoices_invoiceline SET amount_minor = 0",
        "UPDATE invoices_invoiceline SET splits = '[]'",
        "DELETE FROM invoices_invoiceline",
        """
        INSERT INTO invoices_invoiceline
        SELECT (jsonb_populate_record(line, jsonb_build_object('id', gen_random_uuid(), 'position', 9))).*
        FROM invoices_invoiceline line JOIN invoices_invoice invoice ON invoice.id = line.invoice_id
        WHERE invoice.state <> 'draft'
        """,
    ):
        kind, message = refusal(statement)
        assert kind is errors.RestrictViolation, statement
        assert message.startswith("Lines are written with their draft and stay;"), statement
    assert InvoiceLine.objects.count() == 2


def test_refuses_to_empty_a_table_of_documents_and_to_change_a_payment_or_a_close(invoiced):
    run("SET CONSTRAINTS ALL IMMEDIATE")
    for table in (
        "invoices_invoice", "invoices_invoiceline", "invoices_invoicepayment", "invoices_periodclose",
    ):  # fmt: skip
        assert refusal(f"TRUNCATE {table} CASCADE")[0] is errors.RestrictViolation, table
    for table in ("invoices_invoicepayment", "invoices_periodclose"):
        for statement in (f"UPDATE {table} SET id = gen_random_uuid()", f"DELETE FROM {table}"):
            assert refusal(statement)[0] is errors.RestrictViolation, statement


def test_refuses_a_second_invoice_for_a_period(invoiced):
    assert refusal(
        "INSERT INTO invoices_invoice SELECT (jsonb_populate_record(invoice, jsonb_build_object('id',"
        " gen_random_uuid(), 'state', 'draft', 'number', NULL, 'finalized_at', NULL))).* FROM invoices_invoice invoice"
        " WHERE state <> 'draft'"
    ) == (errors.UniqueViolation, "invoices_invoice_one_per_period")


def test_refuses_an_invoice_that_does_not_begin_as_a_draft(invoiced):
    assert (
        refusal(
            "INSERT INTO invoices_invoice SELECT (jsonb_populate_record(invoice, jsonb_build_object('id',"
            " gen_random_uuid(), 'number', 'INV-2026-000002'))).* FROM invoices_invoice invoice"
            " WHERE state <> 'draft'"
        )[0]
        == errors.RestrictViolation
    )


def test_refuses_a_final_invoice_without_a_number_and_a_total_that_does_not_add_up(invoiced):
    assert refusal("UPDATE invoices_invoice SET state = 'open' WHERE state = 'draft'") == (
        errors.CheckViolation,
        "invoices_invoice_final_is_numbered",
    )
    assert refusal("UPDATE invoices_invoice SET total_minor = 7 WHERE state = 'draft'") == (
        errors.CheckViolation,
        "invoices_invoice_total",
    )


CROSSINGS = {
    "billing_creditlot_account": "billing_creditlot",
    "billing_chargekey_period": "billing_chargekey",
    "billing_chargehour_key_tenant": "billing_chargehour",
    "billing_burn_key_tenant": "billing_burn",
    "billing_burn_lot_tenant": "billing_burn",
    "billing_burn_transfer_tenant": "billing_burn",
    "invoices_invoice_period": "invoices_invoice",
    "invoices_invoiceline_invoice": "invoices_invoiceline",
    "invoices_invoiceline_charge_key": "invoices_invoiceline",
    "invoices_invoicepayment_invoice": "invoices_invoicepayment",
    "invoices_periodclose_period": "invoices_periodclose",
    "invoices_periodclose_invoice": "invoices_periodclose",
}


def test_refuses_a_row_that_points_at_another_organizations(invoiced):
    """A copy of a row under another organization's id still points at the first one's rows."""
    other = build.organization("other")
    run("SET CONSTRAINTS ALL IMMEDIATE")
    for constraint, table in CROSSINGS.items():
        new_id = "1000000" if table == "billing_burn" else "gen_random_uuid()"
        condition = {
            "billing_burn": "lot_id IS NOT NULL",
            "invoices_invoiceline": "invoice_id IN (SELECT id FROM invoices_invoice WHERE state = 'draft')",
            "invoices_invoice": "state = 'draft'",
        }.get(table, "true")

        # All of it is undone with the refusal.
        assert refusal(
            "SET CONSTRAINTS ALL DEFERRED",
            *without_unique(table),
            *without_checks_by_statement(table, but=constraint),
            f"INSERT INTO {table} SELECT (jsonb_populate_record(original, jsonb_build_object('id', {new_id},"
            f" 'organization_id', '{other.id}'))).* FROM {table} original WHERE {condition} LIMIT 1",
            *([] if constraint.endswith("_tenant") else [f"SET CONSTRAINTS {constraint} IMMEDIATE"]),
        ) == (errors.ForeignKeyViolation, constraint)


def without_checks_by_statement(table: str, *, but: str) -> list[str]:
    """Return what switches the other checks off that would refuse the copy of a row before this one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND tgname LIKE %s AND tgname <> %s",
            [table, r"%\_tenant\_insert", f"{but}_insert"],
        )
        return [f'ALTER TABLE {table} DISABLE TRIGGER "{name}"' for (name,) in cursor.fetchall()]


def without_unique(table: str) -> list[str]:
    """Return what drops the unique constraints that would refuse the copy of a row first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint unique_key WHERE conrelid = %s::regclass AND contype = 'u' AND NOT"
            " EXISTS (SELECT FROM pg_constraint WHERE confrelid = %s::regclass AND conindid = unique_key.conindid"
            " AND contype = 'f')",
            [table, table],
        )
        return [f'ALTER TABLE {table} DROP CONSTRAINT "{name}"' for (name,) in cursor.fetchall()]


def test_refuses_a_line_that_corrects_another_organizations(invoiced):
    other = build.organization("other", now=APRIL)
    build.usage(other, APRIL, APRIL + HOUR)
    draft = build.closed(other, "2026-04", finalize=False).invoice

    assert refusal(
        "INSERT INTO invoices_invoiceline SELECT (jsonb_populate_record(line, jsonb_build_object('id',"
        " gen_random_uuid(), 'position', 9, 'kind', 'adjustment', 'key_id', gen_random_uuid(), 'corrects_id',"
        f" (SELECT id FROM invoices_invoiceline WHERE organization_id = '{invoiced.id}' LIMIT 1)))).*"
        f" FROM invoices_invoiceline line WHERE invoice_id = '{draft.id}'",
        "SET CONSTRAINTS invoices_invoiceline_corrects IMMEDIATE",
    ) == (errors.ForeignKeyViolation, "invoices_invoiceline_corrects")
