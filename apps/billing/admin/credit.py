"""Credit in the staff admin: every lot, giving credit and taking it back, and what became of it month by month."""

from __future__ import annotations

import csv
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.billing import reports, services
from apps.billing.forms import GrantForm, WithdrawForm
from apps.billing.models import CreditLot, Pot
from apps.core.money import plain, plain_micros, to_micros
from apps.core.staff import (
    OrganizationLink,
    ReadOnlyAdmin,
    grouped_micros,
    list_link,
    micros_column,
    staff_actor,
    take_step,
)
from apps.organizations.models import Organization


@admin.register(CreditLot)
class CreditLotAdmin(OrganizationLink, ReadOnlyAdmin):
    change_list_template = "billing/admin/credit.html"
    list_display = (
        "organization_link", "pot", "amount", "remaining", "currency", "priority", "effective_at", "expires_at",
        "source", "account_link", "step",
    )  # fmt: skip
    list_filter = ("pot", "source", "currency")
    list_select_related = ("organization", "account")
    search_fields = ("id", "organization__slug", "reason")
    ordering = ("-created_at", "-id")
    amount = micros_column("amount_micros", _("Amount"))
    remaining = micros_column("account__balance_micros", _("Remaining"))

    def get_urls(self) -> list[URLPattern]:
        """Add the pages that give credit, take it back and report on it."""
        wrap = self.admin_site.admin_view
        return [
            path("by-month/", wrap(self.by_month), name="billing_credit_by_month"),
            path("grant/<uuid:organization_id>/", wrap(self.grant), name="billing_grant_credit"),
            path("<uuid:lot_id>/take-back/", wrap(self.take_back), name="billing_take_credit_back"),
            *super().get_urls(),
        ]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow the link from an organization."""
        return lookup == "organization__id__exact" or super().lookup_allowed(lookup, value, request)

    def grant(self, request: HttpRequest, organization_id: UUID) -> HttpResponse:
        """Ask how much of which credit and why, then give it."""
        if not request.user.has_perm("billing.add_creditlot"):
            raise PermissionDenied
        organization = get_object_or_404(Organization, pk=organization_id)
        form = GrantForm(request.POST or None)

        def step() -> str:
            sent = form.cleaned_data
            services.grant_credit(
                actor=staff_actor(request),
                organization_id=organization.id,
                amount_micros=to_micros(sent["amount"]),
                pot=Pot(sent["pot"]),
                expires_at=sent["expires_at"],
                priority=sent["priority"],
                reason=sent["reason"],
                attempt_id=sent["attempt"],
                now=timezone.now(),
            )
            return _now("%(amount)s %(currency)s for %(name)s.") % {
                "amount": plain(sent["amount"], decimals_min=2),
                "currency": organization.currency,
                "name": organization,
            }

        return take_step(
            self,
            request,
            row=organization,
            row_url=reverse("admin:organizations_organization_change", args=[organization.pk]),
            title=_now("Grant credit in %s") % organization.currency,
            form=form,
            step=step,
        )

    def take_back(self, request: HttpRequest, lot_id: UUID) -> HttpResponse:
        """Ask how much to take back and why, then do it."""
        if not request.user.has_perm("billing.change_creditlot"):
            raise PermissionDenied
        lot = get_object_or_404(CreditLot.objects.select_related("organization", "account"), pk=lot_id)
        form = WithdrawForm(request.POST or None)

        def step() -> str:
            amount = form.cleaned_data["amount"]
            taken = services.withdraw_credit(
                actor=staff_actor(request),
                lot_id=lot.id,
                amount_micros=None if amount is None else to_micros(amount),
                reason=form.cleaned_data["reason"],
                attempt_id=form.cleaned_data["attempt"],
                now=timezone.now(),
            )
            return _now("%(amount)s %(currency)s are taken back from %(name)s.") % {
                "amount": plain_micros(taken),
                "currency": lot.currency,
                "name": lot.organization,
            }

        return take_step(
            self,
            request,
            row=lot,
            row_url=reverse("admin:billing_creditlot_change", args=[lot.pk]),
            title=_now("Take back"),
            form=form,
            step=step,
            template="billing/admin/take_back.html",
            remaining=grouped_micros(lot.account.balance_micros),
        )

    def by_month(self, request: HttpRequest) -> HttpResponse:
        """Show what became of all credit by month, and what ends next; `?format=csv` is the file of the former."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        now = timezone.now()
        months = reports.credit_by_month(now=now)
        if request.GET.get("format") == "csv":
            return _months_file(months)
        tables: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for month in months:
            row = {
                "label": month.label,
                "amounts": [
                    grouped_micros(micros)
                    for micros in (month.opening_micros, *month.moved.values(), month.closing_micros)
                ],
            }
            tables.setdefault((str(Pot(month.pot).label), month.currency), []).append(row)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "title": _now("Credit by month"),
            "columns": [label for label, _kinds in reports.COLUMNS.values()],
            "tables": [
                {"pot": pot, "currency": currency, "rows": rows} for (pot, currency), rows in tables.items()
            ],
            "ends": [
                {"row": end, "pot": Pot(end.pot).label, "amount": grouped_micros(end.micros)}
                for end in reports.credit_ending(now=now)
            ],
        }
        return TemplateResponse(request, "billing/admin/credit_by_month.html", context)

    @admin.display(description=_("Ledger"))
    def account_link(self, lot: CreditLot) -> SafeString:
        return list_link("ledger_transfer", str(_("Transfers")), q=lot.account_id)

    @admin.display(description=_("Next step"))
    def step(self, lot: CreditLot) -> SafeString | str:
        if not lot.account.balance_micros:
            return "–"
        url = reverse("admin:billing_take_credit_back", args=[lot.pk])
        return format_html('<a href="{}">{}</a>', url, _("Take back…"))


def _months_file(months: list[reports.CreditMonth]) -> HttpResponse:
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = 'attachment; filename="credit-by-month.csv"'
    writer = csv.writer(answer)
    writer.writerow(["month", "currency", "pot", "opening", *reports.COLUMNS, "closing"])
    for month in months:
        micros = (month.opening_micros, *month.moved.values(), month.closing_micros)
        amounts = [plain_micros(one) for one in micros]
        writer.writerow([month.label, month.currency, month.pot, *amounts])
    return answer
