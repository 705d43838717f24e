"""Staff: every list opens; a change needs a reason, its permission, and says how each row went."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.messages import get_messages
from django.contrib.messages.storage.cookie import CookieStorage
from django.test import RequestFactory
from django.utils import timezone

from apps.identity import services as identity
from apps.payments import models
from apps.payments import services as payments
from apps.payments.models import Difference, DifferenceKind, EventState, Refund, RefundState, StripeEvent
from tests import build
from tests.money import lots
from tests.payments.paid import paid

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

    assert act(Refund, "approve", Refund.objects.all(), reason=" ") == ["Give a reason."]
    assert Refund.objects.get().state == RefundState.REQUESTED
    (said,) = act(Refund, "approve", Refund.objects.all())

    assert said.endswith(": approved")
    assert lots(lab) == [("paid", 0)]
    (refused,) = act(Refund, "reject", Refund.objects.all())
    assert "decided already" in refused


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
