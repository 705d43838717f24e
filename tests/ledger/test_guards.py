"""What the database refuses about money, asked in SQL."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, connection, transaction
from psycopg import errors

from apps.core.ids import uuid7
from apps.ledger import services as ledger
from apps.ledger.models import Account, AccountKind, Transfer, Wallet
from apps.ledger.services import Book, Posting, TransferKind
from tests.build import NOW

INSERT = """
    INSERT INTO ledger_transfer (id, organization_id, currency, debit_id, credit_id, amount_micros, kind, cause,
        batch_id, reason, reference, occurred_at, created_at, correlation_id)
    VALUES (%(id)s, %(organization_id)s, %(currency)s, %(debit_id)s, %(credit_id)s, %(amount)s, 'top_up', %(cause)s,
        %(id)s, '', '', now(), now(), '')
"""


def insert(book: Book, **changes: Any) -> None:
    """Insert one transfer of a micro from bank to revenue, with changes, past every line of Python."""
    row = {
        "id": uuid7(),
        "organization_id": book.wallet.organization_id,
        "currency": "USD",
        "debit_id": book[AccountKind.BANK],
        "credit_id": book[AccountKind.REVENUE],
        "amount": 1,
        "cause": "test:1",
    }
    run(INSERT, row | changes)


def run(statement: str, parameters: Any = None) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def refusal(statement: str, parameters: Any = None) -> tuple[type[BaseException] | None, str]:
    """Return the class of PostgreSQL's refusal and what it names: the constraint, else the message."""
    with pytest.raises(DatabaseError) as caught:
        run(statement, parameters)
    return _named(caught.value)


def refused(book: Book, **changes: Any) -> tuple[type[BaseException] | None, str]:
    with pytest.raises(DatabaseError) as caught:
        insert(book, **changes)
    return _named(caught.value)


def _named(error: BaseException) -> tuple[type[BaseException] | None, str]:
    cause = error.__cause__
    assert isinstance(cause, errors.Error)
    return type(cause), cause.diag.constraint_name or cause.diag.message_primary or ""


def balances() -> dict[UUID, int]:
    return {pk: micros for pk, micros in Account.objects.values_list("id", "balance_micros") if micros}


def test_one_transfer_moves_two_balances(book):
    insert(book, amount=7)

    assert balances() == {book[AccountKind.BANK]: -7, book[AccountKind.REVENUE]: 7}


def test_one_statement_moves_the_sum_of_its_rows(book):
    postings = [
        Posting(
            debit_id=book[debit],
            credit_id=book[credit],
            amount_micros=amount,
            kind=TransferKind.TOP_UP,
            cause=f"test:{amount}",
            occurred_at=NOW,
        )
        for debit, credit, amount in (
            (AccountKind.BANK, AccountKind.REVENUE, 5),
            (AccountKind.REVENUE, AccountKind.BREAKAGE, 3),
            (AccountKind.BANK, AccountKind.REVENUE, 1),
        )
    ]

    made = ledger.post_transfers(book=book, postings=postings, now=NOW)

    assert balances() == {
        book[AccountKind.BANK]: -6,
        book[AccountKind.REVENUE]: 3,
        book[AccountKind.BREAKAGE]: 3,
    }
    posted = Transfer.objects.filter(pk__in=made).values_list("batch_id", flat=True)
    assert len(posted) == 3
    assert len(set(posted)) == 1


@pytest.mark.parametrize("amount", [0, -1])
def test_refuses_a_transfer_of_zero_or_less(book, amount):
    assert refused(book, amount=amount) == (errors.CheckViolation, "ledger_transfer_amount_positive")
    assert not balances()


def test_refuses_a_transfer_between_one_account_and_itself(book):
    assert refused(book, credit_id=book[AccountKind.BANK]) == (
        errors.CheckViolation,
        "ledger_transfer_two_accounts",
    )


@pytest.mark.parametrize(
    ("side", "constraint"),
    [("debit_id", "ledger_transfer_debit_in_book"), ("credit_id", "ledger_transfer_credit_in_book")],
)
def test_refuses_a_transfer_across_organizations(book, side, constraint):
    other = ledger.open_book(organization_id=uuid7(), currency="USD", now=NOW)

    assert refused(book, **{side: other[AccountKind.CLEARING]}) == (errors.ForeignKeyViolation, constraint)
    assert not balances()


def test_refuses_a_transfer_across_currencies(book):
    other = ledger.open_book(organization_id=uuid7(), currency="EUR", now=NOW)

    assert refused(book, currency="EUR")[0] is errors.ForeignKeyViolation
    assert refused(book, currency="EUR", credit_id=other[AccountKind.BANK])[0] is errors.ForeignKeyViolation
    assert not balances()


@pytest.mark.parametrize(
    "change",
    [
        "amount_micros = 2",
        "debit_id = credit_id, credit_id = debit_id",
        "occurred_at = now()",
        "cause = 'other'",
        "kind = 'grant'",
        "reason = 'because'",
    ],
)
def test_refuses_to_edit_a_transfer(book, change):
    insert(book)

    assert refusal(f"UPDATE ledger_transfer SET {change}") == (
        errors.RestrictViolation,
        "Rows of ledger_transfer are never changed or deleted; UPDATE is refused.",
    )


