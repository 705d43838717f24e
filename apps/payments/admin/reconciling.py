"""What Stripe says beside what the books say, and where they differ."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.core.errors import DomainError
from apps.core.staff import EVERYWHERE, ReasonActionForm, staff_actor, with_reason
from apps.payments import services as payments
from apps.payments.admin.common import StaffAdmin
from apps.payments.forms import ResolveForm
from apps.payments.models import Difference, Reconciliation
from apps.payments.services.disputes import TO_ANSWER


@admin.register(Difference)
class DifferenceAdmin(StaffAdmin):
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


@admin.register(Reconciliation)
class ReconciliationAdmin(StaffAdmin):
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
