"""Balances, read from the accounts that the database keeps."""

from __future__ import annotations

from uuid import UUID

from apps.ledger.models import Account, AccountKind, Transfer, TransferQuerySet, Wallet

__all__ = [
    "AccountKind",
    "Transfer",
    "TransferQuerySet",
    "balance_micros",
    "transfers_of",
    "wallet_currency",
]


def wallet_currency(organization_id: UUID) -> str | None:
    """Return the currency of an organization's book, or None before its first transfer."""
    return Wallet.objects.filter(organization_id=organization_id).values_list("currency", flat=True).first()


def balance_micros(organization_id: UUID, kind: str) -> int:
    """Return credits − debits of one kind of account of an organization, in micros; zero without a book."""
    balances = Account.objects.filter(organization_id=organization_id, kind=kind).values_list(
        "balance_micros", flat=True
    )
    return sum(balances)


def transfers_of(organization_id: UUID) -> TransferQuerySet:
    """Return an organization's transfers, for statements and explanations."""
    return Transfer.objects.filter(organization_id=organization_id)
