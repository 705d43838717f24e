"""Pages: the usage explorer, the statement of a month, and budgets."""

from __future__ import annotations

import csv
import re
from io import StringIO
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.billing import budgets, explorer, services, statements
from apps.billing.forms import BudgetChangeForm, BudgetForm, UsageForm
from apps.billing.models import Budget, BudgetAction, BudgetScope
from apps.billing.usage import UsageQuery, usage_with_amounts
from apps.core.forms import NamedForm
from apps.core.http.pages import FormMixin, OrganizationPage, Slice
from apps.core.http.sorting import Sorting
from apps.core.money import plain_micros, to_micros
from apps.core.periods import is_label, label_of
from apps.core.permissions import Permission
from apps.core.spreadsheets import neutral
from apps.credentials.models import ApiKey
from apps.organizations.models import Project


class Usage(OrganizationPage):
    """Usage and what it cost, cut as asked; the same as a file with `format=csv`."""

    permission = Permission.USAGE_READ
    section = "usage"
    template_name = "billing/usage.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        today = timezone.localdate(self.now)
        standard = {"first": today.replace(day=1), "last": today, "group": "sku", "interval": "day"}
        form = UsageForm(
            {**standard, **{name: request.GET[name] for name in standard if name in request.GET}}
        )
        if not form.is_valid():
            return self.render({"form": form}, status=422)
        start, end = form.range()
        group, interval = form.cleaned_data["group"], form.cleaned_data["interval"]
        if request.GET.get("format") == "csv":
            query = UsageQuery(start=start, end=end, group_by=(group,), interval=interval)
            return self._file(query)
        found = explorer.explore(
            self.organization, start=start, end=end, group=group, interval=interval, now=self.now
        )
        return self.render({"form": form, "found": found, "group": group, "query": form.data})

    def _file(self, query: UsageQuery) -> HttpResponse:
        names = ["start", *query.group_by, "meter", "quantity", "gpu_hours", "amount", "currency"]
        text = StringIO()
        rows = csv.writer(text)
        rows.writerow(names)
        for row in usage_with_amounts(self.organization, query, now=self.now):
            row["start"] = timezone.localtime(row["start"]).isoformat()
            rows.writerow([neutral(row[name]) for name in names])
        response = HttpResponse(text.getvalue(), content_type="text/csv; charset=utf-8")
        first, last = query.start.date(), query.end.date()
        response["Content-Disposition"] = f'attachment; filename="usage-{first}-{last}.csv"'
        return response


STATEMENT_LINES = 200


