"""Payments in the staff admin: to read; a change is an action with its own permission, a reason and a message."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.core.errors import DomainError
from apps.core.money import from_minor, grouped_minor
from apps.core.staff import (
    EVERYWHERE,
    OrganizationLink,
    ReadOnlyAdmin,
    ReasonActionForm,
    act_on_each,
    link_to,
    list_link,
    staff_actor,
    take_step,
    with_reason,
)
from apps.invoices.models import Invoice
from apps.invoices.parties import due_on
from apps.payments import services as payments
from apps.payments.forms import BankReceiptForm, ResolveForm, StaffRefundForm
from apps.payments.models import (
    AutoTopUp,
    CardSetup,
    Collection,
    CollectionState,
    Difference,
    Dispute,
    Payment,
    PaymentMethod,
    PaymentState,
    Reconciliation,
    Refund,
    StripeCustomer,
    StripeEvent,
)
from apps.payments.services.disputes import TO_ANSWER


class _Staff(OrganizationLink, ReadOnlyAdmin):
    """What the lists of payments have in common."""

    show_full_result_count = False

    def each(
        self, request: HttpRequest, rows: QuerySet[Any], act: Callable[[Any], object], done: str
    ) -> None:
        """Call a service for each row and say how each went."""

        def told(row: Any) -> str:
            act(row)
            return f"{self.named(row)}: {done}"

        act_on_each(self, request, rows, told, named=self.named)

    def named(self, row: Any) -> str:
        """Return what messages call a row."""
        return str(row)

    def has_own_permission(self, request: HttpRequest, name: str) -> bool:
        """Return whether the staff user holds a permission of this app."""
        return request.user.has_perm(f"payments.{name}")

    @admin.display(description=gettext_lazy("Amount"), ordering="amount_minor")
    def amount(self, row: Any) -> str:
        return f"{grouped_minor(row.amount_minor, row.currency)} {row.currency}"


@admin.register(Payment)
class PaymentAdmin(_Staff):
    list_display = (
        "created_at", "organization_link", "kind", "state", "amount", "step", "settled", "paid_with", "invoice_link",
        "intent_id", "lot_link",
    )  # fmt: skip
    list_filter = ("state", "kind", "currency")
    list_select_related = ("organization", "invoice")
    search_fields = ("id", "intent_id", "session_id", "organization__slug", "invoice__number")
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")

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
            refund = payments.request_refund(
                actor=staff_actor(request), payment_id=payment.id, now=timezone.now(), **form.cleaned_data
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
class RefundAdmin(_Staff):
    list_display = (
        "created_at", "organization_link", "state", "amount", "destination", "payment_link", "reason",
        "requested_by", "decided_by", "refund_id",
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

    @admin.action(description=gettext_lazy("Reject"), permissions=["decide"], location=EVERYWHERE)
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
_DISPUTE_STATUSES = {
    "warning_needs_response": gettext_lazy("Question to answer"),
    "warning_under_review": gettext_lazy("Question answered"),
    "warning_closed": gettext_lazy("Question closed"),
    "needs_response": gettext_lazy("To answer"),
    "under_review": gettext_lazy("The bank decides"),
    "prevented": gettext_lazy("Prevented"),
    "won": gettext_lazy("Won"),
    "lost": gettext_lazy("Lost"),
}


def _in_words(code: str) -> str:
    """Return a status or reason of Stripe in words; one that is new to us without its underscores."""
    return str(_DISPUTE_STATUSES.get(code) or code.replace("_", " ").capitalize())


class _InWords(admin.AllValuesFieldListFilter):
    """The values that occur, in words."""

    def choices(self, changelist: Any) -> Any:
        for choice in super().choices(changelist):
            shown = choice["display"]
            yield {**choice, "display": _in_words(str(shown)) if shown in self.lookup_choices else shown}


@admin.register(Dispute)
class DisputeAdmin(_Staff):
    list_display = (
        "created_at", "organization_link", "standing", "amount", "why", "due_by", "withdrawn_at", "reinstated_at",
        "dispute_id",
    )  # fmt: skip
    list_filter = (("status", _InWords), ("reason", _InWords))
    fields = (
        "organization", "payment", "standing", "why", "amount_minor", "lot_micros", "due_by", "withdrawn_at",
        "reinstated_at", "closed_at", "dispute_id", "created_at",
    )  # fmt: skip
    list_select_related = ("organization",)
    search_fields = ("dispute_id", "organization__slug", "payment__intent_id")
    ordering = ("-created_at", "-id")

    @admin.display(description=gettext_lazy("State"), ordering="status")
    def standing(self, dispute: Dispute) -> str:
        return _in_words(dispute.status)

    @admin.display(description=gettext_lazy("Reason"), ordering="reason")
    def why(self, dispute: Dispute) -> str:
        return _in_words(dispute.reason)


@admin.register(StripeEvent)
class StripeEventAdmin(_Staff):
    list_display = (
        "received_at", "event_type", "state", "error", "attempts", "object_id", "source", "processed_at",
    )  # fmt: skip
    list_filter = ("state", "source", "event_type")
    search_fields = ("id", "object_id")
    ordering = ("-received_at", "-id")
    fields = readonly_fields = (
        "id", "event_type", "object_id", "state", "attempts", "next_attempt_at", "last_error", "happened_at",
        "received_at", "processed_at", "as_it_came",
    )  # fmt: skip
    actions = ("replay",)
    action_form = ReasonActionForm

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Return whether the staff user may process events again."""
        return self.has_own_permission(request, "replay_stripeevent")

    @admin.display(description=gettext_lazy("Last error"))
    def error(self, event: StripeEvent) -> str:
        return Truncator(event.last_error).chars(60)

    @admin.display(description=gettext_lazy("As it came"))
    def as_it_came(self, event: StripeEvent) -> str:
        return bytes(event.body).decode(errors="replace")

    @admin.action(description=gettext_lazy("Process again"), permissions=["replay"], location=EVERYWHERE)
    @with_reason
    def replay(self, request: HttpRequest, queryset: QuerySet[StripeEvent], reason: str) -> None:
        def act(event: StripeEvent) -> None:
            payments.replay(actor=staff_actor(request), event_id=event.pk, reason=reason, now=timezone.now())

        self.each(request, queryset, act, _("waits for processing"))


