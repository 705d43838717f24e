"""`verify_ledger` trusts neither code nor triggers: damage done behind their backs is found, each kind by its check."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from tests import build
from tests.build import NOW
from tests.money import failing

NOT_TOLD = "What later invoices no longer look at is told by earlier ones"
DAMAGE = {
    "an amount edited": (
        "UPDATE ledger_transfer SET amount_micros = amount_micros + 1 WHERE kind = 'top_up'",
        {
            "Every account balance equals its credits minus its debits",
            "Every lot began with a transfer of its amount",
        },
    ),
    "a transfer deleted": (
        "DELETE FROM ledger_transfer WHERE kind = 'top_up'",
        {
            "Every account balance equals its credits minus its debits",
            "Every lot began with a transfer of its amount",
        },
    ),
    "a transfer with its balances deleted": (
        """
        UPDATE ledger_account SET balance_micros = 0 WHERE kind IN ('paid_lot', 'bank');
        DELETE FROM billing_burn; DELETE FROM billing_chargehour; DELETE FROM ledger_transfer WHERE kind = 'usage';
        UPDATE ledger_account SET balance_micros = 0;
        DELETE FROM ledger_transfer
        """,
        {
            "Every metered hour that has ended is charged",
            "Every lot began with a transfer of its amount",
            NOT_TOLD,
        },
    ),
    "a balance edited": (
        "UPDATE ledger_account SET balance_micros = balance_micros + 1 WHERE kind = 'paid_lot'",
        {"Every account balance equals its credits minus its debits", "Every book sums to zero"},
    ),
    "a lot driven below zero": (
        """
        ALTER TABLE ledger_account DROP CONSTRAINT ledger_account_lot_not_negative;
        UPDATE ledger_account SET balance_micros = -1 WHERE kind = 'paid_lot'
        """,
        {
            "Every account balance equals its credits minus its debits",
            "Every book sums to zero",
            "No lot is below zero and no receivable above it",
        },
    ),
    "a transfer moved to another book": (
        "UPDATE ledger_transfer SET organization_id = gen_random_uuid() WHERE kind = 'top_up'",
        {"Every transfer is positive, between two accounts of its own book"},
    ),
    "a cause posted twice": (
        """
        ALTER TABLE ledger_transfer DROP CONSTRAINT ledger_transfer_cause_key;
        UPDATE ledger_transfer SET cause = 'same'
        """,
        {"No cause was posted twice", "Every lot began with a transfer of its amount"},
    ),
    "a trigger dropped": (
        "DROP TRIGGER ledger_transfer_rows_stay ON ledger_transfer",
        {"The ledger's triggers are in force"},
    ),
    "a trigger disabled": (
        "ALTER TABLE ledger_account DISABLE TRIGGER ledger_account_guards_balance",
        {"The ledger's triggers are in force"},
    ),
    "a burn's trigger dropped": (
        "DROP TRIGGER billing_burn_rows_stay ON billing_burn",
        {"The burns' triggers are in force"},
    ),
    "an invoice's trigger disabled": (
        "ALTER TABLE invoices_invoice DISABLE TRIGGER invoices_invoice_stays",
        {"The invoices' triggers are in force"},
    ),
    "an hour's amount edited": (
        "UPDATE billing_chargehour SET amount_micros = amount_micros + 1",
        {
            "Every hour costs what its price makes of its quantity",
            "The burns of every key add up to its hours",
            NOT_TOLD,
        },
    ),
    "an hour's quantity edited": (
        "UPDATE billing_chargehour SET quantity = quantity + 3600",
        {
            "Every hour costs what its price makes of its quantity",
            "Every charged hour has the quantity that was metered",
            NOT_TOLD,
        },
    ),
    "a charged hour deleted": (
        "DELETE FROM billing_chargehour",
        {
            "Every metered hour that has ended is charged",
            "The burns of every key add up to its hours",
            NOT_TOLD,
        },
    ),
    "usage edited": (
        "UPDATE metering_usagehour SET quantity = quantity + 1",
        {"Every charged hour has the quantity that was metered"},
    ),
    "a burn reversed without a transfer": (
        "UPDATE billing_burn SET reversed_micros = 1",
        {"The burns of every key add up to its hours"},
    ),
    "a burn pointed at another transfer": (
        "UPDATE billing_burn SET transfer_id = (SELECT id FROM ledger_transfer WHERE kind = 'top_up')",
        {"Every burn is the transfer that it names"},
    ),
    "an invoice line edited": (
        "UPDATE invoices_invoiceline SET amount_minor = amount_minor + 1",
        {
            "Every invoice is the sum of its lines",
            "Every invoiced key costs what its price makes of its quantity",
            "The taxes of every invoice are those of its rate groups, and these of their lines",
        },
    ),
    "less than nothing invoiced": (
        "UPDATE invoices_invoiceline SET quantity = -quantity",
        {"Every invoiced key costs what its price makes of its quantity", NOT_TOLD},
    ),
    "an invoice number skipped": (
        "UPDATE invoices_invoicecounter SET last_number = last_number + 1",
        {"Invoice numbers have no gap and no repeat"},
    ),
    "a period's close deleted": (
        "DELETE FROM invoices_periodclose",
        {"Every final period has its close, and every final invoice its period"},
    ),
    "an invoice asking for more than is owed": (
        "UPDATE invoices_invoice SET due_minor = due_minor + 1",
        {"What is owed is open invoices, usage not invoiced yet and payments taken back"},
    ),
}


@pytest.fixture
def invoiced(db):
    """One organization with credit, one charged hour and a final invoice for it."""
    organization = build.organization(now=NOW)
    build.price_book({"unit_price": "2.49"})
    build.credit(organization, "10")
    build.usage(organization, NOW - timedelta(hours=2), NOW - timedelta(hours=1))
    build.metered(organization)
    build.closed(organization, "2026-05", now=NOW + timedelta(days=31))
    return organization


def test_holds_for_what_the_services_wrote(invoiced):
    assert failing() == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_finds(invoiced, damage):
    statement, expected = DAMAGE[damage]
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(statement)
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")

    assert {check.name for check in failing()} == expected


@pytest.mark.django_db(transaction=True)
def test_the_command_prints_each_check_and_fails_when_one_does():
    organization = build.organization(now=NOW)
    build.credit(organization, "10")
    out = StringIO()

    call_command("verify_ledger", stdout=out, no_color=True)

    assert len(out.getvalue().splitlines()) == 29
    assert all(line.startswith("ok    ") for line in out.getvalue().splitlines())
    assert "ok    Every book sums to zero (1 rows)\n" in out.getvalue()

    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE ledger_account SET balance_micros = 1 WHERE kind = 'revenue'")
        cursor.execute("SET session_replication_role = DEFAULT")
    out = StringIO()
    with pytest.raises(CommandError) as failed:
        call_command("verify_ledger", stdout=out, no_color=True)

    assert str(failed.value) == "2 checks failed."
    assert failed.value.returncode == 1
    assert f"FAIL  Every book sums to zero (1 rows)\n      {organization.id} USD: 1\n" in out.getvalue()