class Statement(OrganizationPage):
    """What came and went in a month, with the balance after each line, the newest first and a page at a time."""

    permission = Permission.BILLING_READ
    section = "credits"
    template_name = "billing/statement.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        """Show the month that is asked for, or this one."""
        asked = request.GET.get("month", "")
        this_month = label_of(self.now, self.organization.timezone)
        label = asked if is_label(asked) and "1970" <= asked <= this_month else this_month
        found = statements.statement(self.organization, label, now=self.now)
        # Lines are counted from the month's start, where none is added while somebody reads.
        asked_before = request.GET.get("before", "")
        whole = len(found.lines)
        end = min(int(asked_before), whole) if re.fullmatch(r"[0-9]{1,9}", asked_before) else whole
        begin = max(end - STATEMENT_LINES, 0)
        rows = Slice(
            rows=found.lines[begin:end][::-1],
            older=f"?month={label}&before={begin}" if begin else "",
            newest=f"?month={label}" if end < whole else "",
        )
        return self.render({"statement": found, "slice": rows})


_BUDGETS_BY = {
    "name": lambda row: row.budget.name.casefold(),
    "progress": lambda row: row.percent,
    "spent": lambda row: row.spent_micros,
    "forecast": lambda row: row.forecast_micros,
    "amount": lambda row: row.budget.amount_micros,
}


class Budgets(OrganizationPage):
    """The budgets of the running month, with how far each is spent and where its pace leads."""

    permission = Permission.BILLING_READ
    section = "budgets"
    template_name = "billing/budgets.html"

    def get(self, request: HttpRequest, **_path: Any) -> HttpResponse:
        found = budgets.states(self.organization, budgets.budgets_of(self.organization_id), now=self.now)
        sorting = Sorting(request, _BUDGETS_BY)
        return self.render({"states": sorting.of(found), "sorting": sorting})


class NewBudget(FormMixin, OrganizationPage):
    """Making a budget."""

    permission = Permission.BUDGETS_MANAGE
    section = "budgets"
    template_name = "billing/new_budget.html"
    form_class = BudgetForm

    def form_arguments(self) -> dict[str, Any]:
        """Offer the projects in use and the keys that are not revoked."""
        return {
            "projects": Project.objects.visible_to(self.actor).active().order_by("slug"),
            "keys": ApiKey.objects.visible_to(self.actor).filter(revoked_at=None).order_by("name", "pk"),
        }

    def act(self, form: Any) -> HttpResponse:
        """Make it and return to the list."""
        sent = form.cleaned_data
        project, key = form.projects.get(sent["about"]), form.keys.get(sent["about"])
        budget = services.create_budget(
            actor=self.actor,
            organization=self.organization,
            name=sent["name"],
            scope=BudgetScope.PROJECT
            if project
            else BudgetScope.API_KEY
            if key
            else BudgetScope.ORGANIZATION,
            project=project,
            credential=key,
            amount_micros=to_micros(sent["amount"]),
            thresholds=sent["thresholds"],
            action=BudgetAction.BLOCK_NEW if sent["blocks"] else BudgetAction.NOTIFY,
            now=self.now,
        )
        return self.done(_("The budget %(name)s is watched.") % {"name": budget}, to=self.url("budgets"))


class _OneBudget(OrganizationPage):
    """A page of one budget in force; of another organization it does not exist."""

    section = "budgets"

    @property
    def budget(self) -> Budget:
        """The budget of the path."""
        rows = Budget.objects.visible_to(self.actor).in_force().select_related("project", "credential")
        return get_object_or_404(rows, pk=self.kwargs["budget_id"])


class ChangeBudget(FormMixin, _OneBudget):
    """Changing a budget, and the way to end it."""

    permission = Permission.BUDGETS_MANAGE
    template_name = "billing/budget.html"
    form_class = BudgetChangeForm

    def form_arguments(self) -> dict[str, Any]:
        """Show it as it is."""
        budget = self.budget
        return {
            "initial": {
                "name": budget.name,
                "amount": plain_micros(budget.amount_micros),
                "thresholds": ", ".join(str(percent) for percent in budget.thresholds),
                "blocks": budget.action == BudgetAction.BLOCK_NEW,
            }
        }

    def context(self) -> dict[str, Any]:
        """Return the budget as it stands."""
        budget = self.budget
        (found,) = budgets.states(self.organization, [budget], now=self.now)
        return {"found": found, "budget": budget, "end_form": NamedForm(name=budget.name)}

    def act(self, form: Any) -> HttpResponse:
        """Change it and return to the list."""
        changes = form.changes()
        if "amount" in changes:
            changes["amount_micros"] = to_micros(changes.pop("amount"))
        if "blocks" in changes:
            changes["action"] = BudgetAction.BLOCK_NEW if changes.pop("blocks") else BudgetAction.NOTIFY
        budget = services.change_budget(actor=self.actor, budget=self.budget, now=self.now, **changes)
        message = _("The budget %(name)s is changed.") % {"name": budget}
        return self.done(message, to=self.url("budgets"), undo=self.undo(form))


class EndBudget(FormMixin, _OneBudget):
    """Ending a budget, with its name typed."""

    permission = Permission.BUDGETS_MANAGE
    template_name = "billing/end_budget.html"
    form_class = NamedForm

    def form_arguments(self) -> dict[str, Any]:
        """Ask for the budget's name."""
        return {"name": self.budget.name}

    def context(self) -> dict[str, Any]:
        """Say which budget it is."""
        return {"budget": self.budget}

    def act(self, form: Any) -> HttpResponse:
        """End it and return to the list."""
        budget = self.budget
        services.end_budget(actor=self.actor, budget=budget, now=self.now)
        return self.done(_("The budget %(name)s is ended.") % {"name": budget}, to=self.url("budgets"))
