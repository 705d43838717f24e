"""Staff: every list opens; a change needs a reason, its permission, and says how each row went."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.contrib.messages.storage.cookie import CookieStorage
from django.test import RequestFactory
from django.urls import reverse
from django.utils import timezone

from apps.identity import services as identity
from apps.identity.models import MfaDevice
from apps.invoices.models import InvoiceState
from apps.notifications.models import Mail
from apps.notifications.rendering import render
from apps.payments import models
from apps.payments import services as payments
from apps.payments.models import Difference, DifferenceKind, EventState, Refund, StripeEvent
from tests import build
from tests.money import lots
from tests.payments.paid import paid
from tests.staff import staff_client, staff_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def act(rf):
    staff, _secret = identity.create_staff(
        email="ada@example.com", password="correct horse battery", now=timezone.now()
    )

    def run(model, action, rows, reason="checked"):
        request = RequestFactory().post("/admin/", {"reason": reason})
        request.user = staff
        request._messages = CookieStorage(request)
        site = admin.site._registry[model]
        assert site.get_actions(request)[action]
        getattr(site, action)(request, rows)
        return [str(message) for message in get_messages(request)]

    return run


@pytest.fixture
def staff(db):
    """Return a verified browser of staff with every right."""
    return staff_client(staff_user("ada@example.com"))


@pytest.mark.parametrize(
    "model",
    [
        models.Payment, models.Refund, models.Dispute, models.StripeEvent, models.Difference, models.Collection,
        models.Reconciliation, models.PaymentMethod, models.AutoTopUp, models.StripeCustomer, models.CardSetup,
    ],
)  # fmt: skip
def test_nothing_is_edited_by_hand(rf, model):
    site = admin.site._registry[model]

    assert not site.has_change_permission(rf.get("/"))
    assert not site.has_delete_permission(rf.get("/"))
    assert not site.has_add_permission(rf.get("/"))


def test_a_refund_is_approved_with_a_reason(stripe, lab, act):
    payment = paid(stripe, lab)
    payments.request_refund(
        actor=build.actor(lab), payment_id=payment.id, amount=None, reason="not needed", now=timezone.now()
    )

    (said,) = act(Refund, "approve", Refund.objects.all())

    assert said.endswith(": approved")
    assert lots(lab) == [("paid", 0)]
    (refused,) = act(Refund, "reject", Refund.objects.all())
    assert "decided already" in refused


def test_staff_read_that_the_customer_reads_why_a_refund_is_rejected(stripe, lab, staff):
    payment = paid(stripe, lab)
    refund = payments.request_refund(
        actor=build.actor(lab), payment_id=payment.id, amount=None, reason="not needed", now=timezone.now()
    )
    address = reverse("admin:payments_refund_changelist")

    asked = staff.post(address, {"action": "reject", "_selected_action": refund.pk})
    assert "Reject (the customer reads the reason)" in asked.content.decode()
    sent = {"action": "reject", "_selected_action": refund.pk, "reason": "It is spent by now."}
    assert "rejected" in staff.post(address, sent, follow=True).content.decode()

    refund.refresh_from_db()
    assert (refund.state, refund.message) == ("rejected", "It is spent by now.")


def test_a_dead_letter_is_processed_again(act):
    now = timezone.now()
    StripeEvent.objects.create(
        id="evt_1", event_type="refund.updated", object_id="re_1", is_live=False, body=b"{}", state=EventState.DEAD,
        attempts=10, next_attempt_at=now, happened_at=now, received_at=now,
    )  # fmt: skip

    act(StripeEvent, "replay", StripeEvent.objects.all())

    event = StripeEvent.objects.get()
    assert (event.state, event.attempts) == (EventState.RECEIVED, 0)


def test_a_difference_is_resolved_with_a_reason(act):
    now = timezone.now()
    Difference.objects.create(
        kind=DifferenceKind.NOT_HERE, object_id="pi_1", detail="x", found_at=now, seen_at=now
    )

    act(Difference, "resolve", Difference.objects.all(), reason="sold a mug")

    row = Difference.objects.get()
    assert (row.resolved_by, row.reason) == ("ada@example.com", "sold a mug")


@pytest.fixture
def difference(db):
    now = timezone.now()
    return Difference.objects.create(
        kind=DifferenceKind.NOT_HERE, object_id="pi_mug", detail="700 USD", found_at=now, seen_at=now
    )


def test_the_report_lists_differences_until_staff_say_why(staff, difference):
    address = reverse("admin:payments_reconciliation_report")
    home = staff.get(reverse("admin:index")).content.decode()
    assert "Differences with Stripe" in home
    assert "pi_mug" in staff.get(address).content.decode()

    staff.post(address, {"difference": difference.pk, "reason": " "})
    assert staff.post(address, {"difference": "nothing", "reason": "Sold a mug"}).status_code == 404
    difference.refresh_from_db()
    assert difference.resolved_at is None

    staff.post(address, {"difference": difference.pk, "reason": "Sold a mug"})
    difference.refresh_from_db()
    assert (difference.resolved_by, difference.reason) == ("ada@example.com", "Sold a mug")
    again = staff.post(address, {"difference": difference.pk, "reason": "Sold two"}, follow=True)
    assert "resolved already" in again.content.decode()
    page = again.content.decode()
    assert "Stripe and the books agree." in page
    assert "Sold a mug" in page


def test_only_staff_who_may_resolve_differences(staff, difference):
    user = MfaDevice.objects.get().user
    user.is_superuser = False
    user.save()
    address = reverse("admin:payments_reconciliation_report")

    assert staff.get(address).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_reconciliation"))
    assert staff.get(address).status_code == 200
    assert staff.post(address, {"difference": difference.pk, "reason": "x"}).status_code == 403
    difference.refresh_from_db()
    assert difference.resolved_at is None


def test_the_operator_hears_of_differences_once_a_day(staff, difference, settings):
    now = timezone.now()
    assert [payments.tell_operator(now=now), payments.tell_operator(now=now)] == [True, True]
    settings.OPERATOR_EMAILS = ["money@operator.example"]
    payments.tell_operator(now=now + timedelta(days=1))

    first, second = Mail.objects.filter(template="payments/mail/reconciliation").order_by("pk")
    assert (first.recipient, second.recipient) == ("ada@example.com", "money@operator.example")
    mail = render(first.template, first.context)
    assert f"{now:%Y-%m-%d}" in mail.subject
    assert "pi_mug: Stripe has it, we do not. 700 USD" in mail.text
    assert "/admin/payments/reconciliation/report" in mail.text

    payments.resolve_difference(actor=build.actor(), difference_id=difference.id, reason="a mug", now=now)
    assert not payments.tell_operator(now=now + timedelta(days=2))


def test_money_at_the_bank_is_recorded_in_parts(staff, db):
    april = datetime(2026, 4, 10, tzinfo=UTC)
    lab = build.organization("lab", billing_email="money@lab.example", now=april)
    build.price_book({"unit_price": "2.50"})
    build.usage(lab, april, april + timedelta(hours=4))
    invoice = build.closed(lab, "2026-04").invoice
    payments.collect_due(now=timezone.now())
    address = reverse("admin:payments_invoice_receipt", args=[models.Collection.objects.get().invoice_id])

    assert (
        "Record a bank transfer"
        in staff.get(reverse("admin:payments_collection_changelist")).content.decode()
    )
    said = staff.post(address, {"amount": "4", "reference": "wire 1"}, follow=True).content.decode()
    assert "6.00 USD are left to pay" in said
    assert "recorded before" in staff.post(address, {"amount": "4", "reference": "wire 1"}).content.decode()
    said = staff.post(address, {"amount": "6.50", "reference": "wire 2"}, follow=True).content.decode()

    assert f"Invoice {invoice.number} is paid. The other 0.50 USD go to what else is owed" in said
    invoice.refresh_from_db()
    assert invoice.state == InvoiceState.PAID


def test_staff_read_of_a_payment_what_went_back(stripe, lab, staff):
    lost, whole = paid(stripe, lab), paid(stripe, lab)
    charge = stripe.engine.get("payment_intent", lost.intent_id)["latest_charge"]
    dispute = stripe.act("dispute", charge=charge)
    payments.sync_dispute(dispute["id"], now=timezone.now())
    stripe.act("end-dispute", dispute=dispute["id"], won=False)
    payments.sync_dispute(dispute["id"], now=timezone.now())

    assert "Lost in a dispute" in staff.get(reverse("admin:payments_payment_changelist")).text
    row = staff.get(reverse("admin:payments_payment_change", args=[lost.pk])).text
    assert f"{reverse('admin:payments_dispute_changelist')}?q={lost.intent_id}" in row
    assert "Disputes (1)" in row
    assert "Disputes (" not in staff.get(reverse("admin:payments_payment_change", args=[whole.pk])).text
