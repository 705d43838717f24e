"""The books in the staff admin: everything to read, nothing to change."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from apps.core.staff import ReadOnlyAdmin, grouped_micros, link_to, list_link, micros_column
from apps.ledger.models import Account, Transfer, Wallet


class OrganizationColumn:
    """The ledger knows organizations as ids; the admin links to their pages all the same."""

    @admin.display(description=_("Organization"), ordering="organization_id")
    def organization(self, row: Wallet | Account | Transfer) -> SafeString | str:
        # The end of a time-ordered id tells rows apart, its beginning does not.
        return link_to("organizations_organization", row.organization_id, f"…{row.organization_id.hex[-12:]}")


@admin.register(Wallet)
class WalletAdmin(OrganizationColumn, ReadOnlyAdmin):
    list_display = ("organization", "currency", "accounts", "transfers", "created_at")
    search_fields = ("organization_id",)
    list_filter = ("currency",)
    ordering = ("-created_at", "id")

    @admin.display(description=_("Accounts"))
    def accounts(self, wallet: Wallet) -> SafeString:
        return list_link("ledger_account", str(_("Accounts")), organization_id__exact=wallet.organization_id)

    @admin.display(description=_("Transfers"))
    def transfers(self, wallet: Wallet) -> SafeString:
        return list_link(
            "ledger_transfer", str(_("Transfers")), organization_id__exact=wallet.organization_id
        )


@admin.register(Account)
class AccountAdmin(OrganizationColumn, ReadOnlyAdmin):
    list_display = ("kind", "organization", "currency", "balance", "transfers", "created_at")
    search_fields = ("id", "organization_id")
    list_filter = ("kind", "currency")
    ordering = ("organization_id", "kind", "id")
    balance = micros_column("balance_micros", _("Balance"))

    @admin.display(description=_("Transfers"))
    def transfers(self, account: Account) -> SafeString:
        return list_link("ledger_transfer", str(_("Transfers")), q=account.id)


@admin.register(Transfer)
class TransferAdmin(OrganizationColumn, ReadOnlyAdmin):
    list_display = ("occurred_at", "kind", "organization", "from_account", "to_account", "amount", "cause")
    list_select_related = ("debit", "credit")
    search_fields = ("cause", "reference", "organization_id", "debit__id", "credit__id", "batch_id")
    list_filter = ("kind", "currency", "occurred_at")
    date_hierarchy = "occurred_at"
    ordering = ("-occurred_at", "-id")
    show_full_result_count = False

    @admin.display(description=_("Debit"))
    def from_account(self, transfer: Transfer) -> SafeString | str:
        return link_to("ledger_account", transfer.debit_id, transfer.debit.get_kind_display())

    @admin.display(description=_("Credit"))
    def to_account(self, transfer: Transfer) -> SafeString | str:
        return link_to("ledger_account", transfer.credit_id, transfer.credit.get_kind_display())

    @admin.display(description=_("Amount"), ordering="amount_micros")
    def amount(self, transfer: Transfer) -> str:
        return f"{grouped_micros(transfer.amount_micros)} {transfer.currency}"
