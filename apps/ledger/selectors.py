"""Balances, read from the accounts that the database keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.models import BigIntegerField, Case, F, OuterRef, Q, QuerySet, Sum, Value, When
from django.db.models.functions import TruncMonth

from apps.ledger.models import (
    LOT_KINDS,
    Account,
    AccountKind,
    Movement,
    Transfer,
    TransferKind,
    Wallet,
)

__all__ = [
    "AccountKind",
    "Movement",
    "Transfer",
    "TransferKind",
    "balance_micros",
    "balance_of",
    "credit_movements",
    "credit_totals",
    "currency_of",
    "movements_of",
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


def currency_of(organization: OuterRef) -> QuerySet[Any, Any]:
    """Return a subquery of the currency of a book, for rows that name its organization."""
    return Wallet.objects.filter(organization_id=organization).values("currency")[:1]


def balance_of(organization: OuterRef, kind: str) -> QuerySet[Any, Any]:
    """Return a subquery of credits − debits of one kind of account, in micros, for rows that name an organization."""
    accounts = Account.objects.filter(organization_id=organization, kind=kind).order_by()
    return accounts.values("organization_id").annotate(total=Sum("balance_micros")).values("total")


def transfers_of(organization_id: UUID) -> QuerySet[Transfer]:
    """Return an organization's transfers, for explanations."""
    return Transfer.objects.filter(organization_id=organization_id)


def movements_of(organization_id: UUID) -> QuerySet[Movement]:
    """Return what an organization's transfers did to its credit and to what it owes, for statements."""
    return Movement.objects.filter(organization_id=organization_id)


# What lots are called outside of the books.
_POTS = {AccountKind.PAID_LOT: "paid", AccountKind.PROMO_LOT: "promo"}


def credit_totals() -> list[tuple[str, str, int]]:
    """Return currency, pot (`paid` or `promo`) and what all organizations' lots have together, in micros."""
    rows = (
        Account.objects.filter(kind__in=LOT_KINDS)
        .values_list("currency", "kind")
        .order_by("currency", "kind")
    )
    return [
        (currency, _POTS[AccountKind(kind)], int(sum_))
        for currency, kind, sum_ in rows.annotate(Sum("balance_micros"))
    ]


def credit_movements(*, since: datetime) -> Iterable[Mapping[str, Any]]:
    """Return month (UTC), currency, pot, kind and signed micros of all that was posted to any lot since a moment."""
    into, out_of = Q(credit__kind__in=LOT_KINDS), Q(debit__kind__in=LOT_KINDS)
    own = Case(When(into, then=F("credit__kind")), default=F("debit__kind"))
    signed = Case(
        When(into, then=F("amount_micros")), default=-F("amount_micros"), output_field=BigIntegerField()
    )
    return (
        Transfer.objects.filter(into | out_of, created_at__gte=since)
        .annotate(own=own)
        .annotate(
            month=TruncMonth("created_at", tzinfo=UTC),
            pot=Case(*(When(Q(own=kind), then=Value(pot)) for kind, pot in _POTS.items())),
        )
        .values("month", "currency", "pot", "kind")
        .annotate(micros=Sum(signed))
        .order_by("month", "currency", "pot", "kind")
    )
