"""What Stripe sent, as it came, to be processed again."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.core.staff import (
    EVERYWHERE,
    ReasonActionForm,
    staff_actor,
    with_reason,
)
from apps.payments import services as payments
from apps.payments.admin.common import StaffAdmin
from apps.payments.models import StripeEvent


@admin.register(StripeEvent)
class StripeEventAdmin(StaffAdmin):
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
