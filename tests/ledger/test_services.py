"""Books: opened once, in one currency; transfers reversed once."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from apps.core.ids import uuid7
from apps.ledger import services as ledger
from apps.ledger.models import Account, AccountKind, Transfer, TransferKind, Wallet
from apps.ledger.services import CurrencyMismatch, Posting
from tests.build import NOW
from tests.threads import at_once


def top_up(book, amount=5):
    posting = Posting(
        debit_id=book[AccountKind.BANK],
        credit_id=book[AccountKind.REVENUE],
        amount_micros=amount,
        kind=TransferKind.TOP_UP,
        cause="test:1",
        occurred_at=NOW,
    )
    (pk,) = ledger.post_transfers(book=book, postings=[posting], now=NOW)
    return Transfer.objects.get(pk=pk)


def test_a_book_is_opened_once_with_an_account_of_every_kind(book):
    again = ledger.open_book(organization_id=book.wallet.organization_id, currency="USD", now=NOW)

    assert again == book
    assert set(Account.objects.values_list("kind", flat=True)) == set(AccountKind) - {
        AccountKind.PAID_LOT,
        AccountKind.PROMO_LOT,
    }


def test_refuses_a_second_currency_and_writes_nothing(book):
    with pytest.raises(CurrencyMismatch) as refused:
        ledger.open_book(organization_id=book.wallet.organization_id, currency="EUR", now=NOW)

    assert refused.value.code == "currency_mismatch"
    assert refused.value.details == {"currency": "USD"}
    assert list(Wallet.objects.values_list("currency", flat=True)) == ["USD"]


@pytest.mark.django_db(transaction=True)
def test_two_threads_open_one_book():
    organization_id = uuid7()

    def open_it():
        with transaction.atomic():
            return dict(ledger.open_book(organization_id=organization_id, currency="USD", now=NOW).accounts)

    books = at_once(*[open_it] * 4)

    assert all(book == books[0] for book in books)
    assert Wallet.objects.count() == 1
    assert Account.objects.count() == len(books[0]) == 9


def test_a_reversal_is_the_opposite_and_happens_once(book):
    transfer = top_up(book)

    reversal = ledger.reverse_transfer(book=book, transfer=transfer, reason="wrong", now=NOW)

    assert (reversal.debit_id, reversal.credit_id, reversal.amount_micros, reversal.reference) == (
        transfer.credit_id,
        transfer.debit_id,
        5,
        "test:1",
    )
    assert not Account.objects.exclude(balance_micros=0).exists()
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.reverse_transfer(book=book, transfer=transfer, reason="again", now=NOW)
    assert Transfer.objects.count() == 2


def test_a_batch_with_one_bad_posting_posts_nothing(book):
    bad = Posting(
        debit_id=book[AccountKind.REVENUE],
        credit_id=book[AccountKind.RECEIVABLE],
        amount_micros=1,
        kind=TransferKind.TOP_UP,
        cause="test:2",
        occurred_at=NOW,
    )
    good = Posting(
        debit_id=book[AccountKind.BANK],
        credit_id=book[AccountKind.REVENUE],
        amount_micros=1,
        kind=TransferKind.TOP_UP,
        cause="test:1",
        occurred_at=NOW,
    )

    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.post_transfers(book=book, postings=[good, bad], now=NOW)

    assert not Transfer.objects.exists()
    assert not Account.objects.exclude(balance_micros=0).exists()
