"""The pages of payments: top up, saved cards, automatic top-up, paying an invoice, and what became of each payment."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from apps.core import money
from apps.core.errors import NotFound
from apps.core.http.pages import FormMixin, OrganizationPage, Undo, slice_of
from apps.core.http.sorting import RowOrder
from apps.core.permissions import Permission
from apps.payments import selectors
from apps.payments import services as payments
from apps.payments.filters import PaymentFilters
from apps.payments.forms import AutoTopUpForm, PayInvoiceForm, RefundForm, TopUpForm
from apps.payments.gateway import CardRefused
from apps.payments.models import HOLDING_STATES, AutoTopUpState

PAYMENTS_SHOWN = 20
_STEP_UP = frozenset({"POST"})


def _absolute(path: str) -> str:
    return f"{settings.PUBLIC_URL}{path}"


class Payments(FormMixin, OrganizationPage):
    """What there is, how to pay more in, and every payment so far."""

    permission: ClassVar = {"GET": Permission.BILLING_READ, "POST": Permission.BILLING_TOP_UP}
    section = "payments"
    template_name = "payments/payments.html"
    form_class = TopUpForm

    def get(self, request: HttpRequest, *args: Any, **path: Any) -> HttpResponse:
        """Show the page; whoever comes back from saving a card finds it saved."""
        if session_id := selectors.waiting_setup(self.organization_id, request.GET.get("setup", "")):
            payments.look_at_stripe(payments.sync_setup_session, session_id, now=self.now)
        return super().get(request, *args, **path)

    def context(self) -> dict[str, Any]:
        """Return the balance, the cards, the rule of automatic top-up and the payments asked for."""
        visible = selectors.payments_of(self.actor)
        filters = PaymentFilters(self.request.GET, visible)
        order = RowOrder(self.request, {"when": "pk", "amount": "amount_minor"})
        rows = filters.qs.prefetch_related("disputes", "refunds") if filters.is_valid() else visible.none()
        found = slice_of(self.request, rows, size=PAYMENTS_SHOWN, order=order, among=visible)
        return {
            "standing": selectors.standing(self.organization, self.actor, now=self.now),
            "filters": filters.form,
            "is_narrowed": not filters.is_valid() or any(filters.form.cleaned_data.values()),
            "sorting": order,
            "slice": found,
            "payments": [(payment, selectors.state_of(payment)) for payment in found.rows],
        }

    def act(self, form: Any) -> HttpResponse:
        """Start a top-up and go to the page that takes it."""
        payment = payments.start_top_up(
            actor=self.actor,
            organization=self.organization,
            amount=form.cleaned_data["amount"],
            success_url=_absolute(self.url("payment-returned")),
            cancel_url=_absolute(self.url("payments")),
            now=self.now,
        )
        opened = payments.open_checkout(payment_id=payment.id, now=self.now)
        return HttpResponseRedirect(opened.checkout_url)


class Returned(OrganizationPage):
    """Where Stripe's page sends people back to: the newest attempt, asked about once more."""

    permission = Permission.BILLING_READ
    section = "payments"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        payment = selectors.payments_of(self.actor).exclude(session_id=None).order_by("-pk").first()
        if payment is None:
            raise NotFound
        return HttpResponseRedirect(self.url("payment", payment_id=payment.pk))


class PaymentPage(FormMixin, OrganizationPage):
    """One payment: how it stands, its receipt, and asking for its unspent credit back."""

    permission: ClassVar = {"GET": Permission.BILLING_READ, "POST": Permission.BILLING_MANAGE}
    step_up = _STEP_UP
    section = "payments"
    template_name = "payments/payment.html"
    form_class = RefundForm
    is_current = True

    def get(self, request: HttpRequest, *args: Any, **path: Any) -> HttpResponse:
        """Ask Stripe what became of it while that may still change, and show it as far as it is known."""
        payment = selectors.payment_by_id(self.actor, path["payment_id"])
        if payment.is_live and (payment.session_id or payment.intent_id):
            self.is_current = payments.look_at_stripe(payments.sync_payment, payment.id, now=self.now)
        return super().get(request, *args, **path)

    def context(self) -> dict[str, Any]:
        """Return the payment as it is by now, and what of it can be asked back."""
        payment = selectors.payment_by_id(self.actor, self.kwargs["payment_id"])
        refundable = payments.refundable_minor(payment)
        refunds, disputes = selectors.refunds_of(payment), selectors.disputes_of(payment)
        taken = [
            dispute
            for dispute, _state in disputes
            if dispute.withdrawn_at is not None and dispute.reinstated_at is None
        ]
        return {
            "payment": payment,
            "state": selectors.state_of(payment),
            "is_current": self.is_current,
            "refunds": refunds,
            "is_refunded": any(refund.state in HOLDING_STATES for refund, _state in refunds),
            "disputes": disputes,
            "is_taken_back": bool(taken),
            "owed": money.from_minor(sum(dispute.owed_minor for dispute in taken), payment.currency),
            "refundable": money.from_minor(refundable, payment.currency) if refundable else None,
        }

    def act(self, form: Any) -> HttpResponse:
        """Ask for a refund."""
        payments.request_refund(
            actor=self.actor,
            payment_id=self.kwargs["payment_id"],
            amount=form.cleaned_data["amount"],
            reason=form.cleaned_data["reason"],
            attempt_id=form.cleaned_data["attempt"],
            now=self.now,
        )
        message = _("Your refund is asked for. We mail you when it is decided.")
        return self.done(message, to=self.url("payment", payment_id=self.kwargs["payment_id"]))