def test_refuses_to_delete_a_transfer(book):
    insert(book)

    assert refusal("DELETE FROM ledger_transfer") == (
        errors.RestrictViolation,
        "Rows of ledger_transfer are never changed or deleted; DELETE is refused.",
    )
    assert Transfer.objects.count() == 1


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE ledger_transfer",
        "TRUNCATE ledger_transfer CASCADE",
        "TRUNCATE ledger_account CASCADE",
        "TRUNCATE ledger_wallet CASCADE",
        "TRUNCATE organizations_organization CASCADE",
    ],
)
def test_refuses_to_empty_the_ledger(transactional_db, statement):
    book = ledger.open_book(organization_id=uuid7(), currency="USD", now=NOW)
    insert(book)

    kind, name = refusal(statement)

    assert kind is not None
    assert issubclass(kind, errors.RestrictViolation | errors.FeatureNotSupported), name
    assert (Transfer.objects.count(), Account.objects.count(), Wallet.objects.count()) == (1, 9, 1)


@pytest.mark.parametrize(
    "change",
    [
        "balance_micros = 5",
        "balance_micros = balance_micros + 0",
        "kind = 'revenue'",
        "currency = 'EUR'",
        "organization_id = gen_random_uuid()",
        "created_at = now()",
    ],
)
def test_refuses_to_edit_an_account(book, change):
    assert refusal(f"UPDATE ledger_account SET {change} WHERE kind = 'bank'") == (
        errors.RestrictViolation,
        "Accounts change through transfers alone; UPDATE is refused.",
    )


def test_refuses_to_delete_an_account(book):
    assert refusal("DELETE FROM ledger_account WHERE kind = 'bank'") == (
        errors.RestrictViolation,
        "Accounts change through transfers alone; DELETE is refused.",
    )


def test_refuses_an_account_that_opens_with_a_balance(book):
    assert refusal(
        "INSERT INTO ledger_account (id, organization_id, currency, kind, balance_micros, created_at)"
        " VALUES (gen_random_uuid(), %s, 'USD', 'paid_lot', 1, now())",
        [book.wallet.organization_id],
    ) == (errors.RestrictViolation, "An account opens with a balance of zero; only transfers move it.")


def test_refuses_a_lot_below_zero(book):
    lot = ledger.open_lot_account(book=book, kind=AccountKind.PAID_LOT, now=NOW)
    insert(book, credit_id=lot, amount=5)

    assert refused(book, debit_id=lot, amount=6, cause="test:2") == (
        errors.CheckViolation,
        "ledger_account_lot_not_negative",
    )
    assert balances() == {book[AccountKind.BANK]: -5, lot: 5}
    assert Transfer.objects.count() == 1


def test_refuses_a_receivable_above_zero(book):
    insert(book, debit_id=book[AccountKind.RECEIVABLE], amount=5)

    assert refused(book, credit_id=book[AccountKind.RECEIVABLE], amount=6, cause="test:2") == (
        errors.CheckViolation,
        "ledger_account_receivable_not_positive",
    )
    assert balances() == {book[AccountKind.RECEIVABLE]: -5, book[AccountKind.REVENUE]: 5}


def test_refuses_the_same_cause_twice(book):
    insert(book)

    kind, name = refused(book, amount=2)

    assert kind is errors.UniqueViolation
    assert name.startswith("ledger_transfer_cause")
    assert balances() == {book[AccountKind.BANK]: -1, book[AccountKind.REVENUE]: 1}


@pytest.mark.parametrize("currency", ["USD", "EUR"])
def test_refuses_a_second_wallet(book, currency):
    assert refusal(
        "INSERT INTO ledger_wallet (id, organization_id, currency, created_at)"
        " VALUES (gen_random_uuid(), %s, %s, now())",
        [book.wallet.organization_id, currency],
    ) == (errors.UniqueViolation, "ledger_wallet_organization")


def test_refuses_a_second_account_of_a_kind_and_an_account_without_a_book(book):
    statement = (
        "INSERT INTO ledger_account (id, organization_id, currency, kind, balance_micros, created_at)"
        " VALUES (gen_random_uuid(), %s, %s, 'bank', 0, now())"
    )

    assert refusal(statement, [book.wallet.organization_id, "USD"]) == (
        errors.UniqueViolation,
        "ledger_account_once_per_book",
    )
    assert refusal(statement, [uuid7(), "USD"]) == (errors.ForeignKeyViolation, "ledger_account_book")
    assert refusal(statement, [book.wallet.organization_id, "EUR"]) == (
        errors.ForeignKeyViolation,
        "ledger_account_book",
    )


def test_refuses_to_move_a_wallet_to_another_currency_or_to_drop_it(book):
    assert refusal("UPDATE ledger_wallet SET currency = 'EUR'") == (
        errors.ForeignKeyViolation,
        "ledger_account_book",
    )
    assert refusal("DELETE FROM ledger_wallet") == (errors.ForeignKeyViolation, "ledger_account_book")
