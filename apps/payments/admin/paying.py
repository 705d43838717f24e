"""Payments and refunds: what customers paid, and what went back."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.core.money import grouped_minor
from apps.core.staff import (
    EVERYWHERE,
    ReasonActionForm,
    link_to,
    list_link,
    staff_actor,
    take_step,
    with_reason,
)
from apps.payments import selectors
from apps.payments import services as payments
from apps.payments.admin.common import StaffAdmin
from apps.payments.forms import StaffRefundForm
from apps.payments.models import Payment, PaymentState, Refund, RefundDestination


@admin.register(Payment)
class PaymentAdmin(StaffAdmin):
    list_display = (
        "created_at", "organization_link", "kind", "standing", "amount", "step", "settled", "paid_with", "invoice_link",
        "intent_id", "lot_link",
    )  # fmt: skip
    list_filter = ("state", "kind", "currency")
    list_select_related = ("organization", "invoice")
    search_fields = ("id", "intent_id", "session_id", "organization__slug", "invoice__number")
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    readonly_fields = ("went_back",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Payment]:
        rows: QuerySet[Payment] = super().get_queryset(request)
        return rows.prefetch_related("refunds", "disputes")

    @admin.display(description=gettext_lazy("State"), ordering="state")
    def standing(self, payment: Payment) -> str:
        """Return what the customer reads: also what became of the payment after it was paid."""
        return str(selectors.state_of(payment).word)

    @admin.display(description=gettext_lazy("Went back"))
    def went_back(self, payment: Payment) -> SafeString | str:
        """Return links to what of the payment was refunded or disputed."""
        found = (
            ("payments_refund", _("Refunds"), len(payment.refunds.all())),
            ("payments_dispute", _("Disputes"), len(payment.disputes.all())),
        )
        links = [
            list_link(model, f"{name} ({count})", q=payment.intent_id)
            for model, name, count in found
            if count
        ]
        return format_html_join(" · ", "{}", ((link,) for link in links)) or "–"

    @admin.display(description=gettext_lazy("Settled"), ordering="settled_minor")
    def settled(self, payment: Payment) -> str:
        return grouped_minor(payment.settled_minor, payment.currency)

    @admin.display(description=gettext_lazy("Invoice"))
    def invoice_link(self, payment: Payment) -> SafeString | str:
        return link_to("invoices_invoice", payment.invoice_id, str(payment.invoice))

    @admin.display(description=gettext_lazy("Ledger"))
    def lot_link(self, payment: Payment) -> SafeString:
        return list_link("ledger_transfer", _("Transfers"), q=payment.id)

    def get_urls(self) -> list[Any]:
        refund = self.admin_site.admin_view(self.refund)
        return [path("<uuid:payment_id>/refund", refund, name="payments_payment_refund"), *super().get_urls()]

    @admin.display(description=gettext_lazy("Next step"))
    def step(self, payment: Payment) -> SafeString | str:
        if payment.state != PaymentState.SUCCEEDED or payment.intent_id is None:
            return "–"
        url = reverse("admin:payments_payment_refund", args=[payment.pk])
        return format_html('<a href="{}">{}</a>', url, _("Refund…"))

    def refund(self, request: HttpRequest, payment_id: UUID) -> HttpResponse:
        """Ask for a refund in the name of the customer; it is decided about as every other."""
        if not self.has_own_permission(request, "decide_refund"):
            raise PermissionDenied
        payment = get_object_or_404(Payment.objects.select_related("organization"), pk=payment_id)
        form = StaffRefundForm(request.POST or None)

        def step() -> str:
            sent = form.cleaned_data
            refund = payments.request_refund(
                actor=staff_actor(request),
                payment_id=payment.id,
                amount=sent["amount"],
                reason=sent["reason"],
                destination=RefundDestination(sent["destination"]),
                attempt_id=sent["attempt"],
                now=timezone.now(),
            )
            return _("A refund of %s waits for its decision.") % self.amount(refund)

        return take_step(
            self,
            request,
            row=payment,
            row_url=reverse("admin:payments_payment_change", args=[payment.pk]),
            title=_("Refund a payment"),
            form=form,
            step=step,
            done_url=reverse("admin:payments_refund_changelist") + "?state__exact=requested",
            subtitle=_("%(amount)s of %(organization)s, of which %(left)s can go back to the card")
            % {
                "amount": self.amount(payment),
                "organization": payment.organization,
                "left": grouped_minor(payments.refundable_minor(payment), payment.currency),
            },
        )


@admin.register(Refund)
class RefundAdmin(StaffAdmin):
    list_display = (
        "created_at", "organization_link", "state", "amount", "destination", "payment_link", "reason",
        "message", "requested_by", "decided_by", "refund_id",
    )  # fmt: skip
    list_filter = ("state", "destination", "currency")
    list_select_related = ("organization", "payment")
    search_fields = ("id", "refund_id", "organization__slug", "payment__intent_id")
    ordering = ("-created_at", "-id")
    actions = ("approve", "reject")
    action_form = ReasonActionForm

    def named(self, row: Refund) -> str:
        return f"{self.amount(row)}, {row.organization}"

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Return whether the staff user decides about refunds."""
        return self.has_own_permission(request, "decide_refund")

    @admin.display(description=gettext_lazy("Payment"))
    def payment_link(self, refund: Refund) -> SafeString | str:
        return link_to("payments_payment", refund.payment_id, str(refund.payment.intent_id))

    @admin.action(description=gettext_lazy("Approve"), permissions=["decide"], location=EVERYWHERE)
    @with_reason
    def approve(self, request: HttpRequest, queryset: QuerySet[Refund], reason: str) -> None:
        self._decide(request, queryset, reason, is_approved=True)

    @admin.action(
        description=gettext_lazy("Reject (the customer reads the reason)"),
        permissions=["decide"],
        location=EVERYWHERE,
    )
    @with_reason
    def reject(self, request: HttpRequest, queryset: QuerySet[Refund], reason: str) -> None:
        self._decide(request, queryset, reason, is_approved=False)

    def _decide(
        self, request: HttpRequest, queryset: QuerySet[Refund], reason: str, *, is_approved: bool
    ) -> None:
        def act(refund: Refund) -> None:
            payments.decide_refund(
                actor=staff_actor(request),
                refund_id=refund.id,
                approve=is_approved,
                reason=reason,
                now=timezone.now(),
            )

        self.each(request, queryset, act, _("approved") if is_approved else _("rejected"))


# Stripe's statuses of a dispute; those with `warning` are questions before any money moves.
