"""The first page of an organization: what there is to spend, what is spent, and what runs."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from apps.billing import budgets, ladders
from apps.core.http.pages import OrganizationPage
from apps.core.permissions import Permission
from apps.invoices import selectors as invoice_selectors
from apps.invoices.wording import described
from apps.portal import overview

INVOICES_SHOWN = 4


class Overview(OrganizationPage):
    """How an organization stands at this moment."""

    permission = Permission.BILLING_READ
    section = "overview"
    template_name = "portal/overview.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        invoices = invoice_selectors.invoices_of(self.actor).order_by("-period__starts_at", "-id")
        standing = overview.standing(self.organization, now=self.now)
        request.spend_guard = standing.guard  # type: ignore[attr-defined]  # The banner reads it.
        return self.render(
            {
                "standing": standing,
                "blocking": budgets.blocking(
                    self.organization,
                    budgets.budgets_of(self.organization_id),
                    plan=standing.plan,
                    now=self.now,
                ),
                "ladder": ladders.steps_of(standing.balance, now=self.now),
                "spend": overview.spend(self.organization, standing.plan, now=self.now),
                "invoices": described(invoices[:INVOICES_SHOWN], now=self.now),
            }
        )