class AddCard(OrganizationPage):
    """Saving a card, on Stripe's page."""

    permission = Permission.BILLING_MANAGE
    step_up = _STEP_UP

    def post(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        back = _absolute(self.url("payments"))
        setup = payments.start_card_setup(
            actor=self.actor,
            organization=self.organization,
            success_url=f"{back}?setup={{CHECKOUT_SESSION_ID}}",
            cancel_url=back,
            now=self.now,
        )
        return HttpResponseRedirect(payments.open_card_setup(setup_id=setup.id, now=self.now).checkout_url)


class CardAction(OrganizationPage):
    """Making a saved card the default, or removing it."""

    permission = Permission.BILLING_MANAGE
    step_up = _STEP_UP

    def post(self, request: HttpRequest, **path: Any) -> HttpResponse:
        method = selectors.method_by_id(self.actor, path["method_id"])
        to = self.url("payments")
        if request.POST.get("do") == "remove":
            ended_auto_top_up = payments.remove_card(actor=self.actor, method_id=method.id, now=self.now)
            removed = (
                _("%(card)s is removed. It was the last card, so automatic top-up is off.")
                if ended_auto_top_up
                else _("%(card)s is removed.")
            )
            return self.done(removed % {"card": method}, to=to)
        before = selectors.default_card(self.actor)
        payments.make_default(actor=self.actor, method_id=method.id)
        back = self.url("card-action", method_id=before.pk) if before else ""
        undo = Undo(url=back, fields={"do": "default"}) if before and before != method else None
        return self.done(_("%(card)s is charged from now on.") % {"card": method}, to=to, undo=undo)


class AutoTopUpPage(FormMixin, OrganizationPage):
    """Charging the default card when credit runs low."""

    permission: ClassVar = {"GET": Permission.BILLING_READ, "POST": Permission.BILLING_MANAGE}
    step_up = _STEP_UP
    section = "payments"
    template_name = "payments/auto_top_up.html"
    form_class = AutoTopUpForm

    def form_arguments(self) -> dict[str, Any]:
        """Return the amounts in force."""
        row = selectors.standing(self.organization, self.actor, now=self.now).auto_top_up
        return {"initial": {name: row[name] for name in ("threshold", "amount", "monthly_cap") if row[name]}}

    def context(self) -> dict[str, Any]:
        """Return how it stands."""
        return {"standing": selectors.standing(self.organization, self.actor, now=self.now)}

    def post(self, request: HttpRequest, *args: Any, **path: Any) -> HttpResponse:
        """Turn it off, or take the form."""
        if request.POST.get("do") == "off":
            amounts = self.form_arguments()["initial"]
            payments.turn_off_auto_top_up(actor=self.actor, organization=self.organization, now=self.now)
            undo = Undo(url=request.path, fields={"do": "on", **amounts})
            return self.done(_("Automatic top-up is off."), to=self.url("payments"), undo=undo)
        return super().post(request, *args, **path)

    def act(self, form: Any) -> HttpResponse:
        """Change the amounts, and turn it on if that is what the button said."""
        turn_on = self.request.POST.get("do") == "on"
        rule = payments.set_auto_top_up(
            actor=self.actor,
            organization=self.organization,
            turn_on=turn_on,
            now=self.now,
            **form.changes(),
        )
        if turn_on:
            return self.done(_("Automatic top-up is on."), to=self.url("payments"))
        message = (
            _("The amounts of automatic top-up are saved.")
            if rule.state == AutoTopUpState.ACTIVE
            else _("The amounts are saved, but automatic top-up is not on.")
        )
        return self.done(message, to=self.url("payments"), undo=self.undo(form))


class PayInvoice(FormMixin, OrganizationPage):
    """Paying an open invoice, whole or a part of it: with the saved card, on Stripe's page, or from paid credit."""

    permission = Permission.BILLING_MANAGE
    step_up = _STEP_UP
    section = "payments"
    template_name = "payments/pay_invoice.html"
    form_class = PayInvoiceForm

    def form_arguments(self) -> dict[str, Any]:
        """Return all that is left to pay."""
        return {"initial": {"amount": self.context()["left"]}}

    def context(self) -> dict[str, Any]:
        """Return what is left to pay, and what could pay it."""
        return selectors.invoice_to_pay(self.actor, self.kwargs["invoice_id"], now=self.now)

    def act(self, form: Any) -> HttpResponse:
        """Pay the amount as the button says."""
        common: dict[str, Any] = {
            "actor": self.actor,
            "organization": self.organization,
            "invoice_id": self.kwargs["invoice_id"],
            "amount": form.cleaned_data["amount"],
            "attempt_id": form.cleaned_data["attempt"],
            "now": self.now,
        }
        try:
            return self._pay(form, common)
        except payments.SentBefore as before:
            return self.done(str(before), to=self.url("payment", payment_id=before.details["payment"]))

    def _pay(self, form: Any, common: dict[str, Any]) -> HttpResponse:
        by = self.request.POST.get("by")
        if by == "credit":
            payment = payments.replacing_page(
                lambda: payments.pay_invoice_from_credit(**common), now=self.now
            )
            return HttpResponseRedirect(self.url("payment", payment_id=payment.id))
        payment = payments.replacing_page(
            lambda: payments.start_invoice_payment(
                by_card=by == "card",
                success_url=_absolute(self.url("payment-returned")),
                cancel_url=_absolute(reverse("invoice-to-pay", kwargs=self.kwargs)),
                **common,
            ),
            now=self.now,
        )
        try:
            payment = payments.pay(payment_id=payment.id, now=self.now)
        except CardRefused as refusal:
            return self.render({"form": form, **self.context(), "problem": str(refusal)}, status=402)
        if payment.checkout_url and payment.is_live:
            return HttpResponseRedirect(payment.checkout_url)
        return HttpResponseRedirect(self.url("payment", payment_id=payment.id))
