"""Bookkeeping in the staff admin: the journal month by month, its locks, and the cost and usage of a month."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from apps.core.money import grouped_minor
from apps.core.periods import is_label, label_of, previous_label
from apps.core.staff import ReadOnlyAdmin, staff_actor, take_step
from apps.invoices import journal
from apps.invoices import services as invoices
from apps.invoices.files import csv_answer, focus_answer
from apps.invoices.forms import ConfirmForm, ReasonForm
from apps.invoices.models import JournalMonth

MONTHS_SHOWN = 24


@admin.register(JournalMonth)
class JournalMonthAdmin(ReadOnlyAdmin):
    list_display = ("label", "locked_at", "locked_by", "unlocked_at", "unlocked_by", "reason")
    list_filter = ("label",)
    ordering = ("-locked_at", "-id")
    change_list_template = "invoices/admin/locks.html"

    def get_urls(self) -> list[URLPattern]:
        """Add the months, what each exports, and the steps of locking and unlocking."""
        view = self.admin_site.admin_view
        return [
            path("months/", view(self.months), name="invoices_journal"),
            path("months/<str:label>/", view(self.month), name="invoices_journal_month"),
            path("months/<str:label>/journal.csv", view(self.journal), name="invoices_journal_file"),
            path("months/<str:label>/focus.csv", view(self.focus), name="invoices_journal_focus"),
            path("months/<str:label>/lock/", view(self.lock), name="invoices_journal_lock"),
            path("<uuid:month_id>/unlock/", view(self.unlock), name="invoices_journal_unlock"),
            *super().get_urls(),
        ]

    def months(self, request: HttpRequest) -> HttpResponse:
        """Show the last months, newest first, and which are locked."""
        locks = {month.label: month for month in JournalMonth.objects.filter(unlocked_at=None)}
        label, rows = label_of(timezone.now(), "UTC"), []
        for _month in range(MONTHS_SHOWN):
            rows.append({"label": label, "lock": locks.get(label)})
            label = previous_label(label)
        return self._page(request, "journal", _now("Bookkeeping by month"), {"rows": rows})

    def month(self, request: HttpRequest, label: str) -> HttpResponse:
        """Show the sums of a month's journal by account."""
        lock = JournalMonth.objects.filter(label=_label(label), unlocked_at=None).first()
        found = journal.totals_of(label)
        totals = [
            {"currency": currency, "account": account, "amount": grouped_minor(minor, currency)}
            for (currency, account), minor in sorted(found.minors.items())
        ]
        shown = {"label": label, "lock": lock, "count": found.entries, "totals": totals}
        return self._page(request, "journal_month", _now("Journal of %s") % label, shown)

    def journal(self, request: HttpRequest, label: str) -> StreamingHttpResponse:
        """Download the journal of a month."""
        self._check_view(request)
        return csv_answer(journal.as_csv(_label(label), journal.entries_of(label)), f"journal-{label}")

    def focus(self, request: HttpRequest, label: str) -> StreamingHttpResponse:
        """Download cost and usage of a month, of all organizations."""
        self._check_view(request)
        return focus_answer(_label(label), None)

    def lock(self, request: HttpRequest, label: str) -> HttpResponse:
        """Lock a month."""

        def step() -> str:
            invoices.lock_journal_month(actor=staff_actor(request), label=label, now=timezone.now())
            return _now("%s is locked; its export stays as it is.") % label

        form = ConfirmForm(request.POST if request.method == "POST" else None)
        return self._step(request, JournalMonth(label=_label(label)), _now("Lock the month"), form, step)

    def unlock(self, request: HttpRequest, month_id: UUID) -> HttpResponse:
        """Unlock the newest locked month."""
        month = get_object_or_404(JournalMonth, pk=month_id)
        form = ReasonForm(request.POST if request.method == "POST" else None)

        def step() -> str:
            reason = form.cleaned_data["reason"]
            invoices.unlock_journal_month(
                actor=staff_actor(request), month=month, reason=reason, now=timezone.now()
            )
            return _now("%s is unlocked.") % month

        return self._step(request, month, _now("Unlock the month"), form, step)

    def _step(
        self, request: HttpRequest, month: JournalMonth, title: str, form: Any, step: Any
    ) -> HttpResponse:
        if not request.user.has_perm("invoices.correct_invoice"):
            raise PermissionDenied
        page = reverse("admin:invoices_journal_month", args=[month.label])
        return take_step(self, request, row=month, row_url=page, title=title, form=form, step=step)

    def _page(self, request: HttpRequest, name: str, title: str, shown: dict[str, Any]) -> HttpResponse:
        self._check_view(request)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.model._meta,
            "title": title,
            "may_lock": request.user.has_perm("invoices.correct_invoice"),
            **shown,
        }
        return TemplateResponse(request, f"invoices/admin/{name}.html", context)

    def _check_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied


def _label(text: str) -> str:
    if not is_label(text):
        raise Http404(_("Not a month."))
    return text
