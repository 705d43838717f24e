"""Disputes: what the holders of cards took back through their banks."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.translation import gettext_lazy

from apps.payments.admin.common import StaffAdmin
from apps.payments.models import Dispute

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
class DisputeAdmin(StaffAdmin):
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
