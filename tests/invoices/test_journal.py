"""The journal for bookkeeping: balanced, complete, equal to the ledger, and unchanged once its month is locked."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from importlib import import_module
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.billing.models import Pot
from apps.core import money
from apps.invoices import journal
from apps.invoices import services as invoices
from apps.invoices.documents.content import content_of
from apps.invoices.models import Invoice, JournalEntry, JournalMonth
from apps.organizations import services as organizations
from tests import build
from tests.billing.runs import HOUR
from tests.invoices.conftest import APRIL
from tests.money import books, failing
from tests.staff import staff_client

MAY = datetime(2026, 5, 3, tzinfo=UTC)
JUNE = datetime(2026, 6, 2, tzinfo=UTC)
JULY = datetime(2026, 7, 3, tzinfo=UTC)


@pytest.fixture
def lab(db):
    """Paid and promotional credit, an invoice at 19 % paid in part by credit, a note, an expiry and a payment."""
    build.seller()
    lab = build.organization("lab", currency="EUR", name="Lab", now=APRIL)
    build.billing_profile(lab, legal_name="Lab GmbH", country="DE")
    build.price_book({"unit_price": "3.333"}, currency="EUR")
    build.credit(lab, "5", now=APRIL)
    build.credit(lab, "2.5", pot=Pot.PROMO, now=APRIL)
    build.credit(lab, "1.23", now=APRIL, expires_at=APRIL + 20 * 24 * HOUR, priority=90)
    build.usage(lab, APRIL, APRIL + 7.1 * HOUR)
    invoice = build.closed(lab, "2026-04", now=MAY).invoice
    invoices.credit_invoice(actor=build.actor(), invoice=invoice, reason="=outage", amount_minor=119, now=MAY)
    build.credit(lab, "3", now=MAY + HOUR)
    invoices.write_off(actor=build.actor(), invoice=invoice, reason="insolvent", now=MAY + 2 * HOUR)
    return lab


def lock(label, now=JUNE):
    return invoices.lock_journal_month(actor=build.actor(), label=label, now=now)


def rename(lab):
    organizations.change_organization(actor=build.actor(lab), organization=lab, slug="renamed", now=JUNE)


def exported(label):
    out = StringIO()
    call_command("export_journal", period=label, stdout=out, stderr=StringIO())
    return list(csv.DictReader(StringIO(out.getvalue())))


def said(label):
    return [
        (row["entry"], row["date"], row["debit"], row["credit"], row["amount"], row["tax_code"])
        for row in exported(label)
    ]


def test_documents_and_money_are_booked_by_account(lab):
    # 7.1 × 3.333 = 23.66 less 2.50 promo = 21.16, tax 4.02; the note of 1.19 is 1.00 and 0.19 of tax.
    assert said("2026-04") == [
        ("", "2026-04-10", "bank", "customers", "5.00", ""),
        ("", "2026-04-10", "bank", "customers", "1.23", ""),
    ]
    lock("2026-04")
    assert said("2026-05") == [
        ("", "2026-05-03", "bank", "customers", "3.00", ""),
        ("", "2026-05-03", "revenue", "customers", "1.00", "S-DE-19"),
        ("", "2026-05-03", "tax_payable", "customers", "0.19", "S-DE-19"),
        ("", "2026-05-03", "customers", "revenue", "21.16", "S-DE-19"),
        ("", "2026-05-03", "customers", "tax_payable", "4.02", "S-DE-19"),
        ("", "2026-05-03", "bad_debt", "customers", "14.76", ""),
    ]
    rows = exported("2026-05")
    assert {(row["document"], row["text"]) for row in rows[1:]} == {
        ("CN-2026-000001", "Credit note 2026-04, Lab"),
        ("INV-2026-000001", "Invoice 2026-04, Lab"),
        ("INV-2026-000001", "Write-off, Lab: insolvent"),
    }


def test_the_journal_of_all_months_is_the_ledger(lab):
    sums = {}
    for label in ("2026-04", "2026-05"):
        before = journal.totals_of(label)
        lock(label)
        totals = journal.totals_of(label)
        assert totals == before
        for (_currency, account), minor in totals.minors.items():
            sums[account] = sums.get(account, 0) - money.minor_to_micros(minor, "EUR")
    ledger = books(lab)

    assert sum(sums.values()) == 0
    for account in ("bank", "tax_payable", "bad_debt"):
        assert sums[account] == ledger[account]
    promo = ledger.get("promo_expense", 0) + ledger.get("promo_lot", 0)
    assert sums["revenue"] == ledger["revenue"] + promo + promo_residue(ledger)
    customers = ledger.get("paid_lot", 0) + ledger.get("receivable", 0)
    assert abs(sums["customers"] - customers) < money.minor_to_micros(1, "EUR")


def promo_residue(ledger):
    """Promotional credit is burnt in micros and discounted in minor units."""
    promo = ledger.get("promo_expense", 0) + ledger.get("promo_lot", 0)
    return money.minor_to_micros(money.round_micros_to_minor(promo, "EUR"), "EUR") - promo


def test_a_locked_month_never_changes_and_what_is_late_lands_in_the_next(lab, settings):
    settings.JOURNAL_ACCOUNTS = {"customers": "1400"}
    lock("2026-04")
    first = exported("2026-04")
    lock("2026-05")
    kept = exported("2026-05")
    assert {(row["organization"], row["credit"]) for row in first} == {("lab", "1400")}
    rename(lab)
    settings.JOURNAL_ACCOUNTS = {"customers": "10000"}
    assert [row["entry"] for row in first] == ["2026-04/1", "2026-04/2"]
    assert sorted({row["entry"] for row in kept}) == ["2026-05/1", "2026-05/2", "2026-05/3", "2026-05/4"]

    build.credit(lab, "7", now=APRIL + 2 * HOUR)  # Dated in April, posted once it was locked.
    assert exported("2026-04") == first
    assert exported("2026-05") == kept
    assert lock("2026-05", now=JULY) == JournalMonth.objects.get(label="2026-05")

    lock("2026-06", now=JULY)
    assert said("2026-06") == [("2026-06/1", "2026-04-10", "bank", "10000", "7.00", "")]
    assert exported("2026-06")[0]["organization"] == "renamed"
    assert failing() == []
    for change in (
        lambda: JournalEntry.objects.update(number=99),
        lambda: JournalMonth.objects.update(locked_by="nobody"),
        lambda: JournalEntry.objects.all().delete(),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            change()


def test_months_are_locked_in_order_once_they_are_over(lab):
    with pytest.raises(invoices.MonthNotLockable, match="Lock 2026-04 first"):
        lock("2026-05")
    with pytest.raises(invoices.MonthNotLockable, match="not over yet"):
        lock("2026-04", now=datetime(2026, 5, 1, 11, 59, tzinfo=UTC))
    lock("2026-04", now=datetime(2026, 5, 1, 12, tzinfo=UTC))
    lock("2026-05")
    with pytest.raises(invoices.MonthNotLockable, match="2026-05 is locked already"):
        lock("2026-03")
    assert not JournalMonth.objects.filter(label="2026-03").exists()


def test_the_newest_is_unlocked_with_a_reason_and_locked_anew(lab):
    april, may = lock("2026-04"), lock("2026-05")
    before = exported("2026-05")
    build.credit(lab, "7", now=MAY)

    with pytest.raises(invoices.MonthNotUnlockable):
        invoices.unlock_journal_month(actor=build.actor(), month=april, reason="x", now=JUNE)
    invoices.unlock_journal_month(actor=build.actor(), month=may, reason="A payment was late", now=JUNE)
    with pytest.raises(invoices.MonthNotUnlockable):
        invoices.unlock_journal_month(actor=build.actor(), month=may, reason="again", now=JUNE)
    lock("2026-05")

    added = [row for row in exported("2026-05") if row["amount"] == "7.00"]
    assert (len(exported("2026-05")), len(added)) == (len(before) + 1, 1)
    assert JournalEntry.objects.filter(month=may, is_released=True).count() == 4
    assert AuditEvent.objects.get(action="journal.unlocked").reason == "A payment was late"
    assert failing() == []


def test_the_day_is_the_sellers_and_each_seller_has_its_own_numbers(lab, settings):
    settings.JOURNAL_ACCOUNTS = {"customers": "1400"}
    build.seller("pacific", timezone="Pacific/Kiritimati", country="US", vat_id="", iban="")
    other = build.organization("other", currency="EUR", now=APRIL)
    invoices.assign_seller(
        actor=build.actor(), organization=other, seller=invoices.save_seller(
            actor=build.actor(), code="pacific", now=APRIL
        ), now=APRIL,
    )  # fmt: skip
    last = datetime(2026, 4, 30, 10, tzinfo=UTC)
    build.credit(other, "1", now=last - timedelta(minutes=1))
    build.credit(other, "2", now=last)  # The first of May on Kiritimati.

    lock("2026-04")

    assert [
        (row["entity"], row["entry"], row["date"], row["amount"], row["credit"])
        for row in exported("2026-04")
    ] == [
        ("default", "2026-04/1", "2026-04-10", "5.00", "1400"),
        ("default", "2026-04/2", "2026-04-10", "1.23", "1400"),
        ("pacific", "2026-04/1", "2026-04-30", "1.00", "1400"),
    ]


def test_staff_lock_and_unlock_from_the_pages(lab):
    staff = staff_client()
    page = reverse("admin:invoices_journal_month", args=["2026-04"])
    assert "open" in staff.get(reverse("admin:invoices_journal")).content.decode()
    assert "6.23" in staff.get(page).content.decode()

    staff.post(reverse("admin:invoices_journal_lock", args=["2026-04"]))
    month = JournalMonth.objects.get(unlocked_at=None)
    assert reverse("admin:invoices_journal_unlock", args=[month.pk]) in staff.get(page).content.decode()
    file = staff.get(reverse("admin:invoices_journal_file", args=["2026-04"]))
    assert file.streaming
    assert list(csv.DictReader(StringIO(file.getvalue().decode()))) == exported("2026-04")
    focus = staff.get(reverse("admin:invoices_journal_focus", args=["2026-04"]))
    assert Invoice.objects.get(kind="invoice").number in focus.getvalue().decode()

    staff.post(reverse("admin:invoices_journal_unlock", args=[month.pk]), {"reason": "Wrong"})
    assert not JournalMonth.objects.filter(unlocked_at=None).exists()
    locks = staff.get(reverse("admin:invoices_journalmonth_changelist")).content.decode()
    assert reverse("admin:invoices_journal") in locks
    with pytest.raises(CommandError):
        call_command("export_journal", period="2027-01", lock=True, stdout=StringIO(), stderr=StringIO())


def test_entries_and_documents_of_before_get_the_slug_and_the_accounts_of_then(lab, settings):
    """What the migration writes into rows that were made when neither was kept."""
    settings.JOURNAL_ACCOUNTS = {"customers": "1400", "bank": "1800"}
    lock("2026-04", now=MAY)
    before = exported("2026-04")
    invoice = Invoice.objects.get(kind="invoice")
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL session_replication_role = replica")
        cursor.execute("UPDATE invoices_invoice SET organization_slug = ''")
        cursor.execute(
            """
            UPDATE invoices_journalentry SET organization_slug = '', lines = (
                SELECT jsonb_agg(line - 'debit_code' - 'credit_code') FROM jsonb_array_elements(lines) AS listed (line)
            )
            """
        )
        cursor.execute("SET LOCAL session_replication_role = origin")
    rename(lab)
    assert {row["organization"] for row in exported("2026-04")} == {""}

    migration = import_module("apps.invoices.migrations.0012_keep_what_was_printed")
    migration.keep(None, connection.SchemaEditorClass(connection, atomic=False))

    assert exported("2026-04") == before
    assert {row["organization"] for row in before} == {"lab"}
    assert {line["debit_code"] for entry in JournalEntry.objects.all() for line in entry.lines} == {"1800"}
    assert content_of(Invoice.objects.get(pk=invoice.pk))["organization"] == "lab"
    with pytest.raises(IntegrityError), transaction.atomic():
        Invoice.objects.update(organization_slug="other")
    with pytest.raises(IntegrityError), transaction.atomic():
        JournalEntry.objects.update(organization_slug="other")
