"""Wallets, accounts and transfers: the books of every organization, kept so that the database refuses a wrong one."""

from __future__ import annotations

from typing import Self
from uuid import UUID

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from apps.core.ids import uuid7


class AccountKind(models.TextChoices):
    """The accounts of a book; an organization's book holds the operator's side of it too."""

    PAID_LOT = "paid_lot", _("Paid credit")
    PROMO_LOT = "promo_lot", _("Promotional credit")
    RECEIVABLE = "receivable", _("Receivable")
    REVENUE = "revenue", _("Revenue")
    CLEARING = "clearing", _("Clearing")
    BANK = "bank", _("Bank")
    TAX_PAYABLE = "tax_payable", _("Tax payable")
    PROMO_EXPENSE = "promo_expense", _("Promotional expense")
    BREAKAGE = "breakage", _("Breakage")
    ROUNDING = "rounding", _("Rounding")
    BAD_DEBT = "bad_debt", _("Bad debt")


LOT_KINDS = (AccountKind.PAID_LOT, AccountKind.PROMO_LOT)


class TransferKind(models.TextChoices):
    """Why money moved, in the words of a statement."""

    TOP_UP = "top_up", _("Top-up")
    REFUND = "refund", _("Refund")
    DISPUTE = "dispute", _("Disputed payment")
    GRANT = "grant", _("Promotional credit")
    USAGE = "usage", _("Usage")
    USAGE_REVERSAL = "usage_reversal", _("Usage correction")
    EXPIRY = "expiry", _("Expired credit")
    INVOICE = "invoice", _("Invoice rounding")
    INVOICE_PAYMENT = "invoice_payment", _("Invoice paid from credit")
    TAX = "tax", _("Tax")
    CREDIT_NOTE = "credit_note", _("Credit note")
    WRITE_OFF = "write_off", _("Write-off")
    REVERSAL = "reversal", _("Correction")


class WalletQuerySet(models.QuerySet["Wallet"]):
    def of(self, organization_id: UUID, currency: str) -> Self:
        return self.filter(organization_id=organization_id, currency=currency)


class Wallet(models.Model):
    """One book: an organization's money in one currency. Its row is the lock that every money write takes first."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization_id = models.UUIDField()  # A plain id: the ledger knows no other app.
    currency = models.CharField(max_length=3)
    created_at = models.DateTimeField()

    objects = WalletQuerySet.as_manager()

    class Meta:
        verbose_name = _("wallet")
        verbose_name_plural = _("wallets")
        constraints = [
            # One billing currency per organization: a second wallet could only hold another one.
            models.UniqueConstraint(name="ledger_wallet_organization", fields=["organization_id"]),
            models.UniqueConstraint(name="ledger_wallet_book", fields=["organization_id", "currency"]),
            models.CheckConstraint(
                name="ledger_wallet_currency_code", condition=Q(currency__regex=r"^[A-Z]{3}$")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.currency}"


class Account(models.Model):
    """One account of a book. Balance = credits − debits, in micros, kept by the trigger on transfers alone."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization_id = models.UUIDField()
    currency = models.CharField(max_length=3)
    kind = models.CharField(max_length=16, choices=AccountKind.choices)
    balance_micros = models.BigIntegerField(default=0, editable=False)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("account")
        verbose_name_plural = _("accounts")
        constraints = [
            models.UniqueConstraint(
                name="ledger_account_once_per_book",
                fields=["organization_id", "currency", "kind"],
                condition=~Q(kind__in=LOT_KINDS),
            ),
            models.UniqueConstraint(
                name="ledger_account_in_book", fields=["organization_id", "currency", "id"]
            ),
            models.CheckConstraint(
                name="ledger_account_kind_known", condition=Q(kind__in=AccountKind.values)
            ),
            models.CheckConstraint(
                name="ledger_account_lot_not_negative",
                condition=~Q(kind__in=LOT_KINDS) | Q(balance_micros__gte=0),
            ),
            # What a customer owes is a debit balance; a surplus belongs into a lot, never here.
            models.CheckConstraint(
                name="ledger_account_receivable_not_positive",
                condition=~Q(kind=AccountKind.RECEIVABLE) | Q(balance_micros__lte=0),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.currency}"


class Transfer(models.Model):
    """One debit and one credit of the same amount, so it cannot be unbalanced; never changed, only reversed."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization_id = models.UUIDField()
    currency = models.CharField(max_length=3)
    debit = models.ForeignKey(Account, models.PROTECT, related_name="debits", db_constraint=False)
    credit = models.ForeignKey(Account, models.PROTECT, related_name="credits", db_constraint=False)
    amount_micros = models.BigIntegerField()
    kind = models.CharField(max_length=20, choices=TransferKind.choices)
    cause = models.CharField(max_length=160, unique=True)
    batch_id = models.UUIDField(default=uuid7)
    reason = models.CharField(max_length=255, blank=True)
    reference = models.CharField(max_length=160, blank=True)
    occurred_at = models.DateTimeField()
    created_at = models.DateTimeField()
    correlation_id = models.CharField(max_length=128, blank=True)

    class Meta:
        verbose_name = _("transfer")
        verbose_name_plural = _("transfers")
        constraints = [
            models.UniqueConstraint(name="ledger_transfer_in_organization", fields=["organization_id", "id"]),
            models.CheckConstraint(name="ledger_transfer_amount_positive", condition=Q(amount_micros__gt=0)),
            models.CheckConstraint(name="ledger_transfer_two_accounts", condition=~Q(debit=F("credit"))),
            models.CheckConstraint(
                name="ledger_transfer_kind_known", condition=Q(kind__in=TransferKind.values)
            ),
        ]
        indexes = [
            models.Index(name="ledger_transfer_statement", fields=["organization_id", "-occurred_at", "-id"]),
            models.Index(name="ledger_transfer_batch", fields=["batch_id"]),
        ]

    def __str__(self) -> str:
        return self.cause


class Movement(models.Model):
    """What one transfer did to one lot or to the receivable: a row of the customer's statement.

    Read from the transfers; one between two of these accounts is two movements, which add up to zero. signed_micros:
    positive is more credit or less debt. id: the transfer's, except of the second of two.
    """

    id = models.UUIDField(primary_key=True)
    organization_id = models.UUIDField()
    currency = models.TextField()
    transfer_id = models.UUIDField()
    account_id = models.UUIDField()
    account_kind = models.TextField()
    signed_micros = models.BigIntegerField()
    kind = models.TextField()
    reason = models.TextField()
    reference = models.TextField()
    occurred_at = models.DateTimeField()
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = _("movement")
        verbose_name_plural = _("movements")
        managed = False  # A view; its migration has the SQL.
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.account_kind} {self.signed_micros}"