@admin.register(Difference)
class DifferenceAdmin(_Staff):
    list_display = (
        "found_at",
        "kind",
        "object_id",
        "detail",
        "seen_at",
        "resolved_at",
        "resolved_by",
        "reason",
    )
    list_filter = (("resolved_at", admin.EmptyFieldListFilter), "kind")
    search_fields = ("object_id", "detail")
    ordering = ("-found_at", "-id")
    actions = ("resolve",)
    action_form = ReasonActionForm

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        """Return whether the staff user may resolve differences."""
        return self.has_own_permission(request, "resolve_difference")

    @admin.action(description=gettext_lazy("Resolve"), permissions=["resolve"], location=EVERYWHERE)
    @with_reason
    def resolve(self, request: HttpRequest, queryset: QuerySet[Difference], reason: str) -> None:
        def act(difference: Difference) -> None:
            payments.resolve_difference(
                actor=staff_actor(request), difference_id=difference.id, reason=reason, now=timezone.now()
            )

        self.each(request, queryset, act, _("resolved"))


@admin.register(Collection)
class CollectionAdmin(_Staff):
    list_display = (
        "invoice_link", "organization_link", "state", "due", "outstanding", "attempts", "next_attempt_at",
        "reminders", "step",
    )  # fmt: skip
    list_filter = ("state",)
    list_select_related = ("organization", "invoice")
    search_fields = ("invoice__number", "organization__slug")
    ordering = ("invoice__due_at", "id")

    def get_urls(self) -> list[Any]:
        receipt = self.admin_site.admin_view(self.receipt)
        own = path("invoice/<uuid:invoice_id>/receipt", receipt, name="payments_invoice_receipt")
        return [own, *super().get_urls()]

    def has_record_permission(self, request: HttpRequest) -> bool:
        """Return whether the staff user may record what came to the bank."""
        return self.has_own_permission(request, "record_receipt")

    @admin.display(description=gettext_lazy("Invoice"))
    def invoice_link(self, row: Collection) -> SafeString | str:
        return link_to("invoices_invoice", row.invoice_id, str(row.invoice))

    @admin.display(description=gettext_lazy("Due"), ordering="invoice__due_at")
    def due(self, row: Collection) -> date | None:
        return due_on(row.invoice)

    @admin.display(description=gettext_lazy("Left to pay"))
    def outstanding(self, row: Collection) -> str:
        return grouped_minor(row.invoice.outstanding_minor(), row.invoice.currency)

    @admin.display(description=gettext_lazy("Next step"))
    def step(self, row: Collection) -> SafeString | str:
        if row.state == CollectionState.DONE:
            return "–"
        url = reverse("admin:payments_invoice_receipt", args=[row.invoice_id])
        return format_html('<a href="{}">{}</a>', url, _("Record a bank transfer…"))

    def receipt(self, request: HttpRequest, invoice_id: UUID) -> HttpResponse:
        """Ask what came to the bank for an invoice, and record it."""
        if not self.has_record_permission(request):
            raise PermissionDenied
        final = Invoice.objects.final().invoices().select_related("organization")
        invoice = get_object_or_404(final, pk=invoice_id)
        form = BankReceiptForm(request.POST or None)
        currency = invoice.currency
        asked = from_minor(invoice.outstanding_minor(), currency)

        def step() -> str:
            payments.record_bank_receipt(
                actor=staff_actor(request), invoice_id=invoice.pk, now=timezone.now(), **form.cleaned_data
            )
            left = invoice.outstanding_minor()
            more = (form.cleaned_data["amount"] or asked) - asked
            facts = {"currency": currency, "invoice": invoice}
            if left:
                message = _("Recorded. %(amount)s %(currency)s are left to pay on %(invoice)s.")
                return message % {**facts, "amount": grouped_minor(left, currency)}
            if more > 0:
                message = _(
                    "Invoice %(invoice)s is paid. The other %(amount)s %(currency)s go to what else is owed, "
                    "then become credit."
                )
                return message % {**facts, "amount": f"{more:,f}"}
            return _("Invoice %s is paid.") % invoice

        return take_step(
            self,
            request,
            row=invoice,
            row_url=reverse("admin:invoices_invoice_change", args=[invoice.pk]),
            title=_("Record a bank transfer"),
            form=form,
            step=step,
            subtitle=_("%(invoice)s of %(organization)s: %(amount)s %(currency)s are left to pay")
            % {
                "invoice": invoice,
                "organization": invoice.organization,
                "amount": grouped_minor(invoice.outstanding_minor(), currency),
                "currency": currency,
            },
        )


@admin.register(Reconciliation)
class ReconciliationAdmin(_Staff):
    list_display = ("since", "until", "compared", "events_fetched", "differences", "finished_at")
    ordering = ("-until", "-id")
    change_list_template = "payments/admin/reconciliations.html"

    def get_urls(self) -> list[Any]:
        report = self.admin_site.admin_view(self.report)
        return [path("report", report, name="payments_reconciliation_report"), *super().get_urls()]

    def report(self, request: HttpRequest) -> HttpResponse:
        """Show how Stripe and the books stand, and resolve a difference with a reason."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        may_resolve = self.has_own_permission(request, "resolve_difference")
        if request.method == "POST":
            if not may_resolve:
                raise PermissionDenied
            self._resolve(request)
            return HttpResponseRedirect(request.path)
        days = self.model._default_manager.filter(finished_at__isnull=False).order_by("-finished_at", "-id")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "title": _("Stripe and the books"),
            "report": payments.report(),
            "differences": Difference.objects.filter(resolved_at=None).order_by("-found_at", "-id")[:100],
            "resolved": Difference.objects.filter(resolved_at__isnull=False).order_by("-resolved_at", "-id")[
                :10
            ],
            "runs": days[:12],
            "may_resolve": may_resolve,
            "dead_url": reverse("admin:payments_stripeevent_changelist") + "?state__exact=dead",
            "waiting_url": reverse("admin:payments_stripeevent_changelist") + "?state__exact=received",
            "disputes_url": reverse("admin:payments_dispute_changelist")
            + f"?status__in={','.join(TO_ANSWER)}",
            "refunds_url": reverse("admin:payments_refund_changelist") + "?state__exact=requested",
        }
        return TemplateResponse(request, "payments/admin/report.html", context)

    def _resolve(self, request: HttpRequest) -> None:
        form = ResolveForm(request.POST)
        if not form.is_valid():
            if "difference" in form.errors:
                raise Http404
            self.message_user(request, _("Give a reason."), messages.ERROR)
            return
        row = form.cleaned_data["difference"]
        try:
            payments.resolve_difference(
                actor=staff_actor(request),
                difference_id=row.id,
                reason=form.cleaned_data["reason"],
                now=timezone.now(),
            )
        except DomainError as error:
            self.message_user(request, f"{row.object_id}: {error}", messages.ERROR)
        else:
            self.message_user(request, _("%s is resolved.") % row.object_id, messages.SUCCESS)


@admin.register(PaymentMethod)
class PaymentMethodAdmin(_Staff):
    list_display = (
        "organization_link",
        "brand",
        "last4",
        "exp_month",
        "exp_year",
        "is_default",
        "removed_at",
    )
    list_filter = ("is_default", ("removed_at", admin.EmptyFieldListFilter))
    list_select_related = ("organization",)
    search_fields = ("method_id", "organization__slug", "last4")
    ordering = ("-created_at", "-id")


@admin.register(AutoTopUp)
class AutoTopUpAdmin(_Staff):
    list_display = ("organization_link", "state", "failures_in_a_row", "next_attempt_at", "updated_at")
    list_filter = ("state",)
    list_select_related = ("organization",)
    search_fields = ("organization__slug",)
    ordering = ("-updated_at",)


@admin.register(StripeCustomer)
class StripeCustomerAdmin(_Staff):
    list_display = ("organization_link", "customer_id", "created_at")
    list_select_related = ("organization",)
    search_fields = ("customer_id", "organization__slug")
    ordering = ("-created_at", "-id")


@admin.register(CardSetup)
class CardSetupAdmin(_Staff):
    list_display = ("created_at", "organization_link", "state", "session_id")
    list_filter = ("state",)
    list_select_related = ("organization",)
    search_fields = ("session_id", "organization__slug")
    ordering = ("-created_at", "-id")
